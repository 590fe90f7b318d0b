"""One fork server for all tests of a module, and short ways to run a program in it."""

import contextlib
import os
import select
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from control_groups import groups_named
from forked import CODE, SERVER, Asked
from sandbox import (
    Exited,
    Finished,
    Limits,
    Mount,
    SandboxSpec,
    Spawned,
    Spawner,
    SpawnFailed,
    Zygote,
    run,
)

Event = TypeVar("Event")

PYTHON = os.path.realpath(f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}")
MOUNTS = tuple(
    Mount(source=path, target=path) for path in dict.fromkeys(["/usr", os.path.realpath(sys.base_prefix)])
)
LIMITS = Limits(memory_bytes=256 * 1024 * 1024, pids=64, cpu_millis=2000)


def python_spec(program: str, *arguments: str, **changes: object) -> SandboxSpec:
    """A Python program under the defaults, changed by `changes`."""
    argv = (PYTHON, "-I", "-S", "-c", program, *arguments)
    values: dict[str, object] = {"name": "test", "argv": argv, "mounts": MOUNTS, "limits": LIMITS}
    return SandboxSpec(**(values | changes))  # type: ignore[arg-type]


def shell_spec(program: str, **changes: object) -> SandboxSpec:
    """The same for a shell script."""
    return python_spec("", **{"argv": ("/bin/sh", "-c", program), **changes})


@pytest.fixture(scope="module")
def spawner() -> Iterator[Spawner]:
    with contextlib.closing(Spawner.start(name="tests")) as spawner:
        yield spawner


@pytest.fixture
def python(spawner: Spawner) -> Callable[..., Finished]:
    """Run a Python program in the sandbox and give what came of it."""
    return lambda program, *arguments, **changes: run(
        python_spec(program, *arguments, **changes), spawner=spawner
    )


@pytest.fixture
def shell(spawner: Spawner) -> Callable[..., Finished]:
    return lambda program, **changes: run(shell_spec(program, **changes), spawner=spawner)


@pytest.fixture
def says(python: Callable[..., Finished]) -> Callable[..., str]:
    """What a Python program prints in the sandbox; it must end well."""

    def run_it(program: str, *arguments: str, **changes: object) -> str:
        done = python(program, *arguments, **changes)
        assert done.ended.code == 0, (done.ended, done.stderr.decode())
        return done.stdout.decode().strip()

    return run_it


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A TCP port of this machine's own loopback, as the runtime has one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def make_spec() -> Callable[..., SandboxSpec]:
    return python_spec


@pytest.fixture
def make_shell_spec() -> Callable[..., SandboxSpec]:
    return shell_spec


class Conversation:
    """A started worker with its pipes, for tests that look at it while it runs."""

    def __init__(self, spawner: Spawner, spec: SandboxSpec) -> None:
        self.spawner = spawner
        self.events: list[object] = []
        inner_in, self.stdin = os.pipe()
        self.stdout, inner_out = os.pipe()
        spawner.spawn(7, spec, inner_in, inner_out, inner_out)
        for fd in (inner_in, inner_out):
            os.close(fd)

    def wait_for(self, kind: type[Event]) -> Event:
        """The next event of that kind; a failed start is raised."""
        while not (found := [event for event in self.events if isinstance(event, kind)]):
            if not select.select([self.spawner], [], [], 10)[0]:
                raise TimeoutError(f"no {kind.__name__} in 10 s; there were {self.events}")
            self.events += self.spawner.receive()
            for event in self.events:
                if isinstance(event, SpawnFailed):
                    raise event.error
        self.events.remove(found[0])
        return found[0]

    def read_line(self) -> str:
        line = b""
        while not line.endswith(b"\n") and (byte := os.read(self.stdout, 1)):
            line += byte
        return line.decode().strip()

    def close(self) -> None:
        os.close(self.stdin)
        os.close(self.stdout)


@pytest.fixture
def talk(spawner: Spawner) -> Iterator[Callable[..., Conversation]]:
    """Start a worker to talk to."""
    with contextlib.ExitStack() as stack:
        yield lambda spec, of=spawner: stack.enter_context(contextlib.closing(Conversation(of, spec)))


@pytest.fixture
def running(spawner: Spawner) -> Callable[[SandboxSpec], contextlib.AbstractContextManager[Spawned]]:
    """A worker that runs inside the block and is killed after it. One spawner's events go to whoever asks first."""

    @contextlib.contextmanager
    def run_it(spec: SandboxSpec) -> Iterator[Spawned]:
        conversation = Conversation(spawner, spec)
        with contextlib.closing(conversation):
            worker = conversation.wait_for(Spawned)
            yield worker
            spawner.kill(worker.worker)
            conversation.wait_for(Exited)

    return run_it


@pytest.fixture
def serve(make_spec, tmp_path: Path) -> Callable[..., SandboxSpec]:
    """A server whose module is SERVER and what the test adds; forked from a zygote that has imported it."""
    tmp_path.chmod(0o755)

    def make(
        imported: str = "", run: str = "served:main", argv: tuple[str, ...] = ("served",), **changes: object
    ):
        (tmp_path / "served.py").write_text(SERVER + imported)
        zygote = Zygote(
            interpreter=(PYTHON, "-S"),
            preload=("served",),
            run=run,
            argv=argv,
            settings=(("PYTHONPATH", CODE),),
        )
        spec = make_spec("", **{"zygote": zygote, "env": (("PATH", "/usr/bin"),), **changes})
        mounts = (*spec.mounts, Mount(source=str(tmp_path), target=CODE))
        return make_spec("", **{"zygote": zygote, "env": spec.env, "mounts": mounts, **changes})

    return make


@pytest.fixture
def ask(talk) -> Callable[..., Asked]:
    return lambda spec, **more: Asked(talk(spec, **more))


def groups() -> list[str]:
    """The control groups of every spawner now."""
    return [str(place) for place in groups_named("sandbox.*")]


@pytest.fixture
def list_groups() -> Callable[[], list[str]]:
    return groups
