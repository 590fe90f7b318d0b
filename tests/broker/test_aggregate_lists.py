"""Lists of many servers: pages, names that clients take, URIs wherever they stand, and how long each may be kept."""

import json
from typing import Any

import pytest

from answering import asked_client
from harness import (
    ModernClient,
    Served,
    make_policy,
    serving,
    shapes_server,
    tenant_entry,
    until,
)
from mcphost.decisions.paging import PAGE_ITEMS

pytestmark = pytest.mark.kernel


async def pages(client: ModernClient, method: str) -> list[dict[str, Any]]:
    found = [(await client.request(method)).result]
    while "nextCursor" in found[-1]:
        found.append((await client.request(method, {"cursor": found[-1]["nextCursor"]})).result)
    return found


def names(listed: list[dict[str, Any]]) -> list[str]:
    return [tool["name"] for page in listed for tool in page["tools"]]


async def test_pages_together_are_the_lists_of_all_servers_in_the_policys_order(client_era: str) -> None:
    many = [f"t{number}" for number in range(PAGE_ITEMS + 7)]
    servers = {
        "few": shapes_server(tools=["a", "b", "c"], page=2),
        "many": shapes_server(tools=many, page=400, era="legacy"),
        "none": shapes_server(prompts=["p"]),
    }
    async with serving(make_policy(servers)) as served:
        listed = await pages(await served.client(client_era, "/mcp"), "tools/list")
        assert [len(page["tools"]) for page in listed] == [PAGE_ITEMS, 10]
        assert names(listed) == [f"few__{name}" for name in "abc"] + [f"many__{name}" for name in many]


async def test_a_cursor_serves_nobody_else_and_no_other_list() -> None:
    tenants = {"acme": tenant_entry("acme"), "globex": tenant_entry("globex")}
    many = [f"t{number}" for number in range(PAGE_ITEMS + 1)]
    servers = {"many": shapes_server(tools=many, prompts=many, page=600, settings={"scope": "shared"})}
    async with serving(make_policy(servers, tenants)) as served:
        for path in ("/mcp", "many"):
            mine = served.modern(path)
            cursor = (await mine.request("tools/list")).result["nextCursor"]
            other = "many" if path == "/mcp" else "/mcp"
            for client, method, sent in (
                (served.modern(path, "globex"), "tools/list", cursor),
                (served.modern(other), "tools/list", cursor),
                (mine, "prompts/list", cursor),
                (mine, "tools/list", cursor[:-1]),
                (mine, "tools/list", "600"),
                (mine, "tools/list", ""),
                (mine, "tools/list", None),
            ):
                answer = await client.request(method, {"cursor": sent})
                assert (answer.status, answer.error["code"]) == (400, -32602), (path, method, sent)
            assert (await mine.request("tools/list", {"cursor": cursor})).result["tools"]


async def test_a_servers_own_cursor_does_not_outlive_its_process(client_era: str) -> None:
    async with serving(make_policy({"s": shapes_server(tools=["a", "b", "c"], page=1)})) as served:
        client = await served.client(client_era, "s")
        first = (await client.request("tools/list")).result
        second = (await client.request("tools/list", {"cursor": first["nextCursor"]})).result
        assert names([second]) == ["b"]
        workers = served.worker_set("s")
        before = workers.worker
        await before.kill("killed")
        await until(lambda: workers.worker not in {None, before}, "another worker")
        answer = await client.request("tools/list", {"cursor": second["nextCursor"]})
        assert answer.error["code"] == -32602


async def test_a_name_that_clients_would_not_take_is_called_by_its_short_form(client_era: str) -> None:
    odd = ["admin.tools.list", "x" * 70, "größe", "plain"]
    async with serving(make_policy({"s": shapes_server(tools=odd, prompts=odd)})) as served:
        client = await served.client(client_era, "/mcp")
        listed = names(await pages(client, "tools/list"))
        assert all(len(name) <= 64 and name.isascii() for name in listed)
        for name, shown in zip(odd, listed, strict=True):
            answer = await client.call(shown, a=1)
            assert answer.result["structuredContent"]["tool"] == name
            got = (await client.request("prompts/get", {"name": shown})).result
            assert got["messages"][0]["content"]["text"].endswith(f":{name}")
        for unknown in ("s__admin.tools.list", f"s__{odd[1]}", "s__admin-tools-list--000000000000"):
            assert (await client.call(unknown)).error["code"] == -32602


async def test_a_client_that_can_be_asked_is_shown_what_a_legacy_server_has_for_such(client_era: str) -> None:
    servers = {
        name: shapes_server(era="legacy", tools=["plain", "asks"], asking=["asks"]) for name in ("s", "other")
    }
    async with serving(make_policy(servers, routes=BOTH)) as served:
        for path, shown in (("/mcp", 4), ("/mcp/bare", 2), ("s", 2)):
            for declared, count in (({}, shown // 2), ({"elicitation": {}}, shown), ({}, shown // 2)):
                client, meta = await asked_client(served, client_era, path, capabilities=declared)
                listed = (await client.request("tools/list", **meta)).result["tools"]
                assert len(listed) == count, (path, declared)


BOTH = {"/mcp": {}, "/mcp/bare": {"naming": "none"}}
LINK = {"type": "resource_link", "uri": "mem://linked", "name": "l"}
EMBEDDED = {"type": "resource", "resource": {"uri": "ui://board", "text": "x"}}


async def test_a_uri_names_its_server_wherever_it_stands_and_leads_back(client_era: str) -> None:
    app = {"name": "board", "_meta": {"ui": {"resourceUri": "ui://board/main"}}}
    server = shapes_server(
        tools=[app],
        resources=["mem://a", "ui://board/main"],
        resourceTemplates=["mem://t/{x}"],
        capabilities={"completions": {}},
        results={"board": {"content": [LINK, EMBEDDED]}},
    )
    async with serving(
        make_policy({"my_s": server, "other": shapes_server(resources=["mem://a"])})
    ) as served:
        client = await served.client(client_era, "/mcp")
        listed = (await client.request("resources/list")).result["resources"]
        assert [each["uri"] for each in listed] == ["my.s+mem://a", "ui://my.s+board/main", "other+mem://a"]
        [tool] = (await client.request("tools/list")).result["tools"]
        page = tool["_meta"]["ui"]["resourceUri"]
        assert page == "ui://my.s+board/main"
        content = (await client.call("my_s__board")).result["content"]
        assert content[0] == {**LINK, "uri": "my.s+mem://linked"}
        assert content[1]["resource"]["uri"] == "ui://my.s+board"
        [template] = (await client.request("resources/templates/list")).result["resourceTemplates"]
        for uri, own in (
            (page, "ui://board/main"),
            ("MY.S+mem://a", "mem://a"),
            (content[0]["uri"], "mem://linked"),
        ):
            [read] = (await client.request("resources/read", {"uri": uri})).result["contents"]
            assert read["text"].endswith(f":{own}")
        ref = {"type": "ref/resource", "uri": template["uriTemplate"]}
        argument = {"name": "x", "value": ""}
        completed = await client.request("completion/complete", {"ref": ref, "argument": argument})
        assert completed.result["completion"]["values"] == ["shapes:mem://t/{x}"]


async def test_a_server_that_is_slow_or_lists_without_end_delays_and_spoils_nothing(client_era: str) -> None:
    servers = {
        "slow": shapes_server(
            prompts=["p"], silent=["prompts/list"], settings={"timeouts": {"call": "300ms"}}
        ),
        "round": shapes_server(prompts=["p", "q"], page=1, circle=True),
        "good": shapes_server(prompts=["p"]),
    }
    async with serving(make_policy(servers)) as served:
        client = await served.client(client_era, "/mcp")
        listed = (await client.request("prompts/list")).result
        assert [prompt["name"] for prompt in listed["prompts"]] == ["good__p"]
        assert "nextCursor" not in listed
        if client_era == "modern":
            assert listed["ttlMs"] == 0  # it lacks parts, so it is to be asked for again


def hinted(ttl_ms: int, **shape: Any) -> dict[str, Any]:
    return shapes_server(hints={"ttlMs": ttl_ms, "cacheScope": "public"}, **shape)


async def ttl_of(served: Served, path: str, method: str = "tools/list") -> tuple[int, str]:
    result = (await served.modern(path).request(method)).result
    return result["ttlMs"], result["cacheScope"]


async def test_a_list_may_be_kept_as_long_as_its_shortest_lived_part_and_by_nobody_else() -> None:
    servers = {
        "a": hinted(60_000, tools=["t"]),
        "b": hinted(9_000, tools=["t"], page=1),
        "p": hinted(5, prompts=["p"]),
        "old": shapes_server(era="legacy", prompts=["p"]),
    }
    async with serving(make_policy(servers)) as served:
        assert await ttl_of(served, "/mcp") == (9_000, "private")
        assert await ttl_of(served, "a") == (60_000, "private")
        assert await ttl_of(served, "/mcp", "prompts/list") == (0, "private")
        assert await ttl_of(served, "/mcp", "server/discover") == (0, "private")
        legacy = await served.legacy("/mcp")
        assert not {"ttlMs", "cacheScope", "resultType"} & (await legacy.request("tools/list")).result.keys()


async def test_instructions_stand_under_the_names_of_their_servers(client_era: str) -> None:
    servers = {
        "one": shapes_server(tools=["t"], instructions="Be quick."),
        "two": shapes_server(
            tools=["t"], era="legacy", instructions="Be kind.", capabilities={"logging": {}}
        ),
    }
    async with serving(make_policy(servers)) as served:
        client = await served.client(client_era, "/mcp")
        face = await (client.request("server/discover") if client_era == "modern" else client.initialize())  # type: ignore[attr-defined]
        assert face.result["instructions"] == "## one\n\nBe quick.\n\n## two\n\nBe kind."
        assert json.dumps(face.result["capabilities"], sort_keys=True) == '{"logging": {}, "tools": {}}'
