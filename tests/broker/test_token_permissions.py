"""Tokens of one tenant that may different things: the same answer everywhere, and nothing of one is another's."""

import hashlib
from typing import Any

import pytest

from harness import MODERN_META, fixture_server, make_policy, serving, shapes_server, tenant_entry, token_of
from listeners import hear, listen

pytestmark = pytest.mark.kernel

FIRST, SECOND = "fixture://text/1", "fixture://text/2"


def token(name: str, **patterns: list[str]) -> dict[str, Any]:
    """A token that a client of the harness sends when it is told that its tenant is `name`."""
    return {"id": name, "sha256": hashlib.sha256(token_of(name).encode()).hexdigest(), **patterns}


def policy(*tokens: dict[str, Any], era: str = "dual") -> dict[str, Any]:
    entry = tenant_entry("acme", deny=["fix/whoami"])
    entry["tokens"] += tokens
    return make_policy({name: fixture_server("--era", era) for name in ("fix", "other")}, {"acme": entry})


async def names(client: Any, method: str, member: str, key: str) -> set[str]:
    listed: set[str] = set()
    params: dict[str, Any] = {}
    while True:
        result = (await client.request(method, params)).result
        listed |= {item[key] for item in result[member]}
        if "nextCursor" not in result:
            return listed
        params = {"cursor": result["nextCursor"]}


async def test_a_token_sees_and_uses_what_its_own_patterns_leave(client_era: str) -> None:
    """One that is wider than its tenant widens nothing; one without patterns may all that the tenant may."""
    some = token("some", allow=["fix/e*", "fix/whoami", "fix/greet", f"fix/{FIRST}"], deny=["fix/error"])
    async with serving(policy(some, token("rest", deny=["fix/*"]), token("none", allow=[]))) as served:
        single = await served.client(client_era, "fix", tenant="some")
        assert await names(single, "tools/list", "tools", "name") == {"echo", "greet"}
        assert await names(single, "prompts/list", "prompts", "name") == {"greet"}
        assert await names(single, "resources/list", "resources", "uri") == {FIRST}
        assert (await single.call("echo", text="a")).text == "a"
        assert (await single.request("resources/read", {"uri": FIRST})).result["contents"]
        refused = [
            await single.call("error", code=1, message="x"),
            await single.call("whoami"),
            await single.call("no_such_tool"),
            await single.request("resources/read", {"uri": SECOND}),
            await single.request("prompts/get", {"name": "simple"}),
            await single.request(
                "completion/complete",
                {"ref": {"type": "ref/prompt", "name": "simple"}, "argument": {"name": "a", "value": ""}},
            ),
        ]
        for answer in refused:
            assert (answer.status, answer.error["data"]["reason"]) == (403, "forbidden")
        many = await served.client(client_era, tenant="some")
        assert await names(many, "tools/list", "tools", "name") == {"fix__echo", "fix__greet"}
        assert (await many.call("fix__sleep", seconds=0)).status == 403
        assert (await many.call("other__echo", text="a")).error["code"] == -32602

        rest = await served.client(client_era, tenant="rest")
        assert all(name.startswith("other__") for name in await names(rest, "tools/list", "tools", "name"))
        none = await served.client(client_era, tenant="none")
        assert await names(none, "tools/list", "tools", "name") == set()
        whole = await served.client(client_era)
        assert {"fix__error", "other__echo"} <= await names(whole, "tools/list", "tools", "name")
        assert "fix__whoami" not in await names(whole, "tools/list", "tools", "name")


async def test_a_server_that_a_token_may_use_nothing_of_does_not_exist_for_it() -> None:
    async with serving(policy(token("rest", deny=["fix/*"]), token("none", allow=[]))) as served:
        for name, path, status in [
            ("rest", "/servers/fix/mcp", 404),
            ("rest", "/t/acme/servers/fix/mcp", 404),
            ("rest", "/servers/other/mcp", 200),
            ("none", "/servers/other/mcp", 404),
            ("acme", "/servers/fix/mcp", 200),
        ]:
            client = served.modern(path, tenant=name)
            body = client.body("tools/list", {}, {})
            answer = await served.http.post(path, json=body, headers=client.headers("tools/list", None))
            assert answer.status_code == status, (name, path)
        offered = (await served.modern(tenant="none").request("server/discover")).result["capabilities"]
        assert offered == {}


@pytest.mark.parametrize("worker_era", ["legacy", "modern"])
async def test_a_token_is_told_only_of_the_resources_that_it_may_see(worker_era: str) -> None:
    """Of the same worker of the same tenant, in both eras."""
    some = token("some", deny=[f"fix/{SECOND}"])
    async with serving(policy(some, era=worker_era)) as served:
        both = {"resourceSubscriptions": [FIRST, SECOND]}
        session = await served.legacy("fix", tenant="some")
        assert (await session.request("resources/subscribe", {"uri": FIRST})).result == {}
        assert "error" in (await session.request("resources/subscribe", {"uri": SECOND})).final
        async with (
            listen(served.modern("fix"), both) as whole,
            listen(served.modern("fix", tenant="some"), both) as ear,
            hear(session) as heard,
        ):
            assert ear.heard[0]["params"]["notifications"] == {"resourceSubscriptions": [FIRST]}
            await served.modern("fix").call("announce", uris=[SECOND, FIRST])
            await whole.wait_told(FIRST, SECOND)
            await ear.wait_told(FIRST)
            await heard.wait_told(FIRST)
        assert (ear.told, heard.told) == ([FIRST], [FIRST])


async def test_sessions_and_cursors_of_one_token_are_nothing_to_another_of_its_tenant() -> None:
    async with serving(policy(token("ci"), token("app"))) as served:
        mine = await served.legacy("fix", tenant="ci")
        theirs = await served.legacy("fix", tenant="app")
        cursor = (await mine.request("resources/list")).result["nextCursor"]
        assert (await theirs.request("resources/list", {"cursor": cursor})).error["code"] == -32602
        assert (await mine.request("resources/list", {"cursor": cursor})).result["resources"]
        mine.session, theirs.session = theirs.session, mine.session
        assert {(await each.request("ping")).status for each in (mine, theirs)} == {404}


async def test_tasks_and_parked_calls_of_one_token_are_nothing_to_another_of_its_tenant() -> None:
    meta = {"io.modelcontextprotocol/clientCapabilities": {
        "elicitation": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}}}  # fmt: skip
    async with serving(policy(token("ci"), token("app"))) as served:
        mine, theirs = served.modern("fix", tenant="ci"), served.modern("fix", tenant="app")
        call = {"name": "confirm_delete", "arguments": {"filename": "a"}}
        task = (await mine.request("tools/call", call, **meta)).result["taskId"]
        assert (await theirs.request("tasks/get", {"taskId": task}, **meta)).error["code"] == -32602
        assert (await mine.request("tasks/get", {"taskId": task}, **meta)).result["taskId"] == task
        asking = {"name": "ask", "arguments": {"message": "well?"}}
        asked = (await mine.request("tools/call", asking, **meta)).result
        retry = {
            **asking,
            "requestState": asked["requestState"],
            "inputResponses": {key: {"action": "decline"} for key in asked["inputRequests"]},
        }
        assert (await theirs.request("tools/call", retry, **meta)).error["code"] == -32602
        assert (await mine.request("tools/call", retry, **meta)).result["resultType"] == "complete"


async def test_the_short_form_of_a_name_that_is_denied_is_told_what_one_of_no_tool_is() -> None:
    """It says which name it stands for only to who may see that."""
    entry = tenant_entry("acme")
    entry["tokens"].append(token("some", deny=["s/x*"]))
    async with serving(make_policy({"s": shapes_server(tools=["x" * 70])}, {"acme": entry})) as served:
        whole, some = served.modern(), served.modern(tenant="some")
        (short,) = await names(whole, "tools/list", "tools", "name")
        assert (await whole.call(short)).result
        denied, unknown = await some.call(short), await some.call(f"{short[:-12]}000000000000")
        assert denied.status == unknown.status
        assert denied.error["code"] == unknown.error["code"] == -32602
        assert denied.error["message"].replace(short, "") == unknown.error["message"].replace(
            f"{short[:-12]}000000000000", ""
        )


WELL_KNOWN = [
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-protected-resource/mcp",
    "/.well-known/oauth-authorization-server/t/acme/mcp",
    "/.well-known/openid-configuration",
    "/t/acme/.well-known/oauth-protected-resource",
    "/t/acme/.well-known/oauth-protected-resource/mcp",
    "/t/acme/mcp/.well-known/openid-configuration",
    "/mcp/.well-known/oauth-authorization-server",
    "/servers/fix/mcp/.well-known/oauth-protected-resource",
    "/.well-known",
    "/.well-known/mcp",
]


async def test_in_token_mode_no_discovery_answers_anything_but_not_found() -> None:
    """Clients that find anything there drop the token they were configured with. With a token, without, by any method."""
    async with serving(policy(token("ci"))) as served:
        for path in WELL_KNOWN:
            for method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE"):
                for headers in ({}, {"Authorization": f"Bearer {token_of('ci')}"}):
                    answer = await served.http.request(
                        method,
                        path,
                        headers={"Content-Type": "application/json", **headers},
                        json=MODERN_META,
                    )
                    assert answer.status_code == 404, (method, path)
                    assert "www-authenticate" not in answer.headers
