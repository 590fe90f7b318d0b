"""Legacy sessions that are told of changes: of lists unasked, of resources they subscribed to, and only while they last."""

import anyio
import pytest

from harness import (
    SECONDS,
    LegacyClient,
    fixture_server,
    make_policy,
    serving,
    shapes_server,
    tenant_entry,
    until,
)
from listeners import hear, listen
from mcphost.broker import watching

pytestmark = pytest.mark.kernel

FIRST, SECOND = "fixture://text/1", "fixture://text/2"


@pytest.fixture(params=["legacy", "modern"])
def worker_era(request: pytest.FixtureRequest) -> str:
    return request.param


async def subscribe(client: LegacyClient, *uris: str) -> None:
    for uri in uris:
        assert (await client.request("resources/subscribe", {"uri": uri})).result == {}


async def subscribed(client: LegacyClient) -> list[str]:
    """What the server is subscribed to, by its own account."""
    asked = (await client.call("listeners")).result["structuredContent"]
    of_listens = [uri for each in asked["listening"] for uri in each.get("resourceSubscriptions", ())]
    return sorted([*asked["subscribed"], *of_listens])


async def test_a_session_is_told_of_lists_unasked_and_of_resources_it_subscribed_to(worker_era: str) -> None:
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        client = await served.legacy("fix")
        await subscribe(client, FIRST)
        async with hear(client) as ear:
            await client.call("announce", lists=["tools", "prompts"], uris=[FIRST, SECOND])
            await ear.wait_told("tools", "prompts", FIRST)
        assert sorted(ear.told) == [FIRST, "prompts", "tools"]
        assert all("_meta" not in each["params"] and "id" not in each for each in ear.heard)


async def test_what_happened_while_no_stream_was_open_is_told_when_one_is() -> None:
    async with serving(make_policy({"fix": fixture_server("--era", "modern")})) as served:
        client = await served.legacy("fix")
        await subscribe(client, FIRST)
        await client.call("announce", uris=[FIRST], lists=["tools"], times=5)
        async with hear(client) as ear:
            await ear.wait_told("tools", FIRST)


async def test_after_unsubscribing_a_session_is_told_no_more(worker_era: str) -> None:
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        client, other = await served.legacy("fix"), await served.legacy("fix")
        await subscribe(client, FIRST, SECOND)
        await subscribe(other, FIRST)
        assert (await client.request("resources/unsubscribe", {"uri": FIRST})).result == {}
        assert await subscribed(client) == [FIRST, SECOND]
        async with hear(client) as ear, hear(other) as other_ear:
            await client.call("announce", uris=[FIRST, SECOND])
            await other_ear.wait_told(FIRST)
            await ear.wait_told(SECOND)
        assert (ear.told, other_ear.told) == ([SECOND], [FIRST])

        assert (await other.request("resources/unsubscribe", {"uri": FIRST})).result == {}
        assert await subscribed(client) == [SECOND]
        assert (await other.request("resources/unsubscribe", {"uri": FIRST})).result == {}


async def test_the_end_of_a_session_ends_its_subscriptions() -> None:
    async with serving(make_policy({"fix": fixture_server("--era", "legacy")})) as served:
        client, other = await served.legacy("fix"), await served.legacy("fix")
        await subscribe(client, FIRST)
        assert await subscribed(other) == [FIRST]
        assert (await client.http.delete(client.path, headers=client.headers("", None))).status_code == 200
        with anyio.fail_after(SECONDS):
            while await subscribed(other):
                pass


async def test_a_resource_that_a_tenant_may_not_see_is_refused_like_one_that_does_not_exist() -> None:
    tenants = {"acme": tenant_entry("acme", deny=["fix/fixture://text/2"])}
    async with serving(make_policy({"fix": fixture_server()}, tenants)) as served:
        single, many = await served.legacy("fix"), await served.legacy()
        for client, uri in (
            (single, SECOND),
            (many, f"fix+{SECOND}"),
            (many, f"none+{FIRST}"),
            (many, FIRST),
        ):
            answer = await client.request("resources/subscribe", {"uri": uri})
            assert (answer.status, answer.error["code"], answer.error["data"]) == (200, -32002, {"uri": uri})
        answer = await single.request("resources/subscribe", {"uri": "foreign:1"})
        assert (answer.error["code"], answer.error["data"]) == (-32002, {"uri": "foreign:1"})
        for params in ({}, {"uri": 1}, {"uri": "x" * 5000}):
            answer = await single.request("resources/subscribe", params)
            assert answer.error["code"] == -32602
        assert await subscribed(single) == []


async def test_a_server_without_subscriptions_has_no_such_method_and_does_not_declare_it() -> None:
    server = {"command": "mcphost-server-clock"}
    async with serving(make_policy({"clock": server})) as served:
        client = await served.legacy("clock")
        assert "subscribe" not in (await client.initialize()).result["capabilities"].get("resources", {})
        answer = await client.request("resources/subscribe", {"uri": FIRST})
        assert answer.error["code"] == -32601


async def test_subscriptions_of_a_session_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MAX_SUBSCRIBED", 2)
    async with serving(make_policy({"fix": fixture_server()})) as served:
        client, other = await served.legacy("fix"), await served.legacy("fix")
        await subscribe(client, FIRST, SECOND)
        answer = await client.request("resources/subscribe", {"uri": "fixture://text/3"})
        assert answer.error["data"]["reason"] == "overloaded"
        await subscribe(other, FIRST)
        await client.request("resources/unsubscribe", {"uri": FIRST})
        await subscribe(client, "fixture://text/3")


async def test_a_subscription_that_its_server_does_not_answer_ends_at_the_deadline_and_is_none() -> None:
    server = shapes_server(
        era="legacy",
        resources=[FIRST],
        capabilities={"resources": {"subscribe": True}},
        silent=["resources/subscribe"],
        settings={"timeouts": {"call": "500ms"}},
    )
    async with serving(make_policy({"fix": server})) as served:
        client = await served.legacy("fix")
        answer = await client.request("resources/subscribe", {"uri": FIRST})
        assert answer.error["data"]["reason"] == "timeout"
        assert (await client.request("resources/read", {"uri": FIRST})).status == 200
        assert served.worker_set("fix").hub._union().uris == frozenset()


async def test_on_the_endpoint_of_many_servers_resources_carry_their_servers_name() -> None:
    servers = {"fix": fixture_server("--era", "legacy"), "other": fixture_server("--era", "legacy")}
    async with serving(make_policy(servers)) as served:
        client = await served.legacy()
        await subscribe(client, f"fix+{FIRST}")
        async with hear(client) as ear:
            await served.modern("other").call("announce", uris=[FIRST], lists=["prompts"])
            await served.modern("fix").call("announce", uris=[FIRST])
            await ear.wait_told(f"fix+{FIRST}", "prompts")
        assert sorted(ear.told) == [f"fix+{FIRST}", "prompts"]


async def test_a_restart_is_told_to_every_session_and_subscriptions_go_on() -> None:
    async with serving(make_policy({"fix": fixture_server("--era", "modern")})) as served:
        client = await served.legacy("fix")
        await subscribe(client, FIRST)
        async with hear(client) as ear:
            await client.call("crash")
            await ear.wait_told("tools", "prompts", "resources", FIRST)
            await client.call("touch_resource", uri=FIRST)
            await until(lambda: ear.told.count(FIRST) == 2, "told after the restart")


async def test_one_change_reaches_clients_of_both_eras_and_no_other_tenant(worker_era: str) -> None:
    tenants = {name: tenant_entry(name) for name in ("acme", "other")}
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)}, tenants)) as served:
        legacy, stranger = await served.legacy("fix"), await served.legacy("fix", tenant="other")
        await subscribe(legacy, FIRST)
        await subscribe(stranger, FIRST)
        async with (
            hear(legacy) as ear,
            hear(stranger) as strangers_ear,
            listen(served.modern("fix"), {"resourceSubscriptions": [FIRST]}) as modern_ear,
        ):
            await legacy.call("announce", uris=[FIRST], lists=["tools"])
            await ear.wait_told(FIRST, "tools")
            await modern_ear.wait_told(FIRST)
            await stranger.call("announce", lists=["prompts"])
            await strangers_ear.wait_told("prompts")
        assert modern_ear.told == [FIRST]
        assert strangers_ear.told == ["prompts"]


async def test_a_change_in_a_process_that_a_call_has_to_itself_is_told_too() -> None:
    """A legacy server that may ask its client works in a process of that client's; lists change there as well."""
    async with serving(make_policy({"fix": fixture_server("--era", "legacy")})) as served:
        client, other = LegacyClient(served.http, "/servers/fix/mcp", "acme"), await served.legacy("fix")
        await client.initialize(elicitation={})
        async with hear(client) as ear, hear(other) as others_ear:
            await client.call("toggle_tool", name="more")
            await ear.wait_told("tools")
            await others_ear.wait_told("tools")


async def test_a_session_whose_worker_idled_out_is_told_of_the_next_one() -> None:
    server = fixture_server("--era", "modern", scope="session")
    async with serving(make_policy({"fix": server})) as served:
        client, pool = await served.legacy("fix"), served.runtime.pool
        (key,) = pool._ends
        pool._forget(key)  # as happens when nobody has used it for long
        async with hear(client) as ear:
            await client.call("toggle_tool", name="more")
            await ear.wait_told("tools")
