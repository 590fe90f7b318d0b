"""Sandboxed processes, awaited: the fork server's socket turned into values and events.

Every process belongs to one `Launcher` and cannot outlive it. If the fork server dies, all of its processes
died with it (their init is told by the kernel), so each is reported as ended and a new fork server is started.
"""

import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from fcntl import F_SETPIPE_SZ, fcntl
from functools import partial
from typing import Final, Literal, cast

import anyio
import anyio.abc
import anyio.to_thread

from mcphost.telemetry.logs import logger
from mcphost.telemetry.usage import Usage
from mcphost.workers.lifetime import background_tasks
from sandbox import (
    Denied,
    Event,
    Exited,
    Features,
    KillReason,
    LayerStatus,
    SandboxError,
    SandboxSpec,
    Spawned,
    Spawner,
    SpawnerBusy,
    SpawnerGone,
    SpawnFailed,
)

# A full default pipe (64 KiB) costs a wake-up per 64 KiB on both sides; 1 MiB is what the kernel lets an
# ordinary user ask for (pipe(7), /proc/sys/fs/pipe-max-size). Memory is taken only as far as it is filled.
PIPE_BYTES: Final = 1024 * 1024

SEEN_SECONDS: Final = 0.05  # until a fork server that just died is known to be dead

RESTART_WAIT_SECONDS: Final = 0.5  # between a fork server's death and the next, so that no loop spins

OnDenied = Callable[[Mapping[str, int]], None]

EndReason = Literal["exited", "signalled", "oom", "lost"] | KillReason


_SAID: Final = {
    "oom": "was killed for exceeding its memory limit",
    "killed": "was killed",
    "timeout": "was killed for taking too long",
    "protocol": "was killed for being of no more use",
    "lost": "was lost with the fork server",
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended. `code` and `signal` are its wait status, where there was one."""

    reason: EndReason
    code: int | None = None
    signal: int | None = None
    usage: Usage = field(default_factory=Usage)

    @property
    def failed(self) -> bool:
        """Whether it did not end in order."""
        return self.reason != "exited" or self.code != 0

    def __str__(self) -> str:
        if self.reason == "exited":
            return f"exited with status {self.code}"
        if self.reason == "signalled":
            return f"ended by signal {self.signal}"
        return _SAID[self.reason]


class Process:
    """One sandboxed process: our ends of its pipes, its layers, and how it ended.

    The owner of the three descriptors is whoever takes them; `Launcher` closes those of failed starts only. The socket
    on the worker's loopback, where there is one, is closed at the end unless somebody has taken it.
    """

    def __init__(self, launcher: "Launcher", started: Spawned, pipes: "Pipes", on_denied: OnDenied) -> None:
        self._launcher = launcher
        self.on_denied = on_denied
        self.uncounted = started.uncounted
        self.worker_id = started.worker
        self.pid = started.pid
        self.layers: tuple[LayerStatus, ...] = started.layers
        self.stdin, self.stdout, self.stderr = pipes.ours
        self._listener = started.listener
        self.ended: Ended | None = None
        self._gone = anyio.Event()

    def __repr__(self) -> str:
        return f"<Process {self.pid} {self.ended or 'running'}>"

    def take_listener(self) -> int | None:
        """The socket on the worker's loopback, once; from here on the caller's to close."""
        taken, self._listener = self._listener, None
        return taken

    def close_listener(self) -> None:
        """Close that socket, unless it was taken. Idempotent."""
        if (listener := self.take_listener()) is not None:
            os.close(listener)

    async def wait_ended(self) -> Ended:
        """Wait until nothing of the process is left, its descendants included."""
        await self._gone.wait()
        return cast("Ended", self.ended)

    def signal(self, number: int) -> None:
        """Send a signal through the process's init; nothing happens if it has ended."""
        if self.ended is None:
            self._launcher.signal(self.worker_id, number)

    def kill(self, reason: KillReason = "killed") -> None:
        """End the process and all its descendants for certain; `reason` comes back as that of its end."""
        if self.ended is None:
            self._launcher.kill(self.worker_id, reason)

    def close_pipes(self) -> None:
        """Close the three descriptors, where nobody else has taken them over. Once."""
        _close((self.stdin, self.stdout, self.stderr))

    def set_ended(self, ended: Ended) -> None:
        """Called by the launcher, once."""
        self.ended = ended
        self.close_listener()
        self._gone.set()


@dataclass(slots=True)
class Pipes:
    """Three pipes; `ours` are non-blocking."""

    ours: tuple[int, int, int]
    theirs: tuple[int, int, int]

    @classmethod
    def make(cls) -> "Pipes":
        """Open all three; on failure none stays open."""
        opened: list[int] = []
        try:
            for _ in range(3):
                opened.extend(os.pipe2(os.O_CLOEXEC))
        except OSError:
            _close(opened)
            raise
        child_in, our_in, our_out, child_out, our_err, child_err = opened
        for fd in (our_in, our_out, our_err):
            os.set_blocking(fd, False)
        for fd in (our_in, our_out):
            with suppress(OSError):  # past the user's share of pipe memory the default size has to do
                fcntl(fd, F_SETPIPE_SZ, PIPE_BYTES)
        return cls((our_in, our_out, our_err), (child_in, child_out, child_err))


@dataclass(slots=True)
class _Start:
    pipes: Pipes
    on_denied: OnDenied
    done: anyio.Event = field(default_factory=anyio.Event)
    process: Process | None = None
    error: SandboxError | None = None
    abandoned: bool = False


class Launcher:
    """Starts sandboxed processes through one fork server."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spawner: Spawner | None = None
        self._requests = 0
        self._starting: dict[int, _Start] = {}
        self._running: dict[int, Process] = {}
        self._spawner_back = anyio.Event()
        self._closing = False
        self._shapes: tuple[SandboxSpec, ...] = ()
        self._tasks: anyio.abc.TaskGroup

    def __repr__(self) -> str:
        return f"<Launcher {len(self._running)} running, {len(self._starting)} starting>"

    @classmethod
    @asynccontextmanager
    async def open(cls, name: str) -> AsyncIterator["Launcher"]:
        """A launcher for as long as the block lasts; at its end every process and the fork server are gone."""
        launcher = cls(name)
        launcher._spawner = await anyio.to_thread.run_sync(lambda: Spawner.start(name=name))
        try:
            async with background_tasks() as launcher._tasks:
                launcher._tasks.start_soon(launcher._watch)
                yield launcher
        finally:
            launcher._closing = True
            launcher._spawner_back.set()
            spawner, launcher._spawner = launcher._spawner, None
            if spawner is not None:
                with anyio.CancelScope(shield=True):  # bounded by the spawner itself
                    await anyio.to_thread.run_sync(spawner.close)
            launcher._lose("the runtime stopped")

    @property
    def features(self) -> Features:
        """What the fork server found that it can apply.

        Raises:
            SpawnerGone: it is being restarted.
        """
        if self._spawner is None:
            raise SpawnerGone("the fork server is being restarted")
        return self._spawner.features

    def prepare(self, shapes: Sequence[SandboxSpec]) -> None:
        """Have these zygotes made ahead, now and after each restart of the fork server. Replaces those named before.

        Whether one could be made shows when a worker is started.
        """
        self._shapes = tuple(shapes)
        for shape in self._shapes:
            if self._spawner is not None:
                with suppress(SandboxError):
                    self._spawner.prepare(shape)

    async def start(self, spec: SandboxSpec, on_denied: OnDenied = lambda _: None) -> Process:
        """Start one process and wait until its program runs.

        `on_denied` is called with the system calls that are refused to it, by name, at most once a second. On
        cancellation the process is ended as soon as it appears.

        Raises:
            SandboxError: it could not be started as asked.
            OSError: no descriptors left.
        """
        while True:
            spawner = await self._wait_spawner()
            try:
                return await self._start(spawner, spec, on_denied)
            except SpawnerGone:
                # Not the server's fault, so not for its restart budget. The caller bounds the wait.
                if self._closing:
                    raise
                await anyio.sleep(SEEN_SECONDS)

    async def _wait_spawner(self) -> Spawner:
        while self._spawner is None:
            if self._closing:
                raise SpawnerGone("the runtime stopped")
            await self._spawner_back.wait()
        return self._spawner

    async def _start(self, spawner: Spawner, spec: SandboxSpec, on_denied: OnDenied) -> Process:
        pipes = Pipes.make()
        start = _Start(pipes, on_denied)
        self._requests += 1
        request = self._requests
        try:
            spawner.spawn(request, spec, *pipes.theirs)
        except BaseException:
            _close(pipes.ours)
            raise
        finally:
            _close(pipes.theirs)
        self._starting[request] = start
        try:
            await start.done.wait()
        except BaseException:
            start.abandoned = True
            if start.process is not None:
                start.process.kill()
                start.process.close_listener()
                _close(pipes.ours)
            raise
        if start.error is not None:
            raise start.error
        return cast("Process", start.process)

    def look_after(self, work: Callable[[], Coroutine[object, object, None]], name: str) -> None:
        """Run `work`, which is about one process of this launcher and ends with it. It must handle its own errors."""
        self._tasks.start_soon(work, name=name)

    def signal(self, worker: int, number: int) -> None:
        """Send a signal to a worker of this launcher."""
        if self._spawner is not None:
            with suppress(SandboxError):
                self._spawner.signal(worker, number)

    def kill(self, worker: int, reason: KillReason) -> None:
        """End a worker of this launcher for certain: where its fork server is busy, as soon as that takes the order."""
        if self._spawner is not None:
            try:
                self._spawner.kill(worker, reason)
            except SpawnerBusy:
                self.look_after(partial(self._kill_later, self._spawner, worker, reason), "kill a worker")
            except SandboxError:
                return  # gone, and every worker with it

    async def _kill_later(self, spawner: Spawner, worker: int, reason: KillReason) -> None:
        while self._spawner is spawner and worker in self._running:
            await anyio.wait_writable(spawner.fileno())
            try:
                spawner.kill(worker, reason)
            except SpawnerBusy:
                continue
            except SandboxError:
                return
            return

    async def _watch(self) -> None:
        while True:
            if self._spawner is None:
                await self._restart()
                continue
            await anyio.wait_readable(self._spawner.fileno())
            try:
                for event in self._spawner.receive():
                    self._dispatch(event)
            except SpawnerGone as error:
                logger().error("fork_server_died", error=str(error), workers=len(self._running))
                spawner, self._spawner = self._spawner, None
                self._spawner_back = anyio.Event()
                await anyio.to_thread.run_sync(spawner.close)
                self._lose("the fork server died")

    async def _restart(self) -> None:
        await anyio.sleep(RESTART_WAIT_SECONDS)
        try:
            self._spawner = await anyio.to_thread.run_sync(lambda: Spawner.start(name=self._name))
            self.prepare(self._shapes)
            self._spawner_back.set()
        except (SandboxError, OSError) as error:
            logger().error("fork_server_start_failed", error=str(error))

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, Denied):
            if (running := self._running.get(event.worker)) is not None:
                running.on_denied(event.calls)
            return
        if isinstance(event, Exited):
            process = self._running.pop(event.worker, None)
            if process is not None:
                process.set_ended(Ended(event.reason, event.code, event.signal, _usage(event)))
            return
        start = self._starting.pop(event.request, None)
        if start is None:
            if isinstance(event, Spawned) and event.listener is not None:
                os.close(event.listener)
            return
        if isinstance(event, SpawnFailed):
            start.error = event.error
            _close(start.pipes.ours)
        else:
            start.process = Process(self, event, start.pipes, start.on_denied)
            self._running[event.worker] = start.process
            if start.abandoned:
                start.process.kill()
                start.process.close_listener()
                _close(start.pipes.ours)
        start.done.set()

    def _lose(self, why: str) -> None:
        for start in self._starting.values():
            start.error = SpawnerGone(why)
            _close(start.pipes.ours)
            start.done.set()
        self._starting.clear()
        for process in self._running.values():
            process.set_ended(Ended("lost"))
        self._running.clear()


def _usage(event: Exited) -> Usage:
    return Usage(
        cpu_seconds=event.cpu_seconds,
        peak_memory_bytes=event.peak_memory_bytes,
        oom_kills=event.oom_kills,
        pids_denied=event.pids_denied,
        throttled_periods=event.throttled_periods,
        throttled_seconds=event.throttled_seconds,
    )


def _close(descriptors: tuple[int, ...] | list[int]) -> None:
    for fd in descriptors:
        with suppress(OSError):
            os.close(fd)
