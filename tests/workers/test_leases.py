"""Calls that have a process to themselves: one each, in turn, and nothing of one reaches the next."""

import os
from dataclasses import replace
from typing import Any

import anyio
import httpx
import pytest

from harness import fixture_server, make_policy, until
from leasing import ASKED, FORMS, ROOTS, Ear, Holder, sets_of, use, words
from mcphost.decisions.turns import Party
from mcphost.errors import StartFailed, WorkerDied, WorkerGone, WorkerUnavailable
from mcphost.workers.owners import Need
from mcphost.workers.settings import Idle
from workers_seen import alive, change, gauge

pytestmark = pytest.mark.kernel

LOGS = Need(logs=True)


def legacy(**settings: Any) -> dict[str, Any]:
    return make_policy({"fix": fixture_server("--era", "legacy", **settings)})


def modern(**settings: Any) -> dict[str, Any]:
    return make_policy({"fix": fixture_server("--era", "modern", **settings)})


async def test_calls_whose_client_can_be_asked_have_a_process_each_and_the_next_waits_in_line() -> None:
    async with sets_of(legacy(leases=2)) as (served, workers), anyio.create_task_group() as tasks:
        first, second = (Holder(tasks, workers, ASKED) for _ in range(2))
        one, two = await first.has_it(), await second.has_it()
        async with workers.lease(Need()) as main:
            assert len({main.pid, one.pid, two.pid}) == 3
            assert (await use(one, "whoami"))["structuredContent"]["clientCapabilities"] == {
                "elicitation": {"form": {}}
            }
            assert (await use(main, "whoami"))["structuredContent"]["clientCapabilities"] == {}
        third, fourth = (Holder(tasks, workers, ASKED) for _ in range(2))
        await anyio.wait_all_tasks_blocked()
        assert not third.got.is_set()
        assert len(workers.leases) == gauge(served, "mcphost_leased_workers{") == 2
        await second.let_go()
        assert (await third.has_it()).pid == two.pid
        assert not fourth.got.is_set()
        await first.let_go()
        assert (await fourth.has_it()).pid == one.pid
        for each in (third, fourth):
            await each.let_go()


async def test_tenants_take_turns_at_the_processes_of_a_shared_server() -> None:
    policy = make_policy({"fix": fixture_server("--era", "legacy", scope="shared", leases=1)})
    async with sets_of(policy) as (_, workers), anyio.create_task_group() as tasks:
        greedy, patient = replace(ASKED, party=Party("greedy")), replace(ASKED, party=Party("patient"))
        first = Holder(tasks, workers, greedy)
        await first.has_it()
        waiting = []
        for need in (greedy, greedy, greedy, patient):
            waiting.append(Holder(tasks, workers, need))
            await anyio.wait_all_tasks_blocked()
        order = []
        holder = first
        while waiting:
            await holder.let_go()
            await until(lambda: any(each.got.is_set() for each in waiting), "the next has it")
            holder = next(each for each in waiting if each.got.is_set())
            order.append(waiting.index(holder))
            waiting.remove(holder)
        await holder.let_go()
        assert order == [3, 0, 0, 0]


async def test_a_process_serves_again_who_can_be_asked_the_same_and_makes_room_for_others() -> None:
    async with sets_of(legacy(leases=1)) as (_, workers):
        pids = []
        for declared in (FORMS, FORMS, ROOTS, FORMS):
            async with workers.lease(Need(declared, chain=True)) as worker:
                pids.append(worker.pid)
                ear = Ear({"roots": []} if declared is ROOTS else {"action": "accept", "content": {}})
                kind = "roots" if declared is ROOTS else "elicitation"
                await use(worker, "ask", ear, message="name?", kind=kind)
                assert len(ear.questions) == 1
        assert pids[0] == pids[1]
        assert len(set(pids)) == 3
        assert [alive(pid) for pid in pids] == [False, False, False, True]


async def test_one_that_nobody_uses_is_ended_and_a_spare_becomes_the_next() -> None:
    async with sets_of(legacy(warm=1)) as (served, _):
        workers = change(served, idle=Idle(lease=0.05))
        await workers.ready()
        await until(lambda: len(workers.spares) == 1, "the spare is there")
        (spare,) = workers.spares.pids
        async with workers.lease(ASKED) as worker:
            assert worker.pid == spare
        await until(lambda: not len(workers.leases), "it is retired")
        assert not alive(spare)


async def test_a_process_that_dies_under_a_call_fails_that_call_only() -> None:
    async with sets_of(legacy(restart={"backoff": {"initial": "10ms"}})) as (_, workers):
        async with workers.lease(ASKED) as worker:
            gone = worker.pid
            with pytest.raises(WorkerDied):
                await use(worker, "crash", Ear(), code=3)
        async with workers.lease(ASKED) as worker, workers.lease(Need()) as main:
            assert worker.pid != gone
            assert words(await use(worker, "echo", Ear(), text="a")) == "a"
            assert words(await use(main, "echo", text="b")) == "b"
        assert workers.state == "ready"


async def test_what_a_cancelled_call_still_asks_and_logs_reaches_nobody() -> None:
    """The server never answers what was cancelled, and asks only then: its process is ended."""
    async with sets_of(legacy(leases=1)) as (_, workers):
        first, second = Ear(), Ear()
        async with workers.lease(ASKED) as worker, anyio.create_task_group() as tasks:
            gone = worker.pid

            async def call() -> None:
                await use(worker, "ask_when_cancelled", first, message="late")

            tasks.start_soon(call)
            await first.heard.wait()
            tasks.cancel_scope.cancel()
        async with workers.lease(ASKED) as worker:
            assert worker.pid != gone
            assert words(await use(worker, "log_lines", second, tag="mine", count=2)) == "2"
        assert (first.questions, first.lines, second.questions) == ([], [], [])
        assert second.lines == ["mine:0", "mine:1"]
        assert not alive(gone)


async def test_one_that_asks_after_it_has_answered_is_not_given_to_the_next() -> None:
    async with sets_of(legacy(leases=1)) as (_, workers):
        ears = [Ear(), Ear()]
        pids = []
        for ear in ears:
            async with workers.lease(ASKED) as worker:
                pids.append(worker.pid)
                await use(worker, "ask_unbidden", ear, message="who is there?")
        await until(lambda: not len(workers.leases), "the second is ended, too")
        assert pids[0] != pids[1]
        assert [ear.questions for ear in ears] == [[], []]


async def test_a_log_line_after_the_answer_is_dropped_and_the_process_stays() -> None:
    async with sets_of(legacy(leases=1)) as (served, workers):
        ears = [Ear(), Ear()]
        pids = set()
        for ear in ears:
            async with workers.lease(LOGS) as worker:
                pids.add(worker.pid)
                await use(worker, "log_unbidden", ear, message="late")
        assert [ear.lines for ear in ears] == [[], []]
        assert len(pids) == 1
        await until(lambda: gauge(served, 'mcphost_worker_oddities_total{server="fix",tenant="acme",what="unowned-log"') == 2, "both are counted")  # fmt: skip


async def test_who_waits_and_gives_up_leaves_nothing_and_the_process_goes_to_the_next() -> None:
    async with sets_of(legacy(leases=1)) as (_, workers), anyio.create_task_group() as tasks:
        starting = Holder(tasks, workers, ASKED)
        await until(lambda: len(workers.leases), "one is started for it")
        starting.scope.cancel()
        await starting.over.wait()
        holder, waiting, last = (Holder(tasks, workers, ASKED) for _ in range(3))
        one = await holder.has_it()
        waiting.scope.cancel()
        await waiting.over.wait()
        await holder.let_go()
        assert (await last.has_it()).pid == one.pid
        await last.let_go()


async def test_a_start_that_fails_is_its_calls_failure_and_soon_no_more_are_tried() -> None:
    """A server that will not have clients that can be asked."""
    code = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if asked["method"] == "initialize":
        if asked["params"]["capabilities"]: sys.exit(3)
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": {"protocolVersion": "2025-11-25"}}), flush=True)
"""
    restart = {"max": 1, "backoff": {"initial": "10ms", "max": "10ms"}}
    async with sets_of(make_policy({"fix": {"command": "python3", "args": ["-c", code], "restart": restart}})) as (
        _, workers,
    ):  # fmt: skip
        for _ in range(2):
            with pytest.raises(StartFailed):
                async with workers.lease(ASKED):
                    pass
        with pytest.raises(WorkerUnavailable, match="another is started in"):
            async with workers.lease(ASKED):
                pass
        async with workers.lease(Need()) as main:
            assert main.usable
        assert workers.state == "ready"


async def test_on_a_modern_server_calls_that_want_logs_have_a_process_each_and_the_others_share_the_main_one() -> (
    None
):
    async with sets_of(modern(leases=1)) as (_, workers), anyio.create_task_group() as tasks:
        first, second, third = (Holder(tasks, workers, LOGS) for _ in range(3))
        one, two = await first.has_it(), await second.has_it()
        async with workers.lease(ASKED) as shared, workers.lease(Need()) as also:
            assert shared.pid == also.pid == one.pid
        assert two.pid != one.pid
        assert not third.got.is_set()
        ears = [Ear(), Ear()]
        for tag, worker, ear in (("a", one, ears[0]), ("b", two, ears[1])):
            tasks.start_soon(lambda w=worker, e=ear, t=tag: use(w, "log_lines", e, tag=t, count=20))
        await until(lambda: sum(len(ear.lines) for ear in ears) == 40, "all is logged")
        assert [{line[0] for line in ear.lines} for ear in ears] == [{"a"}, {"b"}]
        await first.let_go()
        assert (await third.has_it()).pid == one.pid
        for each in (second, third):
            await each.let_go()


async def test_a_modern_main_process_that_may_still_log_for_a_cancelled_call_logs_for_nobody() -> None:
    async with sets_of(modern(leases=1)) as (_, workers):
        ear = Ear()
        async with workers.lease(LOGS) as main, anyio.create_task_group() as tasks:

            async def call() -> None:
                await use(main, "ask_when_cancelled", ear, message="late")

            tasks.start_soon(call)
            await ear.heard.wait()
            tasks.cancel_scope.cancel()
        async with workers.lease(LOGS) as worker, workers.lease(Need()) as shared:
            assert shared.pid == main.pid
            assert worker.pid != main.pid
        async with workers.lease(Need(logs=True, instance=main.instance)) as bound:
            assert bound.pid == main.pid
            deaf = Ear()
            assert words(await use(bound, "log_lines", deaf, tag="x", count=2)) == "2"
        assert (ear.lines, deaf.lines) == ([], [])


async def test_without_leases_two_calls_at_once_get_nothing_that_names_none() -> None:
    """The negative control of everything above; no policy can ask for it."""
    async with sets_of(legacy()) as (served, _):
        workers = change(served, leases=0)
        patient, other = Ear(), Ear({"action": "accept", "content": {}})
        async with (
            workers.lease(ASKED) as one,
            workers.lease(ASKED) as two,
            anyio.create_task_group() as tasks,
        ):
            assert one.pid == two.pid

            async def wait() -> None:
                await use(one, "ask_when_cancelled", patient, message="first")

            tasks.start_soon(wait)
            await patient.heard.wait()
            refused = (await use(two, "ask", other, message="name?"))["structuredContent"]
            assert refused["error"]["code"] == 409
            assert words(await use(two, "log_lines", other, tag="x", count=3)) == "3"
            assert (patient.questions, patient.lines, other.questions, other.lines) == ([], [], [], [])
            tasks.cancel_scope.cancel()


async def test_a_call_comes_back_to_the_process_it_names_or_learns_that_it_is_gone() -> None:
    async with sets_of(modern(leases=1)) as (_, workers):
        async with workers.lease(LOGS) as main, workers.lease(LOGS) as extra:
            names = main.instance, extra.instance
            for worker in (main, extra):  # beside who has it
                async with workers.lease(Need(ROOTS, instance=worker.instance)) as bound:
                    assert bound.pid == worker.pid
        for name, pid in zip(names, (main.pid, extra.pid), strict=True):
            async with workers.lease(Need(instance=name)) as plain:
                assert plain.pid == pid
            async with workers.lease(Need(logs=True, instance=name)) as logging:
                assert logging.pid == pid
        os.kill(extra.pid, 9)
        await until(lambda: not len(workers.leases), "it is gone")
        for need in (Need(instance=names[1]), Need(logs=True, instance=names[1]), Need(instance="x")):
            with pytest.raises(WorkerGone):
                async with workers.lease(need):
                    pass


async def test_a_runtime_that_stops_leaves_no_process_and_tells_those_who_wait() -> None:
    async with anyio.create_task_group() as tasks:
        async with sets_of(legacy(leases=2)) as (_, workers):
            holders = [Holder(tasks, workers, ASKED) for _ in range(3)]
            pids = [(await each.has_it()).pid for each in holders[:2]]
            pids.append((await workers.ready()).pid)
        assert not any(alive(pid) for pid in pids)
        await holders[2].over.wait()
        assert isinstance(holders[2].error, WorkerUnavailable)
        tasks.cancel_scope.cancel()


async def test_the_operator_sees_which_processes_are_lent() -> None:
    async with sets_of(legacy()) as (served, workers):
        transport = httpx.ASGITransport(served.runtime.admin())  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as admin:
            async with workers.lease(ASKED) as worker:
                (shown,) = (await admin.get("/servers")).json()["workers"]
                assert shown["scope"] == "tenant"
                assert shown["leased"] == [{"pid": worker.pid, "state": "busy", "reserved": False}]


# Offers a tool more to clients that can be asked, as the reference server does.
CHOOSY = """
import json, os, sys
def answer(asked, result): print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    match asked.get("method"):
        case "initialize":
            names = ["always", *asked["params"]["capabilities"]]
            answer(asked, {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "c"}})
        case "tools/list":
            answer(asked, {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names]})
        case "ping": answer(asked, {})
"""


async def listed(workers: Any, need: Need) -> tuple[int, list[str]]:
    """Which process lists, and what."""
    async with workers.share(need) as worker:
        return worker.pid, [
            str(item["name"], "utf8").strip('"') for item in (await worker.list_all("tools/list")).items
        ]


async def test_lists_of_a_client_that_can_be_asked_come_from_a_process_that_was_told_so() -> None:
    choosy = {"command": "python3", "args": ["-c", CHOOSY], "leases": 1}
    async with sets_of(make_policy({"fix": choosy})) as (_, workers):
        main = (await workers.ready()).pid
        assert await listed(workers, Need()) == (main, ["always"])
        told, names = await listed(workers, Need(FORMS))
        assert names == ["always", "elicitation"]
        async with workers.lease(ASKED) as worker:
            assert worker.pid == told
            assert await listed(workers, Need(FORMS)) == (told, names)
            assert await listed(workers, Need(instance=worker.instance)) == (told, names)
            assert await listed(workers, Need(ROOTS)) == (main, ["always"])
        async with workers.lease(Need(FORMS, logs=True, chain=True)) as logging:
            assert logging.pid == told
            assert (await listed(workers, Need(FORMS)))[
                0
            ] == main  # a list beside it would cost it its log messages
        assert (await listed(workers, Need(ROOTS)))[1] == ["always", "roots"]
        assert not alive(told)


async def test_a_process_is_not_given_to_the_next_before_a_list_beside_the_last_one_has_ended() -> None:
    async with sets_of(legacy(leases=1)) as (_, workers), anyio.create_task_group() as tasks:
        first, second = Holder(tasks, workers, ASKED), Holder(tasks, workers, ASKED)
        one = await first.has_it()
        async with workers.share(Need(FORMS)) as beside:
            assert beside.pid == one.pid
            await first.let_go()
            await anyio.wait_all_tasks_blocked()
            assert not second.got.is_set()
        assert (await second.has_it()).pid == one.pid
        await second.let_go()
