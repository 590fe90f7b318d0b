"""A kill is never lost, however busy the fork server is."""

import os
import signal

import anyio
import pytest

from mcphost.workers.process import Launcher
from sandbox import Mount, SandboxSpec, Spawner, SpawnerBusy

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]

SPEC = SandboxSpec(name="held", argv=("/bin/cat",), mounts=(Mount(source="/usr", target="/usr"),))


def fill(spawner: Spawner, worker: int) -> None:
    while True:
        spawner.signal(worker, signal.SIGCONT)


async def test_a_kill_that_a_busy_fork_server_cannot_take_now_reaches_it_later():
    async with Launcher.open("busy") as launcher:
        process = await launcher.start(SPEC)
        spawner = launcher._spawner
        assert spawner is not None
        os.kill(spawner.pid, signal.SIGSTOP)
        try:
            with pytest.raises(SpawnerBusy):
                fill(spawner, process.worker_id)
            process.kill("protocol")
        finally:
            os.kill(spawner.pid, signal.SIGCONT)
        with anyio.fail_after(20):
            ended = await process.wait_ended()
        assert ended.reason == "protocol"
        process.close_pipes()
