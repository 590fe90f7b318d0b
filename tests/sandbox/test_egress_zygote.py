"""Workers forked from one zygote have a way out each, their own, and no other."""

import os
import socket
import sys

import pytest

from sandbox import Exited, Mount, Spawned, Zygote

pytestmark = pytest.mark.kernel

PYTHON = os.path.realpath(f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}")
# What the zygote imports listens before there is any worker, and tries to keep what it has for those that come.
SERVED = """
import socket
early = socket.socketpair()
def seen(action):
    try: return str(action())
    except OSError as error: return error.strerror
def main():
    print(seen(lambda: socket.create_connection(("127.0.0.1", 3128)).recv(9).decode()), flush=True)
    print(seen(lambda: socket.create_connection(("10.1.2.3", 443))), flush=True)
    print(seen(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)), flush=True)
    print(seen(lambda: socket.socket().bind(("127.0.0.1", 8080))), flush=True)
"""


def test_each_worker_of_a_zygote_has_its_own_way_out_and_no_other(talk, make_spec, tmp_path):
    (tmp_path / "served.py").write_text(SERVED)
    tmp_path.chmod(0o755)
    zygote = Zygote(
        interpreter=(PYTHON, "-S"), preload=("served",), run="served:main", argv=("served",),
        settings=(("PYTHONPATH", "/code"),),
    )  # fmt: skip
    mounts = (*make_spec("").mounts, Mount(source=str(tmp_path), target="/code"))
    changes = {"zygote": zygote, "env": (("PATH", "/usr/bin"),), "mounts": mounts, "network": "proxy"}
    workers = [talk(make_spec("", **changes)) for _ in range(2)]
    started = [workers[0].wait_for(Spawned) for _ in workers]
    for number, event in enumerate(started):
        states = {status.layer: status for status in event.layers}
        assert states["netns"].state == states["landlock"].state == states["seccomp"].state == "enforced"
        assert "3128" in states["netns"].reason
        with socket.socket(fileno=event.listener) as listener:
            listener.setblocking(True)
            with listener.accept()[0] as connection:
                connection.send(f"you are {number}".encode())
    seen = [[worker.read_line() for _ in range(4)] for worker in workers]
    for _ in workers:
        workers[0].wait_for(Exited)
    assert {lines[0] for lines in seen} == {"you are 0", "you are 1"}
    refused = ["Permission denied", "Address family not supported by protocol", "Permission denied"]
    assert [lines[1:] for lines in seen] == [refused, refused]
