"""What a tenant may not use it does not see, on every list and every call, on both kinds of endpoint."""

import pytest

from harness import fixture_server, make_policy, serving, tenant_entry

pytestmark = pytest.mark.kernel

ALLOW = ["fix/e*", "fix/fixture://text/*", "fix/greet", "open/*"]
DENY = ["fix/error", "open/fixture://binary"]
TENANTS = {"acme": tenant_entry("acme", allow=ALLOW, deny=DENY)}
SERVERS = {name: fixture_server() for name in ("fix", "open", "closed")}


async def names(client, method: str, member: str, key: str) -> set[str]:
    listed: set[str] = set()
    params: dict = {}
    while True:
        result = (await client.request(method, params)).result
        listed |= {item[key] for item in result[member]}
        if "nextCursor" not in result:
            return listed
        params = {"cursor": result["nextCursor"]}


async def test_a_list_shows_exactly_what_may_be_called(client_era: str) -> None:
    async with serving(make_policy(SERVERS, TENANTS)) as served:
        client = await served.client(client_era, "fix")
        assert await names(client, "tools/list", "tools", "name") == {"echo", "greet"}
        assert await names(client, "prompts/list", "prompts", "name") == {"greet"}
        shown = await names(client, "resources/list", "resources", "uri")
        assert shown == {f"fixture://text/{number}" for number in range(1, 6)}
        assert await names(client, "resources/templates/list", "resourceTemplates", "uriTemplate") == set()


async def test_what_is_not_shown_is_forbidden_whether_it_exists_or_not(client_era: str) -> None:
    async with serving(make_policy(SERVERS, TENANTS)) as served:
        client = await served.client(client_era, "fix")
        refused = [
            await client.call("error", code=1, message="x"),
            await client.call("whoami"),
            await client.call("no_such_tool"),
            await client.request("resources/read", {"uri": "fixture://binary"}),
            await client.request("prompts/get", {"name": "simple"}),
            await client.request(
                "completion/complete",
                {"ref": {"type": "ref/resource", "uri": "fixture://greeting/{name}"},
                 "argument": {"name": "name", "value": ""}},
            ),
        ]  # fmt: skip
        for answer in refused:
            assert (answer.status, answer.error["data"]["reason"]) == (403, "forbidden")
        assert (await client.call("echo", text="a")).text == "a"


async def test_the_same_holds_where_many_servers_are_one(client_era: str) -> None:
    async with serving(make_policy(SERVERS, TENANTS)) as served:
        client = await served.client(client_era)
        tools = await names(client, "tools/list", "tools", "name")
        assert {name for name in tools if name.startswith("fix__")} == {"fix__echo", "fix__greet"}
        assert "open__whoami" in tools
        assert not any(name.startswith("closed__") for name in tools)
        shown = await names(client, "resources/list", "resources", "uri")
        assert "open+fixture://text/1" in shown
        assert "open+fixture://binary" not in shown
        assert (await client.call("fix__whoami")).status == 403
        assert (await client.request("resources/read", {"uri": "open+fixture://binary"})).status == 403
        unknown = await client.call("closed__echo", text="a")
        assert unknown.error["code"] == -32602
        assert {each.identity.server for each in served.runtime.pool.sets()} == {"fix", "open"}
