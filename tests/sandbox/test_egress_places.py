"""A way out where there is less privilege: it holds as it does for root, or nothing starts."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from attacks import modes

pytestmark = pytest.mark.kernel

PROGRAM = """
import json, os, select, socket, sys
from sandbox import *
inside = '''
import socket
def seen(action):
    try: return str(action())
    except OSError as error: return error.strerror
print(seen(lambda: socket.create_connection(("127.0.0.1", 3128)).recv(9).decode()))
print(seen(lambda: socket.create_connection(("10.1.2.3", 443))))
print(seen(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
'''
spec = SandboxSpec(name="place", argv=("/usr/bin/python3", "-I", "-S", "-c", inside), network="proxy",
                   mounts=(Mount(source="/usr", target="/usr"),))
spawner = Spawner.start(name="place")
out, end = os.pipe()
null = os.open("/dev/null", os.O_RDWR)
spawner.spawn(1, spec, null, end, end)
os.close(end)
select.select([spawner], [], [], 20)
(event,) = spawner.receive()
if isinstance(event, SpawnFailed):
    said = {"refused": [status.layer for status in getattr(event.error, "layers", ())]}
else:
    listener = socket.socket(fileno=event.listener)
    listener.setblocking(True)
    connection, _ = listener.accept()
    connection.send(b"it is you")
    said = {"seen": os.fdopen(out).read().splitlines(),
            "netns": [status.reason for status in event.layers if status.layer == "netns"]}
spawner.close()
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def package() -> Iterator[Path]:
    # Not below pytest's own folder, which every other pytest on this machine closes to other users when it starts.
    with tempfile.TemporaryDirectory() as folder:
        yield modes.copy_package(Path(folder))


def said_in(place: modes.Place, package: Path) -> dict[str, list[str]]:
    command = modes.command(place, [modes.interpreter(place), "-c", PROGRAM])
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(package)}, cwd="/",
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
@pytest.mark.parametrize("name", ["root", "user"])
def test_a_way_out_is_the_only_one_for_root_and_for_an_ordinary_user(name, package):
    said = said_in(modes.PLACES[name], package)
    assert said["seen"] == ["it is you", "Permission denied", "Address family not supported by protocol"]
    assert "3128" in said["netns"][0]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a container's surroundings")
@pytest.mark.parametrize("name", ["container", "container-user"])
def test_where_there_is_no_network_namespace_there_is_no_way_out(name, package):
    assert said_in(modes.PLACES[name], package)["refused"] == ["netns"]
