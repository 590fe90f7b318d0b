"""The ways to start a program that `benchmarks.spawn` sets beside each other, behind one form."""

import os
import select
import subprocess
import time
from dataclasses import dataclass, field
from typing import Protocol

from sandbox import Exited, Limits, Mount, SandboxSpec, Spawned, Spawner, SpawnFailed

WAIT_SECONDS = 30.0
LIMITS = Limits(memory_bytes=256 << 20, pids=64, cpu_millis=2000)
MOUNTS = (Mount(source="/usr", target="/usr"),)
# The same file system and namespaces as our worker gets: /usr, a /proc, a /dev, a /tmp of its own.
BWRAP = [
    "bwrap",
    "--unshare-all",
    "--die-with-parent",
    "--new-session",
    "--cap-drop",
    "ALL",
    "--clearenv",
    "--ro-bind",
    "/usr",
    "/usr",
    "--symlink",
    "usr/lib",
    "/lib",
    "--symlink",
    "usr/lib64",
    "/lib64",
    "--symlink",
    "usr/bin",
    "/bin",
    "--proc",
    "/proc",
    "--dev",
    "/dev",
    "--tmpfs",
    "/tmp",
]


@dataclass
class Start:
    """One start: seconds from its request to the program's first output, and to its end with nothing left open."""

    began: float
    output: int
    first: float = 0.0
    ended: float = 0.0
    process: "subprocess.Popen[bytes] | None" = None


class Starter(Protocol):
    """A way to start."""

    name: str

    def begin(self, argv: tuple[str, ...]) -> Start:
        """Ask for a start without waiting for it."""

    def finish(self, starts: list[Start]) -> None:
        """Wait until all have written and ended; fills in `first` and `ended`, closes their descriptors."""


def read_all(starts: list[Start], extra: "Spawner | None" = None, took: "list[int] | None" = None) -> None:
    """Wait until every output has ended; with `extra`, its events are counted into `took` meanwhile."""
    open_ones = {start.output: start for start in starts}
    while open_ones or (took is not None and len(took) < len(starts)):
        watched = [*open_ones, *([extra.fileno()] if extra and took is not None else [])]
        ready = select.select(watched, [], [], WAIT_SECONDS)[0]
        if not ready:
            raise TimeoutError("a start took too long")
        for fd in ready:
            if fd in open_ones:
                start, data = open_ones[fd], os.read(fd, 65536)
                start.first = start.first or time.perf_counter() - start.began
                if not data:
                    os.close(fd)
                    del open_ones[fd]
            elif extra is not None and took is not None:
                took.extend(_ended(extra))


def _ended(spawner: Spawner) -> list[int]:
    ended = []
    for event in spawner.receive():
        if isinstance(event, SpawnFailed):
            raise event.error
        if isinstance(event, Exited):
            if event.code != 0:
                raise RuntimeError(f"the program did not end well: {event}")
            ended.append(event.worker)
    return ended


@dataclass
class Command:
    """subprocess.Popen, with `prefix` in front of the program: nothing, or a sandboxing command."""

    name: str
    prefix: tuple[str, ...] = ()

    def begin(self, argv: tuple[str, ...]) -> Start:
        """See `Starter`."""
        reading, writing = os.pipe()
        start = Start(time.perf_counter(), reading)
        null = subprocess.DEVNULL
        start.process = subprocess.Popen([*self.prefix, *argv], stdin=null, stdout=writing, stderr=null)
        os.close(writing)
        return start

    def finish(self, starts: list[Start]) -> None:
        """See `Starter`."""
        read_all(starts)
        for start in starts:
            if start.process is None or start.process.wait() != 0:
                raise RuntimeError(f"{self.name}: the program did not end well")
            start.ended = time.perf_counter() - start.began


@dataclass
class Sandbox:
    """Our fork server."""

    spawner: Spawner
    name: str = "sandbox"
    null: int = field(default_factory=lambda: os.open("/dev/null", os.O_RDWR))
    spawned: list[Spawned] = field(default_factory=list)

    def begin(self, argv: tuple[str, ...]) -> Start:
        """See `Starter`."""
        reading, writing = os.pipe()
        start = Start(time.perf_counter(), reading)
        spec = SandboxSpec(name="bench", argv=argv, mounts=MOUNTS, limits=LIMITS)
        self.spawner.spawn(1, spec, self.null, writing, self.null)
        os.close(writing)
        return start

    def finish(self, starts: list[Start]) -> None:
        """See `Starter`."""
        took: list[int] = []
        read_all(starts, self.spawner, took)
        for start in starts:
            start.ended = time.perf_counter() - start.began
