"""Where attacks are tried: in a worker of ours, under bubblewrap, or under nothing at all."""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from sandbox import Exited, Limits, Mount, SandboxSpec, Spawned, Spawner, SpawnFailed

SECONDS = 60.0
# A user that no machine has.
_NOBODY = 54322
# privileges.WORKER_ID
DATA_OWNER = 65533
LIMITS = Limits(memory_bytes=176 << 20, pids=48, cpu_millis=4000, file_size_bytes=50 << 20)
FEW_PROCESSORS = Limits(memory_bytes=176 << 20, pids=48, cpu_millis=200, file_size_bytes=50 << 20)


def python() -> str:
    """An interpreter that any user can run, wherever it is seen from."""
    return os.path.realpath(shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable)


def _argv(marker: str) -> tuple[str, ...]:
    program = Path(__file__).with_name("agent.py").read_text("utf-8")
    return (python(), "-I", "-S", "-c", program, marker)


class Target(Protocol):
    """A started agent: two descriptors to talk over, whose process it is, and ways to end it."""

    pid: int
    uid: int
    gid: int
    stdin: int
    stdout: int

    def ask_to_end(self) -> None:
        """SIGTERM, as far as that gets."""

    def kill(self) -> None:
        """End it, whatever it does."""

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within that time."""

    def close(self) -> None:
        """Let go of everything."""


class Lines:
    """What a target writes, line by line, within a time for everything."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = b""
        self.ended = False

    def read(self, seconds: float = SECONDS) -> Iterator[bytes]:
        """Lines until the end of the output or of the time."""
        deadline = time.monotonic() + seconds
        while not self.ended:
            while b"\n" in self._buffer:
                line, self._buffer = self._buffer.split(b"\n", 1)
                yield line
            if not select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return
            part = os.read(self._fd, 65536)
            self.ended = not part
            self._buffer += part


class Ours:
    """A worker of the fork server."""

    def __init__(self, spawner: Spawner, spec: SandboxSpec) -> None:
        self._spawner = spawner
        self._exited = False
        inner_in, self.stdin = os.pipe()
        self.stdout, inner_out = os.pipe()
        with open(os.devnull, "wb") as nowhere:
            spawner.spawn(1, spec, inner_in, inner_out, nowhere.fileno())
        os.close(inner_in)
        os.close(inner_out)
        self._worker = -1
        self.pid = 0
        self._take_events(SECONDS, until=Spawned)
        ids = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        self.uid, self.gid = (int(ids[name].split()[1]) for name in ("Uid", "Gid"))

    def _take_events(self, seconds: float, until: type) -> bool:
        deadline = time.monotonic() + seconds
        while select.select([self._spawner], [], [], max(0.0, deadline - time.monotonic()))[0]:
            for event in self._spawner.receive():
                if isinstance(event, SpawnFailed):
                    raise event.error
                if isinstance(event, Spawned):
                    self._worker, self.pid = event.worker, event.pid
                if isinstance(event, Exited):
                    self._exited = True
                if isinstance(event, until):
                    return True
        return False

    def ask_to_end(self) -> None:
        """See `Target`."""
        self._spawner.signal(self._worker, signal.SIGTERM)

    def kill(self) -> None:
        """See `Target`."""
        self._spawner.kill(self._worker)

    def wait(self, seconds: float) -> bool:
        """See `Target`."""
        return self._exited or self._take_events(seconds, until=Exited)

    def close(self) -> None:
        """See `Target`."""
        for fd in (self.stdin, self.stdout):
            with contextlib.suppress(OSError):
                os.close(fd)


class Program:
    """A process started in the plain way."""

    def __init__(self, argv: list[str], *, careless: bool, user: int | None = None) -> None:
        """With `careless` it inherits an open directory and the environment, as a child does by default."""
        held = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(held,) if careless else (),
            user=user,
            group=user,
            extra_groups=None if user is None else (),
        )
        os.close(held)
        assert self._process.stdin
        assert self._process.stdout
        self.stdin, self.stdout = os.dup(self._process.stdin.fileno()), os.dup(self._process.stdout.fileno())
        self._process.stdin.close()
        self._process.stdout.close()
        self.pid, self.uid, self.gid = self._process.pid, os.geteuid(), os.getegid()
        if user is not None:
            self.uid = self.gid = user

    def ask_to_end(self) -> None:
        """See `Target`."""
        self._process.terminate()

    def kill(self) -> None:
        """See `Target`."""
        self._process.kill()

    def wait(self, seconds: float) -> bool:
        """See `Target`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def close(self) -> None:
        """See `Target`."""
        self._process.kill()
        self._process.wait()
        for fd in (self.stdin, self.stdout):
            with contextlib.suppress(OSError):
                os.close(fd)


def ours(
    spawner: Spawner, base: Path, marker: str, off: frozenset[str] = frozenset(), limits: Limits = LIMITS,
    maps_data: bool = True,
) -> Ours:  # fmt: skip
    """A worker with the layers `off` left out. Without `maps_data` its data directory is a plain writable mount."""
    data = Mount(source=str(base / "data"), target="/data", writable=True)
    spec = SandboxSpec(
        name="attack",
        argv=_argv(marker),
        cwd="/tmp",
        mounts=(
            Mount(source="/usr", target="/usr"),
            Mount(source=str(base / "exhibits"), target="/exhibits"),
            *(() if maps_data else (data,)),
        ),
        data=str(base / "data") if maps_data else None,
        limits=limits,
        disable=off,
    )
    return Ours(spawner, spec)


def plain(marker: str) -> Program:
    """A child like any other: what every start of ours changes is not changed."""
    return Program(list(_argv(marker)), careless=True)


def bare(marker: str) -> Program:
    """A child of an ordinary user's with nothing around it: what fails here is held by the place, not by us."""
    return Program(list(_argv(marker)), careless=True, user=_NOBODY if os.geteuid() == 0 else None)


def bubblewrap(base: Path, marker: str) -> Program:
    """Bubblewrap in its usual form, with the files that a worker of ours gets."""
    links = [
        word for name in ("lib", "lib64", "bin", "sbin") for word in ("--symlink", f"usr/{name}", f"/{name}")
    ]
    options = ["--unshare-all", "--ro-bind", "/usr", "/usr", *links, "--proc", "/proc", "--dev", "/dev"]
    options += ["--tmpfs", "/tmp", "--die-with-parent", "--new-session"]
    options += ["--bind", str(base / "data"), "/data", "--ro-bind", str(base / "exhibits"), "/exhibits"]
    return Program(["bwrap", *options, *_argv(marker)], careless=False)


def end_leftovers(marker: str) -> int:
    """Kill whoever still carries the marker; how many there were."""
    found = 0
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            if marker.encode() in (place / "cmdline").read_bytes() and int(place.name) != os.getpid():
                os.kill(int(place.name), signal.SIGKILL)
                found += 1
    return found


def remove_leftovers(marker: str) -> None:
    """What an attack that succeeded and was killed left in the machine's own scratch space."""
    for place in ("/tmp", "/dev/shm"):
        for left in Path(place).glob(f"{marker}*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
