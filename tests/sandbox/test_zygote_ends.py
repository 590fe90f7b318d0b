"""How zygotes and their workers begin together, end, and are followed; and forked workers beside the rest of it."""

import contextlib
import os
import select
import signal
import socket
import time
from pathlib import Path

import pytest

from forked import Asked, parent, wait_gone, zygotes
from sandbox import MIN_VOLUME_BYTES, Exited, SandboxSetupFailed, Spawned, Spawner, Volume, _nest, zygote_plan
from sandbox.doctor import diagnosis

pytestmark = pytest.mark.kernel

# --- ends -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "reason", "code", "signum"),
    [
        ("sys.exit(3)", "exited", 3, None),
        ("sys.exit()", "exited", 0, None),
        ("os.kill(os.getpid(), 11)", "signalled", None, 11),
        ("bytes(400 << 20)", "oom", None, 9),
    ],
)
def test_how_a_worker_ended_is_told(ask, serve, expression, reason, code, signum):
    worker = ask(serve())
    os.write(worker.conversation.stdin, f"{expression}\n".encode())
    ended = worker.ended()
    assert (ended.reason, ended.code, ended.signal) == (reason, code, signum)


def test_a_worker_gets_signals_and_can_be_killed(ask, serve, spawner):
    one, other = ask(serve()), ask(serve())
    spawner.signal(one.spawned.worker, signal.SIGTERM)
    assert (one.ended().signal, other("1")) == (signal.SIGTERM, 1)
    spawner.kill(other.spawned.worker)
    assert other.ended().reason == "killed"


@pytest.mark.parametrize("whom", ["zygote", "its init", "the worker's init"])
def test_after_a_kill_there_is_a_new_worker_and_nothing_of_the_old_one(ask, serve, whom):
    worker = ask(serve())
    (zygote,) = [pid for pid in zygotes() if parent(pid) == parent(worker.pid)]
    victim = {"zygote": zygote, "its init": parent(zygote), "the worker's init": worker.spawned.pid}[whom]
    inside = worker.pid
    assert victim > 1
    os.kill(victim, signal.SIGKILL)
    wait_gone(victim)
    if whom == "zygote":
        assert worker("1 + 1") == 2
    else:
        assert worker.ended().reason == "signalled"
        wait_gone(inside)
    assert again(ask, serve)("1 + 1") == 2


def again(ask, serve) -> Asked:
    """A worker, as soon as there is one: what was asked in the very moment of a death fails, and may be tried again."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return ask(serve())
        except SandboxSetupFailed:
            if time.monotonic() > deadline:
                raise


def test_a_zygote_is_replaced_after_enough_forks_and_its_workers_live_on(ask, serve):
    from sandbox.zygote.zygotes import MAX_FORKS, is_due

    assert (is_due(MAX_FORKS - 1, 0), is_due(MAX_FORKS, 0), is_due(0, 3600)) == (False, True, True)
    spec = serve()
    first = ask(spec)
    parents = {parent(first.pid)}
    for _ in range(MAX_FORKS):
        worker = ask(spec)
        parents.add(parent(worker.pid))
        os.write(worker.conversation.stdin, b"sys.exit()\n")
        worker.ended()
    assert len(parents) == 2
    assert first("1 + 1") == 2


def test_starts_that_come_at_once_each_get_a_worker(serve):
    spec, wanted = serve("def main():\n    print(sys.stdin.read())\n"), 8
    with contextlib.closing(Spawner.start(name="at-once")) as spawner, open("/dev/null", "rb") as nothing:
        reading, writing = os.pipe()
        for request in range(wanted):
            spawner.spawn(request, spec, nothing.fileno(), writing, writing)
        os.close(writing)
        events: list[object] = []
        while len([event for event in events if isinstance(event, Exited)]) < wanted:
            assert select.select([spawner], [], [], 20)[0], events
            events += spawner.receive()
        os.close(reading)
    assert {event.request for event in events if isinstance(event, Spawned)} == set(range(wanted))
    assert {event.code for event in events if isinstance(event, Exited)} == {0}


def test_nothing_is_left_of_zygotes_and_workers_when_the_fork_server_is_killed(ask, serve, talk):
    with contextlib.closing(Spawner.start(name="doomed")) as doomed:
        worker = ask(serve(), of=doomed)
        pids = [worker.pid, worker.spawned.pid, parent(worker.pid)]
        pids += [pid for pid in zygotes() if parent(pid) == parent(worker.pid)]
        assert len(pids) == 4
        signal.pidfd_send_signal(doomed.pidfd, signal.SIGKILL)
        for pid in pids:
            wait_gone(pid)


def test_the_first_worker_finds_a_zygote_that_was_prepared(serve, ask) -> None:
    with contextlib.closing(Spawner.start(name="ahead")) as spawner:
        spec = serve(env=(("TOKEN", "secret"),))
        spawner.prepare(spec)
        deadline = time.monotonic() + 10
        children = Path(f"/proc/{spawner._process.pid}/task/{spawner._process.pid}/children")
        while not [pid for pid in zygotes() if parent(parent(pid)) == spawner._process.pid]:
            assert time.monotonic() < deadline, children.read_text()
        assert ask(spec, of=spawner)("1") == 1


# --- together with the rest -----------------------------------------------------------------------------------------


def test_the_way_out_is_the_proxy_on_the_workers_own_loopback_and_nothing_else(ask, serve):
    worker = ask(serve("import socket\n", network="proxy"))
    with socket.socket(fileno=worker.spawned.listener) as listener:
        listener.settimeout(10)
        asked = "(lambda s: (s.connect(('127.0.0.1', {})), s.sendall(b'hello')))(socket.socket())"
        assert worker(asked.format(3128)) == (None, None)
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(16) == b"hello"
        assert worker(f"attempt(lambda: {asked.format(3129)})") == "Permission denied"
        assert worker("attempt(lambda: socket.socket(type=socket.SOCK_DGRAM))") == (
            "Address family not supported by protocol"
        )


def test_volumes_with_and_without_a_size_are_each_workers_own(ask, serve, tmp_path):
    workers = []
    for name in ("one", "other"):
        plain = tmp_path / name
        plain.mkdir()
        volumes = (
            Volume(source=str(plain), target="/plain"),
            Volume(source=str(tmp_path / f"{name}.img"), target="/sized", size_bytes=MIN_VOLUME_BYTES),
        )
        workers.append(ask(serve(volumes=volumes)))
    assert parent(workers[0].pid) == parent(workers[1].pid)
    assert [workers[0](f"open('/{place}/x', 'w').write('x')") for place in ("plain", "sized")] == [1, 1]
    assert workers[1]("(os.listdir('/plain'), 'x' in os.listdir('/sized'))") == ([], False)
    assert (
        workers[0]("attempt(lambda: open('/sized/full', 'wb').write(bytes(1 << 25)))")
        == "No space left on device"
    )


def test_the_doctor_and_the_fork_server_ask_for_the_same_layers():
    assert set(diagnosis.ZYGOTE_NEEDS) == zygote_plan.NEEDED


@pytest.mark.parametrize(
    "order", [(b"0", b"4711"), (b"4711", b"0")], ids=["the second first", "the first first"]
)
def test_both_who_help_at_a_birth_are_heard_of_whoever_speaks_first(order):
    """One that is not would never be reaped, and would hold up the end of the zygote and of the fork server."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for said in order:
            descriptor = os.pidfd_open(os.getpid())
            socket.send_fds(theirs, [said], [descriptor])
            os.close(descriptor)
        helpers = [17]
        made, failed = _nest._listen(ours, helpers)
    assert made is not None
    os.close(made.pidfd)
    assert (made.pid, failed, helpers) == (os.getpid(), 0, [17, 4711])
