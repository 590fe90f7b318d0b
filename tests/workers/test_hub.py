"""One server asked once for all who listen: nothing lost, nothing twice, and nothing to who did not ask."""

from typing import Any

import anyio
import pytest

from harness import Served, fixture_server, make_policy, serving, shapes_server, until
from mcphost.errors import Overloaded
from mcphost.protocol.listening import ALL_LISTS, NO_INTEREST, Heard, Interest
from mcphost.workers import hub as hub_module
from mcphost.workers import listens
from mcphost.workers.subscription import Subscription

pytestmark = pytest.mark.kernel

SECONDS = 20
FIRST, SECOND = "fixture://text/1", "fixture://text/2"


@pytest.fixture(params=["legacy", "modern"])
def worker_era(request: pytest.FixtureRequest) -> str:
    return request.param


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __call__(self, heard: Heard) -> None:
        self.told.append(heard.kind or heard.uris[0])

    async def wait_told(self, *wanted: str) -> None:
        await until(lambda: set(wanted) <= set(self.told), f"told of {wanted}, not only {self.told}")


def uris(*names: str) -> Interest:
    return Interest(uris=frozenset(names))


async def listening(subscription: Subscription) -> Interest:
    with anyio.fail_after(SECONDS):
        return await subscription.settled()


async def asked_of(served: Served) -> dict[str, Any]:
    """What the server is subscribed to, by its own account."""
    return (await served.modern("fix").call("listeners")).result["structuredContent"]


async def test_listeners_share_one_listen_and_each_hears_what_it_wants(worker_era: str) -> None:
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        hub, both, one = served.worker_set("fix").hub, Listener(), Listener()
        granted = await listening(hub.subscribe(Interest(tools=True, uris=frozenset({FIRST, SECOND})), both))
        await listening(hub.subscribe(uris(SECOND), one))

        assert granted == Interest(tools=True, uris=frozenset({FIRST, SECOND}))
        asked = await asked_of(served)
        if worker_era == "modern":
            (stream,) = asked["listening"]
            assert sorted(stream["resourceSubscriptions"]) == [FIRST, SECOND]
        else:
            assert asked["subscribed"] == [FIRST, SECOND]
        await served.modern("fix").call("announce", lists=["tools", "prompts"], uris=[FIRST, SECOND])
        await both.wait_told("tools", FIRST, SECOND)
        await one.wait_told(SECOND)
        assert sorted(both.told) == sorted(["tools", FIRST, SECOND])
        assert one.told == [SECOND]


async def test_what_nobody_wants_any_more_is_not_asked_for(worker_era: str) -> None:
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        hub = served.worker_set("fix").hub
        changing, going = hub.subscribe(uris(FIRST, SECOND), print), hub.subscribe(uris(SECOND), print)
        await listening(going)
        going.close()
        changing.change(uris(FIRST))
        await listening(changing)

        asked = await asked_of(served)
        if worker_era == "modern":
            assert [each["resourceSubscriptions"] for each in asked["listening"]] == [[FIRST]]
        else:
            assert asked["subscribed"] == [FIRST]


async def test_nothing_is_lost_and_nothing_comes_twice_while_interests_change(worker_era: str) -> None:
    """Each change is of a resource of its own, so each is to be heard once, whatever is coming and going meanwhile."""
    steady = [f"fixture://steady/{number}" for number in range(30)]
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        hub, client, listener = served.worker_set("fix").hub, served.modern("fix"), Listener()
        await listening(hub.subscribe(uris(*steady), listener))
        async with anyio.create_task_group() as tasks:

            async def come_and_go() -> None:
                for number in range(10):
                    passing = hub.subscribe(uris(f"fixture://passing/{number}"), print)
                    await listening(passing)
                    passing.close()

            tasks.start_soon(come_and_go)
            for uri in steady:
                assert (await client.call("touch_resource", uri=uri)).status == 200
        await listener.wait_told(*steady)
        assert sorted(listener.told) == sorted(steady)


async def test_a_burst_is_told_once(worker_era: str) -> None:
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        hub, listener = served.worker_set("fix").hub, Listener()
        await listening(hub.subscribe(Interest(tools=True), listener))
        await served.modern("fix").call("announce", lists=["tools"], times=200)
        await served.modern("fix").call("announce", lists=["prompts"], times=1)
        await listener.wait_told("tools")
        with anyio.fail_after(SECONDS):
            await listening(hub.subscribe(uris(FIRST), print))
        assert 1 <= len(listener.told) <= 5  # the burst crosses the pipe in one or a few rounds


async def test_after_a_restart_everybody_listens_on_and_is_told_that_all_may_have_changed(
    worker_era: str,
) -> None:
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        hub, client, listener = served.worker_set("fix").hub, served.modern("fix"), Listener()
        await listening(hub.subscribe(Interest(tools=True, uris=frozenset({FIRST})), listener))
        await client.call("crash")
        await listener.wait_told("tools", FIRST)

        listener.told.clear()
        await client.call("touch_resource", uri=FIRST)
        await listener.wait_told(FIRST)


async def test_tasks_end_with_their_process_and_are_not_taken_for_those_of_the_next() -> None:
    """Ids of tasks are a server's own: the next process may give the same one to somebody else."""
    async with serving(make_policy({"fix": fixture_server("--era", "modern")})) as served:
        hub, listener = served.worker_set("fix").hub, Listener()
        await served.worker_set("fix").ready()
        wanted = Interest(tools=True, tasks=frozenset({"task-1"}))
        subscription = hub.subscribe(wanted, listener)
        assert await listening(subscription) == wanted
        await served.modern("fix").call("crash")
        await listener.wait_told("tools")
        (stream,) = (await asked_of(served))["listening"]
        assert "taskIds" not in stream
        assert subscription.interest == Interest(tools=True)


async def test_tasks_that_are_named_when_their_process_is_gone_are_not_taken_for_those_of_the_next() -> None:
    """Ids and what was granted before may be known to a client that comes while the next process is not there yet."""
    task = Interest(tools=True, tasks=frozenset({"task-1"}))
    async with serving(make_policy({"fix": fixture_server("--era", "modern")})) as served:
        workers = served.worker_set("fix")
        before = workers.hub.subscribe(task, print)
        worker = await workers.ready()
        await worker.kill("killed")
        await until(lambda: not workers.hub.has_worker, "the worker is lost")
        late = workers.hub.subscribe(task, print)
        await listening(late)
        before.change(task)
        await listening(before)

        (stream,) = (await asked_of(served))["listening"]
        assert "taskIds" not in stream
        assert not late.granted.tasks
        assert not before.granted.tasks


async def test_a_listen_that_the_server_ends_is_taken_up_again() -> None:
    async with serving(make_policy({"fix": fixture_server("--era", "modern")})) as served:
        hub, listener = served.worker_set("fix").hub, Listener()
        await listening(hub.subscribe(Interest(tools=True), listener))
        assert (await served.modern("fix").call("stop_listening")).text == "1"
        await listener.wait_told("tools")

        listener.told.clear()
        await served.modern("fix").call("toggle_tool", name="more")
        await listener.wait_told("tools")


async def test_a_listener_that_wakes_has_a_lazy_server_started_and_another_does_not() -> None:
    lazy = {name: fixture_server(start="lazy") for name in ("fix", "other")}
    async with serving(make_policy(lazy)) as served:
        workers, other = served.worker_set("fix"), served.worker_set("other")
        passive = Listener()
        for each in (workers, other):
            each.hub.subscribe(ALL_LISTS, passive, wakes=False)

        granted = await listening(workers.hub.subscribe(Interest(prompts=True), print))
        assert granted == Interest(prompts=True)
        assert (workers.state, other.state) == ("ready", "stopped")
        await passive.wait_told("tools", "prompts", "resources")


async def test_listeners_do_not_keep_a_server_that_fails_restarting_and_are_told_that_it_is_gone() -> None:
    restart = {"max": 1, "window": "60s", "backoff": {"initial": "10ms", "max": "10ms"}}
    async with serving(make_policy({"fix": fixture_server("--fail-start", restart=restart)})) as served:
        workers, gone = served.worker_set("fix"), anyio.Event()
        subscription = workers.hub.subscribe(ALL_LISTS, print)
        subscription.on_gone = gone.set
        with anyio.fail_after(SECONDS):
            await gone.wait()
        assert workers.state == "failed"
        workers.hub.subscribe(ALL_LISTS, print)
        assert (await served.modern("fix").call("echo", text="x")).error["data"][
            "reason"
        ] == "worker-unavailable"
        assert workers.state == "failed"


async def test_what_a_server_refuses_to_watch_keeps_nobody_else_from_being_heard(worker_era: str) -> None:
    """A modern server refuses the whole listen, in which everybody's wishes stand."""
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        hub, listener = served.worker_set("fix").hub, Listener()
        await listening(hub.subscribe(uris(FIRST), listener))
        assert await listening(hub.subscribe(uris("foreign:1"), print)) == NO_INTEREST
        assert await listening(hub.subscribe(uris(SECOND), listener)) == uris(SECOND)
        await served.modern("fix").call("announce", uris=[FIRST, SECOND])
        await listener.wait_told(FIRST, SECOND)

        if worker_era == "modern":  # nor with the next worker, of which all is asked at once
            listener.told.clear()
            await served.modern("fix").call("crash")
            await listener.wait_told(FIRST, SECOND)


async def test_a_server_that_ended_in_order_is_started_again_for_who_listens_and_for_nobody_else() -> None:
    servers = {name: fixture_server() for name in ("fix", "other")}
    async with serving(make_policy(servers)) as served:
        listener = Listener()
        await listening(served.worker_set("fix").hub.subscribe(Interest(tools=True), listener))
        for name in servers:
            await served.modern(name).call("crash", code=0, when="after")
        await listener.wait_told("tools")
        assert served.worker_set("fix").state == "ready"
        await until(lambda: served.worker_set("other").state == "stopped", "the other rests")


async def test_resources_are_bounded_for_each_tenant_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "MAX_URIS", 2)
    async with serving(make_policy({"fix": fixture_server(start="lazy")})) as served:
        hub = served.worker_set("fix").hub
        subscription = hub.subscribe(uris("a", "b"), print)
        with pytest.raises(Overloaded):
            hub.subscribe(uris("c"), print)
        with pytest.raises(Overloaded):
            subscription.change(uris("a", "b", "c"))
        assert subscription.interest == uris("a", "b")
        hub.subscribe(uris("c", "d"), print, party="another")
        subscription.change(NO_INTEREST)
        hub.subscribe(uris("c"), print)


async def test_a_listener_that_breaks_does_not_silence_the_others() -> None:
    def broken(_: Heard) -> None:
        raise ZeroDivisionError

    async with serving(make_policy({"fix": fixture_server("--era", "modern")})) as served:
        hub, listener = served.worker_set("fix").hub, Listener()
        hub.subscribe(Interest(tools=True), broken)
        await listening(hub.subscribe(Interest(tools=True), listener))
        await served.modern("fix").call("toggle_tool", name="more")
        await listener.wait_told("tools")


async def test_who_watches_the_lists_is_called_for_each_change_and_for_a_new_worker(worker_era: str) -> None:
    async with serving(make_policy({"fix": fixture_server("--era", worker_era, start="lazy")})) as served:
        changed: list[str] = []
        served.worker_set("fix").hub.watch_lists(changed.append)
        await served.modern("fix").call("echo", text="x")
        await until(lambda: set(changed) == {"tools", "prompts", "resources"}, "told of the new worker")
        changed.clear()
        await served.modern("fix").call("toggle_tool", name="more")
        await until(lambda: changed == ["tools"], "told of the change")


async def test_the_names_of_tools_follow_their_list(worker_era: str) -> None:
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        await served.modern("fix").call("echo", text="x")
        worker = served.worker_set("fix").worker
        assert "more" not in worker.tools
        await listening(served.worker_set("fix").hub.subscribe(Interest(tools=True), print))
        await served.modern("fix").call("toggle_tool", name="more")
        await until(lambda: "more" in worker.tools, "the new tool is known")


@pytest.mark.parametrize("silent", [[], ["subscriptions/listen"]])
async def test_a_server_that_does_not_listen_grants_nothing_and_is_not_asked_all_the_time(
    silent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One says that it knows no such method, one says nothing. Either has its calls answered all the same."""
    monkeypatch.setattr(listens, "ACK_SECONDS", 0.2)
    capabilities = {"tools": {"listChanged": True}, "resources": {"subscribe": True}}
    server = shapes_server(era="modern", tools=["one"], capabilities=capabilities, silent=silent)
    async with serving(make_policy({"fix": server})) as served:
        hub = served.worker_set("fix").hub
        for number in range(5):
            assert await listening(hub.subscribe(uris(str(number)), print)) == NO_INTEREST
        served.worker_set("fix").worker.on_notified("notifications/tools/list_changed", {}, None)
        assert (await served.modern("fix").call("one")).status == 200
        assert _refused_listens(served) == (1 if silent else 0)


def _refused_listens(served: Served) -> float:
    return (
        served.runtime.metrics.registry.get_sample_value(
            "mcphost_worker_oddities_total", {"server": "fix", "tenant": "acme", "what": "listen-refused"}
        )
        or 0
    )
