"""Warm spares: taken when a worker is lost, made again out of the way, and never a trouble of their own."""

import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import anyio
import httpx
import pytest

from harness import FIXTURE, Served, fixture_server, make_policy, serving, tenant_entry, until
from mcphost.telemetry.metrics import Metrics
from mcphost.workers.process import Launcher
from mcphost.workers.reports import Identity
from mcphost.workers.spares import SpareLane, Spares
from sandbox import SandboxSpec

pytestmark = pytest.mark.kernel

QUICK = {"max": 3, "backoff": {"initial": "10ms", "max": "50ms"}}
# A restart that has to wait for this never comes in a test.
NEVER = {"max": 3, "backoff": {"initial": "1h", "max": "1h"}}


def spares(served: Served, server: str = "fix", tenant: str = "acme") -> list[int]:
    return served.worker_set(server, tenant).spares.pids


async def filled(served: Served, count: int = 1, *, besides: tuple[int, ...] = ()) -> list[int]:
    await until(
        lambda: len(spares(served)) == count and not set(spares(served)) & set(besides),
        "the spares are there",
    )
    return spares(served)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def metric(served: Served, line: str) -> float:
    lines = served.runtime.metrics.render().decode().splitlines()
    return next((float(each.rpartition(" ")[2]) for each in lines if each.startswith(line)), 0.0)


def script(tmp_path: Path, first: str, **settings: object) -> dict:
    """The fixture server, which does `first` before it listens to anybody."""
    file = tmp_path / "server.py"
    file.write_text(f"{first}\nimport runpy, sys\nrunpy.run_path({str(FIXTURE)!r}, run_name='__main__')\n")
    file.chmod(0o644)
    tmp_path.chmod(0o755)
    volumes = [f"{FIXTURE.parent}:{FIXTURE.parent}"]
    return {"command": "python3", "args": [str(file)], "volumes": volumes, **settings}


@pytest.mark.parametrize("how", ["crash", "kill", "order"])
async def test_the_call_after_a_lost_worker_is_served_by_the_spare_and_another_takes_its_place(
    how: str,
) -> None:
    arguments = ["--exit-after", "2"] if how == "order" else []
    async with serving(make_policy({"fix": fixture_server(*arguments, warm=1, restart=NEVER)})) as served:
        client = served.modern("fix")
        await client.call("state_set", key="k", value="before")
        first = served.worker_set("fix").worker.pid
        (spare,) = await filled(served)
        assert spare != first
        if how == "kill":
            os.kill(first, signal.SIGKILL)
        elif how == "crash":
            assert (await client.call("crash", code=3)).error["data"]["reason"] == "worker-died"
        else:
            await client.call("echo", text="last")
        await until(
            lambda: (w := served.worker_set("fix").worker) is None or w.pid != first, "the loss was seen"
        )
        assert (await client.call("echo", text="again")).text == "again"
        assert served.worker_set("fix").worker.pid == spare
        await filled(served, besides=(spare,))
        assert "before" not in (await client.call("state_get", key="k")).text


async def test_without_a_spare_the_same_loss_has_to_wait() -> None:
    async with serving(make_policy({"fix": fixture_server(restart=NEVER)})) as served:
        client = served.modern("fix")
        await client.call("crash", code=3)
        await until(lambda: served.worker_set("fix").state == "backoff", "it waits")
        assert (await client.call("echo", text="again")).error["data"]["reason"] == "worker-unavailable"


async def test_a_shared_server_has_its_spares_before_anybody_calls_and_the_first_call_takes_one() -> None:
    server = fixture_server(scope="shared", start="lazy", warm=2)
    async with serving(make_policy({"fix": server})) as served:
        waiting = await filled(served, 2)
        assert served.worker_set("fix").worker is None
        assert (await served.modern("fix").call("echo", text="a")).text == "a"
        assert served.worker_set("fix").worker.pid == waiting[0]
        await filled(served, 2, besides=(waiting[0],))


async def test_each_tenant_has_spares_from_its_first_use_on_with_its_own_secrets(tmp_path: Path) -> None:
    tenants = {}
    for name in ("acme", "globex"):
        (tmp_path / name).write_text(f"canary-{name}")
        tenants[name] = tenant_entry(name, secrets={"key": {"fromFile": str(tmp_path / name)}})
    server = fixture_server(env={"API_KEY": "${secret:key}"}, warm=1, restart=NEVER)
    async with serving(make_policy({"fix": server}, tenants)) as served:
        await served.modern("fix").call("echo", text="a")
        (spare,) = await filled(served)
        assert spares(served, tenant="globex") == []
        await served.modern("fix").call("crash", code=3)
        seen = json.dumps((await served.modern("fix").call("whoami", env=["API_KEY"])).result)
        assert served.worker_set("fix").worker.pid == spare
        assert "canary-acme" in seen
        assert "canary-globex" not in seen


async def test_a_spare_that_is_killed_is_replaced_and_its_server_has_had_no_crash() -> None:
    async with serving(make_policy({"fix": fixture_server(warm=1, restart=QUICK)})) as served:
        client = served.modern("fix")
        await client.call("echo", text="a")
        worker = served.worker_set("fix").worker.pid
        (spare,) = await filled(served)
        os.kill(spare, signal.SIGKILL)
        (other,) = await filled(served, besides=(spare,))
        assert not alive(spare)
        assert served.worker_set("fix").worker.pid == worker
        assert metric(served, 'mcphost_worker_starts_total{outcome="ready",server="fix"') == 1
        await client.call("crash", code=3)
        assert (await client.call("echo", text="b")).text == "b"
        assert served.worker_set("fix").worker.pid == other


async def test_spares_are_seen_by_the_operator_and_leave_nothing_when_the_runtime_stops() -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with serving(make_policy({"fix": fixture_server(warm=2)})) as served:
        await served.modern("fix").call("echo", text="a")
        pids = [*await filled(served, 2), served.worker_set("fix").worker.pid]
        assert metric(served, 'mcphost_spare_workers{server="fix",tenant="acme"}') == 2
        transport = httpx.ASGITransport(served.runtime.admin())  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as admin:
            (shown,) = (await admin.get("/servers")).json()["workers"]
        assert (shown["pid"], shown["spares"]) == (pids[-1], 2)
    assert not any(alive(pid) for pid in pids)
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("scope", ["tenant", "shared"])
async def test_a_server_that_never_starts_is_given_up_after_as_many_starts_as_without_spares(
    scope: str,
) -> None:
    server = fixture_server("--fail-start", restart=QUICK, warm=2, scope=scope, start="lazy")
    async with serving(make_policy({"fix": server})) as served:
        served.worker_set("fix").want()
        await until(lambda: served.worker_set("fix").state == "failed", "it is failed")
        assert metric(served, 'mcphost_worker_starts_total{outcome="start-failed",server="fix"') == 4
        await until(lambda: not spares(served), "no spare is left")
        assert (await served.modern("fix").call("echo", text="a")).error["data"][
            "reason"
        ] == "worker-unavailable"


async def test_spares_that_end_by_themselves_are_given_up_and_their_server_serves_on(tmp_path: Path) -> None:
    """As a server does that wants to be spoken to soon."""
    first = "import select, sys\nif not select.select([sys.stdin], [], [], 0.2)[0]: sys.exit(4)"
    async with serving(make_policy({"fix": script(tmp_path, first, warm=2, restart=QUICK)})) as served:
        client = served.modern("fix")
        await client.call("echo", text="a")
        worker = served.worker_set("fix").worker.pid
        await until(lambda: served.worker_set("fix").spares.given_up, "no more are made")
        ended = metric(served, 'mcphost_worker_exits_total{reason="exited",server="fix"')
        assert ended >= 4
        await until(lambda: not spares(served), "those that were left have ended, too")
        assert metric(served, 'mcphost_worker_exits_total{reason="exited",server="fix"') <= ended + 2
        assert (await client.call("echo", text="b")).text == "b"
        assert served.worker_set("fix").worker.pid == worker


async def test_a_spare_that_is_there_only_when_its_server_has_failed_is_ended() -> None:
    asked, may_go_on = threading.Event(), threading.Event()
    metrics = Metrics("0")
    async with serving(make_policy({"fix": fixture_server(warm=1)})) as served:
        settings = served.worker_set("fix").settings

        def slow(tenant: str) -> SandboxSpec:
            asked.set()
            may_go_on.wait(10)
            return settings.sandbox(tenant)

        async with Launcher.open("late") as launcher, anyio.create_task_group() as tasks:
            lane = SpareLane(anyio.Semaphore(1))
            late = Spares(Identity("fix", "acme"), replace(settings, sandbox=slow), launcher, metrics, lane)
            tasks.start_soon(late.run, lambda: True)
            await until(asked.is_set, "one is being made")
            await late.retire()
            may_go_on.set()
            ended = 'mcphost_worker_exits_total{reason="killed",server="fix",tenant="acme"} 1.0'
            await until(lambda: ended in metrics.render().decode(), "it is ended")
            assert late.pids == []
            tasks.cancel_scope.cancel()


async def test_a_spare_that_speaks_before_it_is_asked_waits_for_its_reader_and_serves(tmp_path: Path) -> None:
    first = "print('hello, nobody asked\\n' * 50, flush=True)"
    async with serving(make_policy({"fix": script(tmp_path, first, warm=1, restart=NEVER)})) as served:
        client = served.modern("fix")
        await client.call("echo", text="a")
        (spare,) = await filled(served)
        await client.call("crash", code=3)
        assert (await client.call("echo", text="b")).text == "b"
        assert served.worker_set("fix").worker.pid == spare


async def test_a_fork_server_that_dies_takes_the_spares_along_and_they_come_again() -> None:
    async with serving(make_policy({"fix": fixture_server(warm=1, restart={**QUICK, "max": 1})})) as served:
        client = served.modern("fix")
        await client.call("echo", text="a")
        (spare,) = await filled(served)
        for _ in range(2):
            os.kill(served.runtime.pool.sets()[0]._around.launcher._spawner.pid, signal.SIGKILL)
            await until(lambda spare=spare: not alive(spare), "the spare is gone")
            assert (await client.call("echo", text="b")).text == "b"
            (spare,) = await filled(served, besides=(spare,))
