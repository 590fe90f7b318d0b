"""The socket that comes out of a worker's network has one owner at every moment, and none is left on any path."""

import contextlib
import ctypes
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from sandbox import Exited, SandboxSetupFailed, SandboxSpec, Spawned, Spawner, SpawnerGone, SpawnFailed
from sandbox.messages import Kill, decode_request, encode_event

ROUNDS = 3


def open_files(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def listening(pid: int) -> int:
    """How many sockets that listen on a worker's port a process of this user holds (pidfd_getfd(2))."""
    libc, count = ctypes.CDLL(None, use_errno=True), 0
    process = os.pidfd_open(pid)
    for name in os.listdir(f"/proc/{pid}/fd"):
        copied = libc.syscall(438, process, int(name), 0)
        if copied >= 0:
            with contextlib.suppress(OSError), socket.socket(fileno=copied) as one:
                count += one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and one.getsockname()[
                    1:2
                ] == (3128,)
                continue
            with contextlib.suppress(OSError):
                os.close(copied)
    os.close(process)
    return count


def wait_until(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    """What another process does by itself is announced by nothing."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        select.select([], [], [], 0.01)
    return True


def spawn(spawner: Spawner, spec: SandboxSpec, request: int = 1) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    try:
        spawner.spawn(request, spec, null, null, null)
    finally:
        os.close(null)


def next_event(spawner: Spawner, kind: type) -> object:
    """The next event of that kind; a listener in another is closed."""
    while True:
        assert select.select([spawner], [], [], 20)[0]
        for event in spawner.receive():
            if isinstance(event, kind):
                return event
            if isinstance(event, Spawned) and event.listener is not None:
                os.close(event.listener)


@pytest.mark.kernel
class TestRealWorkers:
    def test_the_socket_is_the_workers_own_and_close_on_exec(self, talk, make_spec):
        code = (
            "import socket; print(socket.create_connection(('127.0.0.1', 3128)).recv(9).decode(), flush=True)"
        )
        workers = [talk(make_spec(code, network="proxy")) for _ in range(2)]
        started = [workers[0].wait_for(Spawned) for _ in range(2)]
        texts = set()
        for number, event in enumerate(started):
            assert not os.get_inheritable(event.listener)
            with socket.socket(fileno=event.listener) as listener:
                listener.setblocking(True)
                connection, _ = listener.accept()
                with connection:
                    connection.send(f"you are {number}".encode())
        for worker in workers:
            workers[0].wait_for(Exited)
            texts.add(worker.read_line())
        assert texts == {"you are 0", "you are 1"}

    def test_a_worker_without_a_way_out_brings_no_socket(self, talk, make_spec):
        worker = talk(make_spec(""))
        assert worker.wait_for(Spawned).listener is None
        worker.wait_for(Exited)

    def test_the_one_that_nobody_serves_is_refused(self, says):
        code = (
            "import socket\ntry: socket.create_connection(('127.0.0.1', 3128))\n"
            "except ConnectionRefusedError: print('refused')"
        )
        assert says(code, network="proxy") == "refused"

    @pytest.mark.parametrize("argv", [("/bin/true",), ("/no/such/program",)])
    def test_starts_and_failed_starts_leave_none_on_either_side(self, make_spec, argv):
        with contextlib.closing(Spawner.start(name="descriptors")) as spawner:
            spec = make_spec("", argv=argv, network="proxy")
            here = []
            for _ in range(ROUNDS):
                spawn(spawner, spec)
                next_event(spawner, Exited if argv[0] == "/bin/true" else SpawnFailed)
                here.append(open_files())
            assert wait_until(lambda: listening(spawner.pid) == 0)
        assert len(set(here)) == 1

    def test_the_fork_server_holds_none_of_a_running_worker(self, make_spec):
        with contextlib.closing(Spawner.start(name="running")) as spawner:
            spawn(spawner, make_spec("import time; time.sleep(60)", network="proxy"))
            started = next_event(spawner, Spawned)
            assert listening(os.getpid()) == 1
            assert wait_until(lambda: listening(spawner.pid) == 0)  # it closes its own once ours is sent
            os.close(started.listener)

    def test_one_that_is_on_its_way_when_the_fork_server_dies_still_arrives_or_is_gone(self, make_spec):
        before = open_files()
        for _ in range(ROUNDS):
            with contextlib.closing(Spawner.start(name="dies")) as spawner:
                spawn(spawner, make_spec("import time; time.sleep(60)", network="proxy"))
                assert select.select([spawner], [], [], 20)[0]
                os.kill(spawner.pid, signal.SIGKILL)
                with contextlib.suppress(SpawnerGone):
                    event = next_event(spawner, Spawned)
                    os.close(event.listener)
        assert open_files() == before

    def test_one_that_this_process_has_no_descriptor_for_fails_the_start_and_ends_the_worker(self, make_spec):
        with contextlib.closing(Spawner.start(name="short")) as spawner:
            spawn(spawner, make_spec("import time; time.sleep(60)", network="proxy"), request=4)
            assert select.select([spawner], [], [], 20)[0]
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            highest = max(int(name) for name in os.listdir("/proc/self/fd"))
            with contextlib.ExitStack() as filler:
                for _ in range(highest + 1 - open_files() + 1):
                    filler.callback(os.close, os.open("/dev/null", os.O_RDONLY))
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
                try:
                    (event,) = spawner.receive()
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert isinstance(event, SpawnFailed)
            assert isinstance(event.error, SandboxSetupFailed)
            assert (event.request, event.error.step) == (4, "receive-listener")
            assert next_event(spawner, Exited).reason in {"killed", "signalled"}


@pytest.fixture
def pair() -> Iterator[tuple[Spawner, socket.socket]]:
    """A spawner whose fork server is this test."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen([sys.executable, "-c", ""])
    spawner = Spawner(process, ours, os.pidfd_open(process.pid))
    ours.setblocking(False)
    with theirs:
        yield spawner, theirs
    spawner.close()


def send(channel: socket.socket, packet: bytes, count: int) -> None:
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
    socket.send_fds(channel, [packet], fds)
    for fd in fds:
        os.close(fd)


def test_descriptors_that_come_with_nonsense_are_closed(pair):
    spawner, channel = pair
    before = open_files()
    for count, packet in ((2, b"{}"), (1, b"\xff"), (3, b"[]")):
        with contextlib.suppress(BrokenPipeError):
            send(channel, packet, count)
    with pytest.raises(SpawnerGone):
        spawner.receive()
    assert open_files() == before
    with pytest.raises(SpawnerGone):
        spawner.receive()


def test_of_several_descriptors_the_first_is_the_socket_and_the_others_are_closed(pair):
    spawner, channel = pair
    before = open_files()
    send(channel, encode_event(Spawned(1, 2, 3, (), 9)), 3)
    (event,) = spawner.receive()
    assert event == Spawned(1, 2, 3, (), event.listener)
    assert open_files() == before + 1
    os.close(event.listener)


def test_a_descriptor_that_no_event_speaks_of_is_closed(pair):
    spawner, channel = pair
    before = open_files()
    send(channel, encode_event(Spawned(1, 2, 3, ())), 1)
    assert spawner.receive() == [Spawned(1, 2, 3, ())]
    assert open_files() == before


def test_an_announced_socket_that_does_not_come_fails_the_start_and_kills(pair):
    spawner, channel = pair
    send(channel, encode_event(Spawned(1, 2, 3, (), 9)), 0)
    (event,) = spawner.receive()
    assert isinstance(event, SpawnFailed)
    request = decode_request(channel.recv(4096))
    assert isinstance(request, Kill)
    assert request.worker == 2


def test_events_before_nonsense_are_still_heard(pair):
    spawner, channel = pair
    send(channel, encode_event(Spawned(1, 2, 3, (), 9)), 1)
    send(channel, b"nonsense", 0)
    (event,) = spawner.receive()
    os.close(event.listener)
    with pytest.raises(SpawnerGone):
        spawner.receive()
