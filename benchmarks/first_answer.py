"""How long a server written with the Python SDK takes from its start to its first answer, and what memory is its own.

Beside each other: plain subprocess, a confined worker by exec, and one forked from a zygote.
"""

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox import Exited, Limits, Mount, SandboxSpec, Spawned, Spawner, SpawnFailed, Zygote

SERVER = Path(__file__).with_name("echo_server.py")
WAIT_SECONDS = 60.0
PYTHON = os.path.realpath(f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}")
PACKAGES = sysconfig.get_path("purelib")
LIMITS = Limits(memory_bytes=512 << 20, pids=64, cpu_millis=4000)
SETTINGS = {"PYTHONPATH": f"/code:{PACKAGES}", "PYTHONDONTWRITEBYTECODE": "1"}

_CLIENT = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "bench", "version": "1"},
}
_ASKED = [
    {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": _CLIENT},
    {"jsonrpc": "2.0", "method": "notifications/initialized"},
    {
        "jsonrpc": "2.0",
        "id": 2,
        "method": "tools/call",
        "params": {"name": "echo", "arguments": {"text": "x"}},
    },
]


@dataclass(frozen=True)
class Answered:
    """Milliseconds to the first answer; KiB that no other process shares, the init's of ours included."""

    milliseconds: float
    private_kib: int


def ask(to: int, of: int) -> None:
    """Say hello, call the tool, wait for what it answers."""
    for message in _ASKED:
        os.write(to, json.dumps(message).encode() + b"\n")
        if "id" in message:
            line = b""
            while not line.endswith(b"\n"):
                if not select.select([of], [], [], WAIT_SECONDS)[0] or not (part := os.read(of, 65536)):
                    raise RuntimeError(f"no answer to {message['method']}")
                line += part
            if "result" not in json.loads(line.splitlines()[-1]):
                raise RuntimeError(f"no result: {line!r}")


def private_kib(pids: list[int]) -> int:
    """Memory that is these processes' alone (proc_pid_smaps(5))."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Private_Clean", "Private_Dirty")):
                total += int(line.split()[1])
    return total


def plain() -> Answered:
    """As any MCP client starts it."""
    began = time.perf_counter()
    environment = {"PATH": "/usr/bin:/bin"}
    process = subprocess.Popen([sys.executable, SERVER], stdin=-1, stdout=-1, stderr=-3, env=environment)
    with process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("pipes were asked for")
        ask(process.stdin.fileno(), process.stdout.fileno())
        took = (time.perf_counter() - began) * 1e3
        private = private_kib([process.pid])
        process.kill()
    return Answered(took, private)


class Confined:
    """Our workers; by exec, or from a zygote."""

    def __init__(self, spawner: Spawner, code: str, *, zygote: bool) -> None:
        self._spawner = spawner
        places = dict.fromkeys(["/usr", os.path.realpath(sys.base_prefix), os.path.realpath(sys.prefix)])
        mounts = (
            *(Mount(source=place, target=place) for place in places),
            Mount(source=code, target="/code"),
        )
        values: dict[str, Any] = {
            "name": "bench",
            "argv": (PYTHON, "-m", "echo_server"),
            "env": tuple(SETTINGS.items()),
            "mounts": mounts,
            "limits": LIMITS,
        }
        if zygote:
            values["zygote"] = Zygote(
                interpreter=(PYTHON, "-S"),
                preload=("echo_server",),
                run="echo_server:main",
                argv=("echo_server",),
                settings=tuple(SETTINGS.items()),
            )
        self._spec = SandboxSpec(**values)

    def __call__(self) -> Answered:
        """One start."""
        null = os.open("/dev/null", os.O_RDWR)
        their_in, to = os.pipe()
        of, their_out = os.pipe()
        began = time.perf_counter()
        self._spawner.spawn(1, self._spec, their_in, their_out, null)
        for fd in (their_in, their_out, null):
            os.close(fd)
        ask(to, of)
        took = (time.perf_counter() - began) * 1e3
        started = self._wait(Spawned)
        private = private_kib(_members(started.pid))
        self._spawner.kill(started.worker)
        self._wait(Exited)
        os.close(to)
        os.close(of)
        return Answered(took, private)

    def _wait(self, kind: type) -> Any:
        while True:
            if not select.select([self._spawner], [], [], WAIT_SECONDS)[0]:
                raise TimeoutError(f"no {kind.__name__}")
            for event in self._spawner.receive():
                if isinstance(event, SpawnFailed):
                    raise event.error
                if isinstance(event, kind):
                    return event


def _members(init: int) -> list[int]:
    """The processes in the user namespace of an init."""
    wanted, found = os.readlink(f"/proc/{init}/ns/user"), []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.readlink(entry / "ns" / "user") == wanted:
                found.append(int(entry.name))
    return found


@contextmanager
def _code() -> Iterator[str]:
    """A folder that holds the server alone."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        os.chmod(folder, 0o755)
        shutil.copy(SERVER, folder)
        yield folder


def first_answers(spawner: Spawner, turns: int) -> dict[str, list[Answered]]:
    """By way of starting, `turns` of each, taken in turns."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    with _code() as code:
        ways = {
            "subprocess": plain,
            "sandbox, exec": Confined(spawner, code, zygote=False),
            "sandbox, zygote": Confined(spawner, code, zygote=True),
        }
        for way in ways.values():
            way()
        answers: dict[str, list[Answered]] = {name: [] for name in ways}
        for _ in range(turns):
            for name in random.sample(list(ways), len(ways)):
                answers[name].append(ways[name]())
    return answers
