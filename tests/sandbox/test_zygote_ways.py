"""Ways between a zygote and its workers that are neither memory nor a descriptor with a name of its own.

What is imported here attacks as in `test_zygote`.
"""

import os
import signal
import socket

import pytest

from sandbox import SandboxSetupFailed
from sandbox.zygote import inspection

pytestmark = pytest.mark.kernel

# The zygote goes to stand in its worker's root, where it would later find what that worker's tenant has mounted.
STANDS_INSIDE = """
import socket, time
stub = sys.modules['__main__']
real_fork, real_give_up = os.fork, stub._give_up
pair, forks, stolen = None, 0, None
def fork():
    global pair, forks, stolen
    if pair is not None:
        return real_fork()
    forks += 1
    if forks > 1:
        for _ in range(100):
            try:
                stolen = {name: open('data/' + name).read() for name in os.listdir('data')}
            except OSError as error:
                stolen = str(error)
            if stolen:
                break
            time.sleep(0.1)
        return real_fork()
    pair = socket.socketpair()
    pid = real_fork()
    if pid:
        pair[1].close()
        _, fds, _, _ = socket.recv_fds(pair[0], 1, 1)
        os.fchdir(fds[0])
        os.close(fds[0])
        pair[0].close()
        pair = None
    return pid
def give_up(order):
    real_give_up(order)
    if forks == 1:
        socket.send_fds(pair[1], [b'x'], [os.open('/', os.O_RDONLY | os.O_DIRECTORY)])
os.fork, stub._give_up = fork, give_up
"""


# The zygote maps, for reading, a file that its worker can open to write later.
MAPS_A_FILE = """
import ctypes, socket
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
stub = sys.modules['__main__']
real_fork, real_give_up = os.fork, stub._give_up
pair, kept = None, None
def fork():
    global pair, kept
    if pair is not None:
        return real_fork()
    pair = socket.socketpair()
    pid = real_fork()
    if pid:
        pair[1].close()
        _, fds, _, _ = socket.recv_fds(pair[0], 1, 1)
        kept = libc.mmap(None, 4096, 1, 2, fds[0], 0)
        os.close(fds[0])
        pair[0].close()
        pair = None
    return pid
def give_up(order):
    real_give_up(order)
    with open('/tmp/f', 'wb') as file:
        file.write(bytes(4096))
    socket.send_fds(pair[1], [b'x'], [os.open('/tmp/f', os.O_RDONLY)])
os.fork, stub._give_up = fork, give_up
"""


@pytest.mark.parametrize(
    ("imported", "seen"),
    [
        (STANDS_INSIDE, "it went to another directory or root"),
        (MAPS_A_FILE, "it has mapped a file that its worker can write to"),
    ],
    ids=["a directory", "a mapped file"],
)
def test_a_zygote_that_could_see_into_its_worker_later_starts_none(ask, serve, tmp_path, imported, seen):
    (tmp_path / "data").mkdir()
    with pytest.raises(SandboxSetupFailed, match=seen):
        ask(serve(imported, data=str(tmp_path / "data")))


def test_workers_of_one_zygote_have_no_open_file_in_common(ask, serve):
    """Its settings would be a way between them: here the signal that it sends (fcntl(2), F_SETSIG)."""
    imported = """
import fcntl
stub = sys.modules['__main__']
real_start = stub.start
def start(gate, go, streams):
    os.dup2(0, 50)
    real_start(gate, go, streams)
stub.start = start
"""
    one, other = ask(serve(imported)), ask(serve(imported))
    assert one("fcntl.fcntl(50, 10, 37)") == 0
    assert other("fcntl.fcntl(50, 11)") == 0


def test_a_worker_that_keeps_an_open_file_of_its_zygote_is_not_started(ask, serve):
    reuse = "real_dup2 = os.dup2\nos.dup2 = lambda a, b, *_, **__: real_dup2(a, b, False) if b == 3 else b\n"
    with pytest.raises(SandboxSetupFailed, match="a standard stream of the zygote's"):
        ask(serve(reuse))


def test_nothing_untrusted_can_hand_a_descriptor_to_the_fork_server():
    """Closing one may take as long as its sender likes, as with a connection that lingers (socket(7), SO_LINGER)."""
    ours, theirs = inspection.channel()
    with ours, theirs:
        try:
            socket.send_fds(theirs, [b"{}"], [0])
        except PermissionError:
            return
        pytest.skip("SO_PASSRIGHTS needs Linux 6.16")


def test_a_process_that_went_on_and_stopped_again_did_not_stand_still():
    child = os.fork()
    if child == 0:
        while True:
            os.kill(os.getpid(), signal.SIGSTOP)
    try:
        os.waitpid(child, os.WUNTRACED)
        before = inspection.turns(child)
        assert inspection.turns(child) == before
        os.kill(child, signal.SIGCONT)
        os.waitpid(child, os.WUNTRACED)
        after = inspection.turns(child)
        assert before[0] == after[0] == "T (stopped)"
        assert before != after
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
