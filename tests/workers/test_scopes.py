"""Who shares processes: the requests of a session, those of a principal, or nobody."""

from typing import Any

import anyio
import pytest

from harness import LegacyClient, fixture_server, make_policy, serving, until
from leasing import ASKED, FORMS, ROOTS, Ear, Holder, use, words
from mcphost.errors import Overloaded, WorkerGone, WorkerUnavailable
from mcphost.protocol.asking import NOTHING
from mcphost.workers.owners import Need, Owner
from mcphost.workers.pool import MAX_SESSION_SETS
from mcphost.workers.settings import Idle
from workers_seen import alive, change, gauge, leased

pytestmark = pytest.mark.kernel

CHAIN = Need(chain=True)


def policy(scope: str, era: str = "legacy", **settings: Any) -> dict[str, Any]:
    return make_policy({"fix": fixture_server("--era", era, scope=scope, **settings)})


def session(name: str, *, one_client: bool = True, declared: Any = FORMS) -> Owner:
    return Owner("acme", name, declared, one_client)


async def test_each_session_has_a_process_that_was_told_what_its_client_declared_and_ends_with_it() -> None:
    async with serving(policy("session")) as served:
        pool = served.runtime.pool
        sets = [pool.find("fix", session(name)) for name in "ab"]
        pids = []
        for workers in sets:
            for need in (ASKED, Need(logs=True), Need()):
                async with workers.lease(need) as worker:
                    pids.append(worker.pid)
                    facts = (await use(worker, "whoami"))["structuredContent"]
                    assert facts["clientCapabilities"] == {"elicitation": {"form": {}}}
        assert len(set(pids[:3])) == len(set(pids[3:])) == 1
        assert pids[0] != pids[3]
        assert gauge(served, 'mcphost_worker_state{server="fix",state="ready",tenant="acme"}') == 2
        pool.end_session("a")
        pool.end_session("a")
        await until(lambda: not alive(pids[0]), "its process has ended")
        with pytest.raises(WorkerUnavailable):
            await sets[0].ready()
        assert pool.find("fix", session("b")) is sets[1]
        assert alive(pids[3])
        assert pool.find("fix", session("a")) is not sets[0]
        await until(lambda: gauge(served, 'mcphost_worker_state{server="fix",state="ready"') == 1, "it is counted no more")  # fmt: skip


async def test_calls_of_one_session_share_its_process_and_the_oldest_is_asked() -> None:
    async with serving(policy("session")) as served, anyio.create_task_group() as tasks:
        workers = served.runtime.pool.find("fix", session("a"))
        first, second = Ear(), Ear()
        async with workers.lease(ASKED) as one, workers.lease(ASKED) as two:
            assert one.pid == two.pid

            async def wait() -> None:
                await use(one, "ask_when_cancelled", first, message="first")

            tasks.start_soon(wait)
            await first.heard.wait()
            first.answers.append({"action": "decline"})
            await use(two, "ask", second, message="name?")
            assert (len(first.questions), len(second.questions)) == (1, 0)
            tasks.cancel_scope.cancel()


async def test_a_principal_without_sessions_has_a_process_for_what_can_be_asked_and_calls_take_turns_on_it() -> (
    None
):
    async with serving(policy("session")) as served, anyio.create_task_group() as tasks:
        find = served.runtime.pool.find
        workers = find("fix", session("anna", one_client=False))
        others = [
            session("anna", one_client=False, declared=ROOTS),
            session("bert", one_client=False),
            session("anna"),
        ]
        assert all(find("fix", owner) is not workers for owner in others)
        first, second = Holder(tasks, workers, ASKED), Holder(tasks, workers, ASKED)
        one = await first.has_it()
        async with workers.lease(Need()) as plain:
            assert plain.pid == one.pid
        assert not second.got.is_set()
        ear = Ear()

        async def wait() -> None:
            await use(one, "ask_when_cancelled", ear, message="first")

        tasks.start_soon(wait)
        await ear.heard.wait()
        assert words(await use(one, "state_set", key="k", value="kept")) is not None
        await first.let_go()
        assert (await second.has_it()).pid == one.pid
        await second.let_go()
        tasks.cancel_scope.cancel()


async def test_a_session_that_nobody_uses_ends_and_one_in_use_does_not() -> None:
    async with serving(policy("session", warm=1)) as served:
        change(served, idle=Idle(session=0.1))
        pool = served.runtime.pool
        workers = pool.find("fix", session("a"))
        async with workers.lease(Need()) as worker:
            async with pool.find("fix", session("b")).lease(Need()) as short:
                pass
            await until(lambda: not alive(short.pid), "the unused one is ended")
            assert alive(worker.pid)
            assert pool.find("fix", session("a")) is workers
        await until(lambda: not alive(worker.pid), "it is ended, too")
        assert [each for each in pool.sets() if each.owner.session] == []


async def test_a_tenant_has_so_many_workers_of_sessions_and_an_ended_one_makes_room() -> None:
    async with serving(policy("session")) as served:
        pool = served.runtime.pool
        for number in range(MAX_SESSION_SETS):
            pool.find("fix", session(str(number)))
        with pytest.raises(Overloaded):
            pool.find("fix", session("more"))
        assert pool.find("fix", session("7")) is not None
        pool.end_session("7")
        await until(lambda: pool._of_sessions["acme"] < MAX_SESSION_SETS, "it has ended")
        pool.find("fix", session("more"))


async def test_spares_are_shared_by_the_sessions_of_a_tenant() -> None:
    async with serving(policy("session", warm=1)) as served:
        pool = served.runtime.pool
        first = pool.find("fix", session("a"))
        await until(lambda: len(first.spares) == 1, "the spare is there")
        (spare,) = first.spares.pids
        second = pool.find("fix", session("b"))
        async with second.lease(Need()) as worker:
            assert worker.pid == spare
            pool.end_session("a")
            await until(lambda: len(second.spares) == 1, "there is another, though its first user has ended")
        pids = [worker.pid, *second.spares.pids]
    assert not any(alive(pid) for pid in pids)


async def test_a_legacy_client_keeps_the_process_of_its_session_and_loses_it_with_the_session() -> None:
    async with serving(policy("session")) as served:
        clients = [LegacyClient(served.http, "/servers/fix/mcp", "acme") for _ in range(2)]
        pids = []
        for client in clients:
            await client.initialize(elicitation={})
            pids += [(await client.call("whoami")).result["structuredContent"]["pid"] for _ in range(2)]
            await client.call("state_set", key="k", value=str(client.session))
        hosts = [each.worker.pid for each in served.runtime.pool.sets() if each.worker is not None]
        assert len(hosts) == 2
        assert str(clients[0].session) in (await clients[0].call("state_get", key="k")).text
        gone = await served.http.delete("/servers/fix/mcp", headers=clients[0].headers("", None))
        assert gone.status_code in {200, 204}
        await until(lambda: sum(alive(pid) for pid in hosts) == 1, "the process has ended with its session")
        assert str(clients[1].session) in (await clients[1].call("state_get", key="k")).text


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_each_call_of_scope_call_has_a_process_that_nobody_used_and_nobody_will(era: str) -> None:
    async with serving(policy("call", era)) as served:
        client = served.modern("fix")
        assert len((await client.request("tools/list")).result["tools"]) > 1
        main = served.worker_set("fix").worker.pid
        await client.call("state_set", key="k", value="kept")
        assert "kept" not in (await client.call("state_get", key="k")).text
        workers = served.worker_set("fix")
        async with workers.lease(CHAIN) as one, workers.lease(CHAIN) as two:
            assert len({one.pid, two.pid, main}) == 3
        await until(lambda: not len(workers.leases), "both have ended")
        assert not alive(one.pid)
        assert alive(main)


async def test_with_scope_call_a_process_waits_for_the_next_round_of_its_call_and_for_nobody_else() -> None:
    async with serving(policy("call", "modern", leases=1)) as served:
        workers = served.worker_set("fix")
        async with workers.lease(CHAIN) as one:
            one.awaited = True
        await until(lambda: leased(workers) == [("idle", True)], "it waits")
        async with workers.lease(Need(instance=one.instance, chain=True)) as again:
            assert again.pid == one.pid
            again.awaited = True
        async with workers.lease(CHAIN) as other:  # it makes room
            assert other.pid != one.pid
        with pytest.raises(WorkerGone):
            async with workers.lease(Need(NOTHING, instance=one.instance, chain=True)):
                pass
