"""The socket of a worker in the runtime's hands: given up starts, ends, and a fork server that dies."""

import os
import signal

import anyio
import pytest

from harness import until
from mcphost.workers.process import Launcher
from sandbox import Mount, SandboxSpec

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]

USR = (Mount(source="/usr", target="/usr"),)
SPEC = SandboxSpec(name="held", argv=("/bin/cat",), mounts=USR, network="proxy")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def close_pipes(process) -> None:
    for fd in (process.stdin, process.stdout, process.stderr):
        os.close(fd)


async def test_a_start_that_is_given_up_at_any_moment_leaves_no_descriptor():
    async with Launcher.open("given-up") as launcher:
        process = await launcher.start(SPEC)
        process.kill()
        await process.wait_ended()
        await close_pipes(process)
        before = open_files()
        for seconds in (0.0, 0.001, 0.01, 0.02, 0.05):
            with anyio.move_on_after(seconds) as scope:
                started = await launcher.start(SPEC)
            if not scope.cancelled_caught:
                started.kill()
                await started.wait_ended()
                await close_pipes(started)
        await until(lambda: not launcher._running and not launcher._starting, "every worker has ended")
        assert open_files() == before


async def test_a_socket_that_nobody_took_is_closed_at_the_workers_end():
    async with Launcher.open("not-taken") as launcher:
        process = await launcher.start(SPEC)
        before = open_files()
        os.close(process.stdin)
        await process.wait_ended()
        assert process.take_listener() is None
        assert open_files() == before - 2
        os.close(process.stdout)
        os.close(process.stderr)


async def test_a_socket_that_was_taken_is_its_takers():
    async with Launcher.open("taken") as launcher:
        process = await launcher.start(SPEC)
        listener = process.take_listener()
        process.kill()
        await process.wait_ended()
        os.close(listener)
        await close_pipes(process)


async def test_a_fork_server_that_dies_leaves_no_socket():
    async with Launcher.open("dies") as launcher:
        process = await launcher.start(SPEC)
        assert process._listener is not None
        os.kill(launcher._spawner.pid, signal.SIGKILL)
        assert (await process.wait_ended()).reason == "lost"
        assert process._listener is None
        await close_pipes(process)
