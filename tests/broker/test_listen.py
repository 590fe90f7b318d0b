"""Modern clients that listen, before servers of every era: acknowledged first, told under their own id, and only they."""

import anyio
import pytest

from harness import SECONDS, fixture_server, make_policy, serving, tenant_entry, until
from listeners import SUBSCRIPTION, Ear, listen
from mcphost.broker import listening as broker_listening
from mcphost.broker import patience

pytestmark = pytest.mark.kernel

FIRST, SECOND = "fixture://text/1", "fixture://text/2"
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"


@pytest.fixture(params=["legacy", "modern"])
def worker_era(request: pytest.FixtureRequest) -> str:
    return request.param


def granted(ear: Ear) -> dict:
    assert ear.heard[0]["method"] == ACKNOWLEDGED, ear.heard
    return ear.heard[0]["params"]["notifications"]


async def test_a_stream_is_acknowledged_and_all_on_it_carries_the_clients_id(worker_era: str) -> None:
    listen_id = 7 if worker_era == "legacy" else "seven"
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        client = served.modern("fix")
        wanted = {"toolsListChanged": True, "resourceSubscriptions": [FIRST]}
        async with listen(client, wanted, listen_id) as ear:
            assert granted(ear) == wanted
            await client.call("announce", lists=["tools", "prompts", "resources"], uris=[FIRST, SECOND])
            await ear.wait_told("tools", FIRST)
            served.runtime.drain()
            with anyio.fail_after(SECONDS):
                await ear.ended.wait()
        assert sorted(ear.told) == [FIRST, "tools"]
        *notifications, result = ear.heard
        assert {each["params"]["_meta"][SUBSCRIPTION] for each in notifications} == {listen_id}
        assert (result["id"], result["result"]["resultType"]) == (listen_id, "complete")
        assert result["result"]["_meta"][SUBSCRIPTION] == listen_id


async def test_only_what_was_asked_for_and_is_served_is_acknowledged() -> None:
    """The server of this test has no tools and so none that change; an unknown kind is nobody's."""
    async with serving(make_policy({"fix": fixture_server("--era", "legacy", "--no-tools")})) as served:
        wanted = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": False}
        async with listen(served.modern("fix"), {**wanted, "somethingElse": True}) as ear:
            assert granted(ear) == {"promptsListChanged": True}


async def test_a_resource_that_a_tenant_may_not_see_is_not_acknowledged_and_not_told_of(
    worker_era: str,
) -> None:
    allowed = tenant_entry("acme", deny=["fix/fixture://text/2*"])
    server = fixture_server("--era", worker_era, scope="shared")
    policy = make_policy({"fix": server}, {"acme": allowed, "other": tenant_entry("other")})
    async with serving(policy) as served:
        both = {"resourceSubscriptions": [FIRST, SECOND]}
        async with (
            listen(served.modern("fix"), both) as ear,
            listen(served.modern("fix", tenant="other"), both) as other,
        ):
            assert granted(ear) == {"resourceSubscriptions": [FIRST]}
            assert granted(other) == both
            await served.modern("fix").call("announce", uris=[SECOND, FIRST])
            await other.wait_told(FIRST, SECOND)
            await ear.wait_told(FIRST)
        assert ear.told == [FIRST]


async def test_nothing_crosses_from_one_tenants_server_to_another() -> None:
    tenants = {name: tenant_entry(name) for name in ("acme", "other")}
    async with serving(make_policy({"fix": fixture_server("--era", "modern")}, tenants)) as served:
        wanted = {"toolsListChanged": True, "resourceSubscriptions": [FIRST]}
        async with (
            listen(served.modern("fix"), wanted) as ear,
            listen(served.modern("fix", tenant="other"), wanted) as other,
        ):
            await served.modern("fix").call("announce", lists=["tools"], uris=[FIRST])
            await ear.wait_told("tools", FIRST)
            await served.modern("fix", tenant="other").call("touch_resource", uri=FIRST)
            await other.wait_told(FIRST)
        assert other.told == [FIRST]


async def test_many_streams_share_one_listen_and_each_is_told_what_it_asked_for(worker_era: str) -> None:
    uris = [f"fixture://many/{number}" for number in range(20)]
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        client = served.modern("fix")
        ears: dict[str, Ear] = {}
        async with anyio.create_task_group() as tasks:

            async def one(uri: str) -> None:
                async with listen(client, {"resourceSubscriptions": [uri]}, uri) as ears[uri]:
                    await anyio.sleep_forever()

            for uri in uris:
                tasks.start_soon(one, uri)
            await until(lambda: len(ears) == 20 and all(each.heard for each in ears.values()), "all listen")
            asked = (await client.call("listeners")).result["structuredContent"]
            if worker_era == "modern":
                (stream,) = asked["listening"]
                assert sorted(stream["resourceSubscriptions"]) == sorted(uris)
            else:
                assert asked["subscribed"] == sorted(uris)
            await client.call("announce", uris=uris)
            await until(lambda: all(each.told for each in ears.values()), "all were told")
            tasks.cancel_scope.cancel()
        assert {uri: ear.told for uri, ear in ears.items()} == {uri: [uri] for uri in uris}


async def test_a_closed_stream_is_nobodys_wish_any_more() -> None:
    async with serving(make_policy({"fix": fixture_server("--era", "modern")})) as served:
        client = served.modern("fix")

        async def subscribed() -> list[str]:
            asked = (await client.call("listeners")).result["structuredContent"]
            of_listens = [uri for each in asked["listening"] for uri in each.get("resourceSubscriptions", ())]
            return [*asked["subscribed"], *of_listens]

        async with listen(client, {"resourceSubscriptions": [FIRST]}):
            assert await subscribed() == [FIRST]
        with anyio.fail_after(SECONDS):
            while await subscribed():
                pass


async def test_many_servers_are_one_stream_with_their_names_in_front() -> None:
    servers = {"old": fixture_server("--era", "legacy"), "new": fixture_server("--era", "modern")}
    async with serving(make_policy(servers)) as served:
        wanted = [f"old+{FIRST}", f"NEW+{FIRST}", f"none+{FIRST}", FIRST]
        async with listen(
            served.modern(), {"toolsListChanged": True, "resourceSubscriptions": wanted}
        ) as ear:
            assert granted(ear)["resourceSubscriptions"] == [f"NEW+{FIRST}", f"old+{FIRST}"]
            await served.modern("old").call("announce", lists=["tools"], uris=[FIRST])
            await ear.wait_told("tools", f"old+{FIRST}")
            await served.modern("new").call("announce", uris=[FIRST])
            await ear.wait_told(f"NEW+{FIRST}")
        assert sorted(ear.told) == sorted(["tools", f"old+{FIRST}", f"NEW+{FIRST}"])


async def test_one_failing_server_of_many_does_not_keep_the_others_from_being_listened_to() -> None:
    restart = {"policy": "never"}
    servers = {"fix": fixture_server(), "broken": fixture_server("--fail-start", restart=restart)}
    async with serving(make_policy(servers)) as served:
        wanted = {"toolsListChanged": True, "resourceSubscriptions": [f"fix+{FIRST}", f"broken+{FIRST}"]}
        async with listen(served.modern(), wanted) as ear:
            assert granted(ear) == {"toolsListChanged": True, "resourceSubscriptions": [f"fix+{FIRST}"]}
            await served.modern("fix").call("toggle_tool", name="more")
            await ear.wait_told("tools")


async def test_a_server_that_comes_late_is_told_of_as_a_change_of_the_lists(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "PART_SECONDS", 0.3)
    servers = {"fix": fixture_server(start="eager"), "late": fixture_server("--delay-start", "1")}
    async with serving(make_policy(servers)) as served:
        await until(lambda: served.worker_set("fix").state == "ready", "one of two is there")
        wanted = {"toolsListChanged": True, "resourceSubscriptions": [f"fix+{FIRST}", f"late+{FIRST}"]}
        async with listen(served.modern(), wanted) as ear:
            assert granted(ear) == {"toolsListChanged": True, "resourceSubscriptions": [f"fix+{FIRST}"]}
            assert ear.told == []
            await ear.wait_told("tools")
            assert served.worker_set("late").state == "ready"


async def test_a_server_that_is_gone_for_good_ends_the_stream_in_order() -> None:
    restart = {"policy": "never"}
    async with serving(make_policy({"fix": fixture_server(restart=restart)})) as served:
        async with listen(served.modern("fix"), {"toolsListChanged": True}) as ear:
            await served.modern("fix").call("crash")
            with anyio.fail_after(SECONDS):
                await ear.ended.wait()
        assert ear.heard[-1]["result"]["resultType"] == "complete"
        async with listen(served.modern("fix"), {"toolsListChanged": True}) as refused:
            assert refused.heard[0]["error"]["data"]["reason"] == "worker-unavailable"


async def test_a_restart_is_told_to_every_stream_as_a_change_of_all_it_listens_to() -> None:
    async with serving(make_policy({"fix": fixture_server("--era", "legacy")})) as served:
        wanted = {"promptsListChanged": True, "resourceSubscriptions": [FIRST]}
        async with listen(served.modern("fix"), wanted) as ear:
            await served.modern("fix").call("crash")
            await ear.wait_told("prompts", FIRST)
            await served.modern("fix").call("touch_resource", uri=FIRST)
            await until(lambda: ear.told.count(FIRST) == 2, "told after the restart")
        assert "tools" not in ear.told


@pytest.mark.parametrize(
    "notifications", [None, [], {"toolsListChanged": "yes"}, {"resourceSubscriptions": [1]}]
)
async def test_a_filter_that_is_none_is_refused_with_its_status(notifications: object) -> None:
    async with serving(make_policy({"fix": fixture_server()})) as served:
        answer = await served.modern("fix").request("subscriptions/listen", {"notifications": notifications})
        assert (answer.status, answer.error["code"]) == (400, -32602)


async def test_streams_of_a_token_are_bounded_and_take_no_place_among_its_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broker_listening, "MAX_STREAMS_PER_PRINCIPAL", 2)
    tenants = {"acme": tenant_entry("acme", limits={"concurrency": 1}), "other": tenant_entry("other")}
    async with serving(make_policy({"fix": fixture_server(scope="shared")}, tenants)) as served:
        client, wanted = served.modern("fix"), {"toolsListChanged": True}
        async with listen(client, wanted) as one:
            async with listen(client, wanted) as two, listen(client, wanted) as third:
                assert granted(one) == granted(two) == wanted
                assert third.status == 503
                assert third.heard[0]["error"]["data"]["reason"] == "overloaded"
                async with listen(served.modern("fix", tenant="other"), wanted) as other:
                    assert granted(other) == wanted
                assert (await client.call("echo", text="x")).text == "x"
            await until(lambda: "1 streams" in repr(served.runtime._broker._listening), "one has ended")
            async with listen(client, wanted) as again:
                assert granted(again) == wanted


async def test_legacy_clients_do_not_listen_and_modern_ones_do_not_subscribe() -> None:
    async with serving(make_policy({"fix": fixture_server()})) as served:
        legacy = await served.legacy("fix")
        answer = await legacy.request("subscriptions/listen", {"notifications": {}})
        assert (answer.status, answer.error["code"]) == (200, -32601)
        for method in ("resources/subscribe", "resources/unsubscribe"):
            answer = await served.modern("fix").request(method, {"uri": FIRST})
            assert (answer.status, answer.error["code"]) == (404, -32601)
