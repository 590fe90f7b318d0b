"""Ends that come at bad moments: nothing is left behind, and what waits is told."""

import os
import signal
from typing import Any

import anyio
import pytest

from harness import fixture_server, make_policy, serving, until
from leasing import ASKED, FORMS, Ear, Holder, sets_of, use, words
from mcphost.errors import WorkerDied, WorkerFailed, WorkerUnavailable
from mcphost.workers.owners import Need, Owner
from mcphost.workers.worker import Worker
from workers_seen import alive

pytestmark = pytest.mark.kernel


def legacy(**settings: Any) -> dict[str, Any]:
    return make_policy({"fix": fixture_server("--era", "legacy", **settings)})


async def test_a_worker_is_owned_before_anything_else_can_be_waited_for() -> None:
    """Whoever is cancelled at that very moment has it, and can end it."""
    async with sets_of(legacy()) as (_, workers):
        owned: list[Worker] = []
        with anyio.CancelScope() as scope:

            def own(worker: Worker) -> None:
                owned.append(worker)
                scope.cancel()

            await workers._origin.start(workers._lending.terms, own)
        assert scope.cancelled_caught
        assert owned[0].usable
        await owned[0].stop()
        assert not alive(owned[0].pid)


async def test_when_the_fork_server_dies_lent_processes_die_and_the_next_call_has_another() -> None:
    async with sets_of(legacy(restart={"max": 1})) as (_, workers):
        for _ in range(2):  # it is nobody's failure, so it is not counted
            async with workers.lease(ASKED) as worker:
                os.kill(workers._around.launcher._spawner.pid, signal.SIGKILL)
                with pytest.raises(WorkerDied):
                    await use(worker, "sleep", Ear(), seconds=60)
            await until(lambda worker=worker: not alive(worker.pid), "it is gone")
            await until(lambda: not len(workers.leases), "its place is free")
        async with workers.lease(ASKED) as worker:
            assert words(await use(worker, "echo", Ear(), text="again")) == "again"


async def test_a_session_that_ends_under_its_calls_fails_them_and_those_that_wait_for_its_worker() -> None:
    async with serving(legacy(scope="session", concurrency=1)) as served, anyio.create_task_group() as tasks:
        pool = served.runtime.pool
        workers = pool.find("fix", Owner("acme", "a", FORMS, one_client=True))
        first, second = Holder(tasks, workers, Need()), Holder(tasks, workers, Need())
        worker = await first.has_it()

        async def call() -> None:
            with pytest.raises(WorkerDied):
                await use(worker, "sleep", Ear(), seconds=60)

        tasks.start_soon(call)
        await until(lambda: worker.in_flight, "the call is on its way")
        pool.end_session("a")
        await until(lambda: not alive(worker.pid), "its process has ended")
        await first.let_go()
        await second.over.wait()
        assert isinstance(second.error, WorkerUnavailable)


async def test_a_session_that_ends_while_its_worker_starts_leaves_no_process() -> None:
    async with serving(legacy(scope="session")) as served, anyio.create_task_group() as tasks:
        pool = served.runtime.pool
        workers = pool.find("fix", Owner("acme", "a", FORMS, one_client=True))
        waiting = Holder(tasks, workers, Need())
        await until(lambda: workers.state == "starting", "it starts")
        pool.end_session("a")
        await waiting.over.wait()
        assert isinstance(waiting.error, WorkerUnavailable)
        await until(lambda: workers.state == "stopped", "it has ended")
        assert workers.worker is None
        assert workers not in pool.sets()


async def test_who_waits_for_a_turn_on_a_worker_that_fails_for_good_is_told_so() -> None:
    async with (
        serving(legacy(scope="session", restart={"policy": "never"})) as served,
        anyio.create_task_group() as tasks,
    ):
        workers = served.runtime.pool.find("fix", Owner("acme", "anna", FORMS))
        first, second = Holder(tasks, workers, ASKED), Holder(tasks, workers, ASKED)
        worker = await first.has_it()
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(WorkerDied):
            await use(worker, "crash", Ear(), code=3)
        await second.over.wait()
        assert isinstance(second.error, WorkerFailed)
        await first.let_go()
