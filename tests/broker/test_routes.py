"""The routes of a policy: which servers and items each shows, under which names, and who takes a call."""

import json
from typing import Any

import anyio
import pytest

from harness import SECONDS, Served, fixture_server, make_policy, serving, shapes_server, tenant_entry, until

pytestmark = pytest.mark.kernel


@pytest.fixture(params=["legacy", "modern"])
def worker_era(request: pytest.FixtureRequest) -> str:
    return request.param


ALPHA = shapes_server(
    name="alpha", tools=["search", "only_a"], prompts=["p"], resources=["mem://a", "mem://both"], capabilities={"completions": {}}
)  # fmt: skip
BETA = shapes_server(
    name="beta", era="legacy", tools=["search", "only_b"], resources=["mem://both"], resourceTemplates=["mem://b/{x}"]
)  # fmt: skip


def once() -> dict[str, Any]:
    return {"max": 1, "backoff": {"initial": "10ms", "max": "10ms"}}


def policy(servers: dict[str, Any], **routes: Any) -> dict[str, Any]:
    return make_policy(servers, routes={f"/mcp/{name}": route for name, route in routes.items()})


async def tools_of(served: Served, path: str, era: str = "modern") -> list[str]:
    client = await served.client(era, path)
    return [tool["name"] for tool in (await client.request("tools/list")).result["tools"]]


async def server_of(served: Served, path: str, tool: str) -> str:
    return json.loads((await served.modern(path).call(tool)).text)["server"]


async def named(served: Served, tool: str) -> str:
    """The name of the fixture server that answers a bare call of `whoami`."""
    arguments = (await served.modern("/mcp/bare").call(tool)).result["structuredContent"]["argv"]
    return arguments[arguments.index("--name") + 1]


async def make_fail(served: Served, server: str) -> None:
    """Crash a server that is started again once only."""
    await served.modern(server).call("crash")
    await served.modern(server).call("crash")
    await until(lambda: served.worker_set(server).state == "failed", "the server to be given up")


async def test_a_route_shows_its_servers_alone_and_no_other_path_is_one() -> None:
    routes = {"one": {"servers": ["beta"]}, "both": {"servers": ["beta", "alpha"], "separator": "--"}}
    async with serving(policy({"alpha": ALPHA, "beta": BETA}, **routes)) as served:
        assert await tools_of(served, "/mcp/one") == ["beta__search", "beta__only_b"]
        both = ["beta--search", "beta--only_b", "alpha--search", "alpha--only_a"]
        assert await tools_of(served, "/mcp/both") == both
        assert await tools_of(served, "/t/acme/mcp/both/", "legacy") == both
        assert await server_of(served, "/mcp/both", "alpha--only_a") == "alpha"
        assert (await served.modern("/mcp/one").call("alpha__only_a")).error["code"] == -32602
        headers = served.modern().headers("tools/list", None)
        assert (await served.http.post("/mcp", headers=headers, json={})).status_code == 404
        assert (await served.modern("alpha").request("tools/list")).status == 200


async def test_a_session_belongs_to_the_route_it_was_opened_on() -> None:
    async with serving(policy({"alpha": ALPHA}, one={}, two={})) as served:
        client = await served.legacy("/mcp/one")
        assert (await client.request("tools/list")).status == 200
        client.path = "/mcp/two"
        assert (await client.request("ping")).status == 404


async def test_a_route_shows_the_capabilities_that_it_names(client_era: str) -> None:
    async with serving(policy({"alpha": ALPHA}, some={"capabilities": ["tools"]}, all={})) as served:
        client = await served.client(client_era, "/mcp/some")
        assert (await client.call("alpha__only_a")).result
        for method, params in (
            ("prompts/list", {}),
            ("resources/read", {"uri": "alpha+mem://a"}),
            ("completion/complete", {"ref": {"type": "ref/prompt", "name": "alpha__p"}, "argument": {}}),
        ):
            assert (await client.request(method, params)).error["code"] == -32601, method
        offered = (await served.modern("/mcp/some").request("server/discover")).result["capabilities"]
        assert list(offered) == ["tools"]
        offered = (await served.modern("/mcp/all").request("server/discover")).result["capabilities"]
        assert set(offered) == {"tools", "prompts", "resources", "completions"}


async def test_without_prefixes_names_and_uris_are_the_servers_own_and_the_first_has_each(
    client_era: str,
) -> None:
    async with serving(policy({"alpha": ALPHA, "beta": BETA}, bare={"naming": "none"})) as served:
        client = await served.client(client_era, "/mcp/bare")
        assert await tools_of(served, "/mcp/bare", client_era) == ["search", "only_a", "only_b"]
        for tool, server in (("search", "alpha"), ("only_a", "alpha"), ("only_b", "beta")):
            assert json.loads((await client.call(tool)).text)["server"] == server
        listed = (await client.request("resources/list")).result["resources"]
        assert [each["uri"] for each in listed] == ["mem://a", "mem://both"]
        for uri, server in (("mem://both", "alpha"), ("mem://b/1", "beta")):
            [content] = (await client.request("resources/read", {"uri": uri})).result["contents"]
            assert content == {"uri": uri, "text": f"{server}:{uri}"}
        got = (await client.request("prompts/get", {"name": "p"})).result
        assert got["messages"][0]["content"]["text"] == "alpha:p"
        ref = {"type": "ref/prompt", "name": "p"}
        completed = await client.request(
            "completion/complete", {"ref": ref, "argument": {"name": "x", "value": ""}}
        )
        assert completed.result["completion"]["values"] == ["alpha:p"]
        assert (await client.call("none")).error["code"] == -32602
        error = (await client.request("resources/read", {"uri": "mem://c"})).error
        assert (error["code"], error["data"]) == (
            -32602 if client_era == "modern" else -32002,
            {"uri": "mem://c"},
        )


async def test_a_tenant_that_may_not_use_the_first_servers_tool_has_the_seconds() -> None:
    tenants = {"acme": tenant_entry("acme", deny=["alpha/search"])}
    routes = {"/mcp": {"naming": "none"}}
    async with serving(make_policy({"alpha": ALPHA, "beta": BETA}, tenants, routes=routes)) as served:
        assert sorted(await tools_of(served, "/mcp")) == ["only_a", "only_b", "search"]
        assert await server_of(served, "/mcp", "search") == "beta"


async def test_a_call_goes_to_the_first_healthy_server_that_has_the_tool() -> None:
    servers = {
        "never": shapes_server(tools=["whoami"], silent=["tools/list"], settings={"restart": once(), "timeouts": {"start": "300ms"}}),
        "one": fixture_server("--name", "one", restart=once()),
        "two": fixture_server("--name", "two"),
    }  # fmt: skip
    async with serving(policy(servers, bare={"naming": "none", "prefer": "healthy"})) as served:
        assert await named(served, "whoami") == "one"
        await make_fail(served, "one")
        assert await named(served, "whoami") == "two"


async def test_a_server_that_was_up_keeps_its_names_where_servers_are_not_interchangeable() -> None:
    servers = {
        "one": fixture_server("--name", "one", restart=once()),
        "two": shapes_server(tools=["whoami", "two"]),
    }
    async with serving(policy(servers, bare={"naming": "none"})) as served:
        assert await named(served, "whoami") == "one"
        await make_fail(served, "one")
        answer = await served.modern("/mcp/bare").call("whoami")
        assert answer.error["data"]["reason"] == "worker-unavailable"
        assert await server_of(served, "/mcp/bare", "two") == "shapes"


async def test_a_tool_that_a_server_gets_later_is_found_and_one_that_it_loses_is_not(worker_era: str) -> None:
    servers = {"one": shapes_server(tools=["a"]), "fix": fixture_server("--era", worker_era)}
    async with serving(policy(servers, bare={"naming": "none"})) as served:
        client = served.modern("/mcp/bare")
        assert (await client.call("later")).error["code"] == -32602
        await client.call("toggle_tool", name="later")
        assert (await client.call("later")).text == "extra later"
        await client.call("toggle_tool", name="later")

        async def is_gone() -> bool:
            answer = await client.call("later")
            return "error" in answer.final and "unknown tool" in answer.error["message"]

        with anyio.fail_after(SECONDS):
            while not await is_gone():
                await anyio.sleep(0.02)


async def test_a_route_may_want_all_of_its_servers_or_nothing(client_era: str) -> None:
    servers = {
        "alpha": ALPHA,
        "gone": shapes_server(silent=["tools/list"], tools=[], settings={"restart": once(), "timeouts": {"start": "300ms"}}),
    }  # fmt: skip
    async with serving(policy(servers, skip={}, fail={"onServerDown": "fail"})) as served:
        skipping = await served.client(client_era, "/mcp/skip")
        assert len((await skipping.request("tools/list")).result["tools"]) == 2
        answer = await served.modern("/mcp/fail").request("tools/list")
        assert (answer.status, answer.error["data"]["reason"]) == (200, "worker-unavailable")
        missing = 'mcphost_list_parts_missing_total{server="gone",tenant="acme"}'
        assert missing in served.runtime.metrics.render().decode()
