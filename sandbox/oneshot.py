"""One confined program from start to end, for scripts and tests: blocking, with bounded output."""

import contextlib
import os
import select
import time
from dataclasses import dataclass

from sandbox.errors import SpawnerGone
from sandbox.layers import LayerStatus
from sandbox.messages import Exited, Spawned, SpawnFailed
from sandbox.spawner import Spawner
from sandbox.spec import SandboxSpec

MAX_OUTPUT_BYTES = 1024 * 1024
_CHUNK = 65536
_KILL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Finished:
    """What the program wrote (the first `MAX_OUTPUT_BYTES` of each stream), how it ended, what confined it.

    `uncounted` says why `ended` names no denied calls, and is empty where they are counted.
    """

    stdout: bytes
    stderr: bytes
    ended: Exited
    layers: tuple[LayerStatus, ...]
    uncounted: str = ""


def run(
    spec: SandboxSpec,
    input: bytes = b"",  # noqa: A002 - the name subprocess.run has for it
    *,
    timeout_seconds: float = 30.0,
    spawner: Spawner | None = None,
) -> Finished:
    """Run `spec` to its end, killing it after `timeout_seconds`. Without `spawner` one is started and closed again.

    There is no proxy here: with `network="proxy"` every connection of the program is refused.

    Raises:
        SandboxUnsupported, SandboxSetupFailed: the program was not started.
        SpawnerGone: the fork server ended meanwhile.
    """
    if spawner is not None:
        return _Conversation(spawner, spec, input).finish(timeout_seconds)
    with contextlib.closing(Spawner.start()) as own:
        return _Conversation(own, spec, input).finish(timeout_seconds)


class _Conversation:
    """The three pipes of one program and the events about it; the only user of its spawner while it lasts."""

    def __init__(self, spawner: Spawner, spec: SandboxSpec, given: bytes) -> None:
        self._spawner = spawner
        self._unsent = given
        self._killed = False
        self._deadline = 0.0
        self._started: Spawned | None = None
        self._ended: Exited | None = None
        self._poll = select.poll()
        self._output: dict[int, bytearray] = {}
        child_in, self._stdin = os.pipe()
        self._stdout, child_out = os.pipe()
        self._stderr, child_err = os.pipe()
        try:
            spawner.spawn(0, spec, child_in, child_out, child_err)
        except BaseException:
            for fd in (self._stdin, self._stdout, self._stderr):
                os.close(fd)
            raise
        finally:
            for fd in (child_in, child_out, child_err):
                os.close(fd)
        os.set_blocking(self._stdin, False)
        for fd, events in (
            (self._stdin, select.POLLOUT),
            (self._stdout, select.POLLIN),
            (self._stderr, select.POLLIN),
        ):
            self._poll.register(fd, events)
        self._poll.register(spawner.fileno(), select.POLLIN)
        self._open = {self._stdin, self._stdout, self._stderr}
        self._output = {self._stdout: bytearray(), self._stderr: bytearray()}

    def finish(self, timeout_seconds: float) -> Finished:
        self._deadline = time.monotonic() + timeout_seconds
        try:
            while self._ended is None or self._open & self._output.keys():
                self._step()
        finally:
            for fd in tuple(self._open):
                self._close(fd)
        if self._started is None:
            raise SpawnerGone("the fork server reported an end without a start")
        stdout, stderr = (bytes(self._output[fd]) for fd in (self._stdout, self._stderr))
        return Finished(stdout, stderr, self._ended, self._started.layers, self._started.uncounted)

    def _step(self) -> None:
        ready = self._poll.poll(max(self._deadline - time.monotonic(), 0.0) * 1000)
        if not ready:
            self._give_up()
        for fd, _ in ready:
            if fd == self._spawner.fileno():
                self._take_events()
            elif fd == self._stdin:
                self._write()
            else:
                self._read(fd)

    def _give_up(self) -> None:
        """The time is over: kill, once, and give the news of that its own time to arrive."""
        if self._killed or self._started is None:
            raise SpawnerGone("the fork server did not answer in time")
        self._killed = True
        self._spawner.kill(self._started.worker, "timeout")
        self._deadline = time.monotonic() + _KILL_SECONDS

    def _take_events(self) -> None:
        for event in self._spawner.receive():
            match event:
                case SpawnFailed(_, error):
                    raise error
                case Spawned():
                    self._started = event
                    if event.listener is not None:
                        os.close(event.listener)  # nobody here would answer
                case Exited():
                    self._ended = event

    def _write(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._stdin, self._unsent[:_CHUNK]) :]
        except BrokenPipeError:
            self._unsent = b""
        if not self._unsent:
            self._close(self._stdin)

    def _read(self, fd: int) -> None:
        data = os.read(fd, _CHUNK)
        room = MAX_OUTPUT_BYTES - len(self._output[fd])
        self._output[fd] += data[:room]
        if not data:
            self._close(fd)

    def _close(self, fd: int) -> None:
        self._open.discard(fd)
        self._poll.unregister(fd)
        os.close(fd)
