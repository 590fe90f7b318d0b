"""One fork server for all tests of a module, and short ways to run a program in it."""

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox import Finished, Limits, Mount, SandboxSpec, Spawner, run

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


def groups() -> list[str]:
    """The control groups of every spawner now."""
    return [str(path) for path in Path("/sys/fs/cgroup").glob("**/sandbox.*") if path.is_dir()]


@pytest.fixture
def list_groups() -> Callable[[], list[str]]:
    return groups
