"""Workers forked from a process that has imported already: as confined as any, and strangers to each other.

What is imported here attacks: it runs in the zygote, before any worker exists, and its code is what every worker's
confinement then runs through. Each attack is shown to be real by what it reaches where nothing keeps it from it.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox import (
    LAYERS,
    MIN_VOLUME_BYTES,
    Exited,
    Mount,
    SandboxSetupFailed,
    SandboxSpec,
    SandboxUnsupported,
    Spawned,
    Spawner,
    Volume,
    Zygote,
    _nest,
    syscalls,
    zygote_plan,
)
from sandbox.doctor import diagnosis

pytestmark = pytest.mark.kernel

PYTHON = os.path.realpath(f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}")
CODE = "/code"

# What every server here begins with: lines in, lines out, each evaluated where the worker stands.
SERVER = """
import os, sys
def attempt(action):
    try:
        return action()
    except OSError as error:
        return error.strerror
def main():
    for line in sys.stdin:
        print(repr(eval(line)), flush=True)
"""


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


class Asked:
    """A running worker that evaluates what it is asked."""

    def __init__(self, conversation) -> None:
        self.conversation = conversation
        self.spawned = conversation.wait_for(Spawned)

    def __call__(self, expression: str) -> object:
        os.write(self.conversation.stdin, f"{expression}\n".encode())
        return eval(self.conversation.read_line())

    def ended(self) -> Exited:
        """How it ended; earlier tests' workers end about now, too."""
        while (event := self.conversation.wait_for(Exited)).worker != self.spawned.worker:
            pass
        return event

    @property
    def pid(self) -> int:
        """The worker itself: it shares its user namespace with its init alone, and is the other one."""
        return next(pid for pid in members(self.spawned.pid) if pid != self.spawned.pid)


def members(init: int) -> list[int]:
    """The processes in a process's user namespace."""
    wanted, found = os.readlink(f"/proc/{init}/ns/user"), []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(entry / "ns" / "user") == wanted:
                found.append(int(entry.name))
    return found


@pytest.fixture
def ask(talk) -> Callable[..., Asked]:
    return lambda spec, **more: Asked(talk(spec, **more))


def zygotes() -> list[int]:
    """The zygotes on this machine: what runs with the stub, its program's text, as an argument."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            forked = (entry / "status").read_text().split("NSpid:")[1].splitlines()[0].split()
            if any(word.startswith(b'"""What runs in a server') for word in words) and len(forked) == 2:
                found.append(int(entry.name))
    return found


def parent(pid: int) -> int:
    """Whose child a process is; 0 when it has just ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/status").read_text().split("PPid:")[1].split()[0])
    return 0


def wait_gone(pid: int) -> None:
    """Until that process has ended."""
    with contextlib.suppress(ProcessLookupError):
        waiter = os.pidfd_open(pid)
        with os.fdopen(waiter):
            assert select.select([waiter], [], [], 20)[0], f"{pid} did not end"


# --- what a worker is ---------------------------------------------------------------------------------------------


def test_every_layer_of_such_a_worker_is_enforced_and_read_back(ask, serve):
    layers = ask(serve()).spawned.layers
    assert [(status.layer, status.state) for status in layers] == [(layer, "enforced") for layer in LAYERS]


@pytest.mark.parametrize("layer", ["landlock", "rlimits", "cgroup.memory", "cgroup.pids", "cgroup.cpu"])
def test_a_layer_left_out_on_purpose_is_reported_absent(ask, serve, layer):
    layers = ask(serve(disable=frozenset({layer, "rlimits"}))).spawned.layers
    assert {status.layer: status.state for status in layers}[layer] == "absent"


@pytest.mark.parametrize(
    "layer", ["userns", "pidns", "mountns", "netns", "rootfs", "seccomp", "capabilities"]
)
def test_no_zygote_without_the_layers_that_keep_its_workers_apart(ask, serve, layer):
    with pytest.raises(SandboxUnsupported, match="a zygote needs it"):
        ask(serve(disable=frozenset({layer})))


def test_what_a_worker_starts_with_is_what_exec_would_have_given_it(ask, serve, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    argv = ("served", "--flag")
    spec = serve(argv=argv, env=(("ONLY", "this"), ("TZ", "Asia/Tokyo")), cwd="/data", data=str(data))
    worker = ask(spec)
    assert worker("sys.argv") == list(argv)
    assert worker("dict(os.environ)") == {"ONLY": "this", "TZ": "Asia/Tokyo"}
    assert worker("__import__('time').strftime('%Z')") == "JST"
    assert worker("(os.getuid(), os.getcwd(), os.uname().nodename, os.getsid(0) == os.getpid())") == (
        65533, "/data", "test", True,
    )  # fmt: skip
    assert worker("sorted(os.listdir('/proc/self/fd'))[:3]") == ["0", "1", "2"]
    assert worker("[attempt(lambda: os.fstat(fd)) for fd in range(3, 64)]") == ["Bad file descriptor"] * 61
    assert worker("open('/data/kept', 'w').write('x')") == 1
    assert (data / "kept").read_text() == "x"
    assert worker("__import__('random').random()") != ask(spec)("__import__('random').random()")


def test_a_module_runs_as_the_main_program(ask, serve):
    worker = ask(
        serve("if __name__ == '__main__':\n    print('main', flush=True)\n    main()\n", run="served")
    )
    assert worker.conversation.read_line() == "main"
    assert worker("1 + 1") == 2


@pytest.mark.parametrize(
    ("expression", "seen"),
    [
        ("open('/usr/newfile', 'w')", "Read-only file system"),
        ("os.listdir('/var')", "No such file or directory"),
        ("__import__('socket').socket()", "Address family not supported by protocol"),
        ("os.kill(1, 0)", "Operation not permitted"),
        ("__import__('ctypes').CDLL(None, use_errno=True).setns(0, 0)", -1),
        ("os.chmod('/tmp', 0o700) or os.execv('/tmp/x', ['x'])", "No such file or directory"),
        ("os.pidfd_open(1)", "Operation not permitted"),
        ("[name for name in os.listdir('/proc') if name.isdigit() and int(name) != os.getpid()]", []),
    ],
)
def test_what_a_hostile_worker_tries_is_refused(ask, serve, expression, seen):
    assert ask(serve())(f"attempt(lambda: {expression})") == seen


def test_a_worker_executes_nothing_from_places_it_can_write(ask, serve):
    worker = ask(serve())
    copy = "(__import__('shutil').copy('/bin/true', '/tmp/true'), os.chmod('/tmp/true', 0o755))"
    assert worker(f"{copy} and attempt(lambda: os.execv('/tmp/true', ['true']))") == "Permission denied"


# --- workers and each other ----------------------------------------------------------------------------------------


def test_two_workers_of_one_zygote_do_not_see_each_other(ask, serve):
    spec = serve()
    one, other = ask(spec), ask(spec)
    assert parent(one.pid) == parent(other.pid)
    for worker in (one, other):
        assert worker("[name for name in os.listdir('/proc') if name.isdigit()]") == [
            str(worker("os.getpid()"))
        ]
    assert one("open('/tmp/mine', 'w').write('x')") == 1
    assert other("os.listdir('/tmp')") == []
    assert one.spawned.pid != other.spawned.pid
    users = [
        Path(f"/proc/{worker.pid}/status").read_text().split("Uid:")[1].split()[0] for worker in (one, other)
    ]
    assert users[0] != users[1]


def memory_holds(pid: int, text: bytes) -> bool:
    """Whether a process has `text` in memory that it can write."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, mode = line.split()[:2]
            first, last = (int(part, 16) for part in span.split("-"))
            if mode.startswith("rw") and "[v" not in line:
                memory.seek(first)
                with contextlib.suppress(OSError):
                    if text in memory.read(last - first):
                        return True
    return False


def test_a_secret_of_one_worker_is_in_its_memory_alone(ask, serve):
    secret = "canary-" + os.urandom(8).hex()
    holder = ask(serve(env=(("TOKEN", secret),)))
    other = ask(serve())
    assert memory_holds(holder.pid, secret.encode())
    assert not memory_holds(other.pid, secret.encode())
    (zygote,) = [pid for pid in zygotes() if parent(pid) == parent(holder.pid)]
    assert not memory_holds(zygote, secret.encode())
    assert other("os.environ.get('TOKEN')") is None


# --- modules that attack while they are imported -------------------------------------------------------------------

CHANNELS = {
    "a shared mapping": (
        "import mmap\nshared = mmap.mmap(-1, 4096)\n",
        "shares writable memory",
    ),
    "a thread": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n",
        "2 threads run in it",
    ),
    "a process": (
        "import time\nif os.fork() == 0:\n    time.sleep(1000)\n",
        "it left the process",
    ),
    "a daemon": (
        "import time\nif os.fork() == 0:\n    if os.fork() == 0:\n        time.sleep(1000)\n    os._exit(0)\nos.wait()\n",
        "was left beside it",
    ),
    "a descriptor, kept open against the stub": (
        "import socket\nkept = socket.socketpair()\nos.closerange = lambda *_: None\n",
        "its descriptor",
    ),
    "a worker that keeps its capabilities": (
        "sys.modules['__main__']._give_up = lambda order: os.setsid()\n",
        "its CapPrm is",
    ),
    "a worker without a filter of its own": (
        "sys.modules['__main__']._install_filter = lambda program: None\n",
        "it did not take its own system call filter",
    ),
    "a worker that never left": (
        "main = sys.modules['__main__']\nmain._call = lambda *_: 0\nmain._give_up = lambda order: None\n",
        "it is not in its userns",
    ),
    "a second worker in the same place": (
        """
before = sys.modules['__main__']._give_up
def twice(order):
    if real() == 0:
        import time
        time.sleep(1000)
    before(order)
real = os.fork
sys.modules['__main__']._give_up = twice
""",
        "it has a child",
    ),
    "namespaces kept for later": (
        """
import socket
real = socket.recv_fds
def keep(*arguments):
    packet, fds, flags, address = real(*arguments)
    kept.extend(os.dup(fd) for fd in fds)
    return packet, fds, flags, address
kept = []
socket.recv_fds = keep
""",
        "its descriptor",
    ),
    "an order only looked at": (
        """
import array, socket, time
def peek(channel, size, count):
    if channel.fileno() == 3:
        return real(channel, size, count)
    space = socket.CMSG_LEN(count * 4)
    if seen:
        time.sleep(1000)
    packet, ancillary, flags, address = channel.recvmsg(size, space, socket.MSG_PEEK)
    seen.append(1)
    return packet, [fd for _, _, data in ancillary for fd in array.array('i', data)], flags, address
real, seen = socket.recv_fds, []
socket.recv_fds = peek
""",
        "unread",
    ),
}


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_module_that_leaves_a_way_between_workers_starts_none(ask, serve, channel):
    imported, seen = CHANNELS[channel]
    with pytest.raises(SandboxSetupFailed, match=seen) as caught:
        ask(serve(imported))
    assert caught.value.retryable


def test_one_memory_in_two_processes_is_noticed():
    """Code that makes a worker share its zygote's memory would need no mapping that shows."""
    libc = ctypes.CDLL(None, use_errno=True)
    stack = ctypes.create_string_buffer(65536)
    top = ctypes.c_void_p((ctypes.addressof(stack) + len(stack)) & ~15)
    shared = libc.clone(libc.pause, top, 0x100 | signal.SIGCHLD, None)  # CLONE_VM
    apart = os.fork() or signal.pause()
    try:
        seen = [syscalls.shares(pid, os.getpid(), syscalls.KCMP_VM) for pid in (shared, apart)]
        assert seen == [True, False]
    finally:
        for pid in (shared, apart):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_what_is_refused_there_works_where_there_is_no_zygote(python):
    """The mapping that one test above makes is a way from a child to its parent: the kernel does not mind."""
    program = "import mmap, os\nm = mmap.mmap(-1, 1)\nif os.fork() == 0:\n    m[0] = 7\n    os._exit(0)\nos.wait()\nprint(m[0])"
    assert python(program).stdout == b"7\n"


def test_imports_are_confined(ask, serve):
    imported = """
import socket
def tried(action):
    try:
        return repr(action())
    except Exception as error:
        return type(error).__name__
seen = [
    tried(lambda: os.listdir('/data')), tried(lambda: os.listdir('/proc')), tried(lambda: socket.socket()),
    tried(lambda: open('/usr/x', 'w')), tried(lambda: os.getuid() >= 65536), tried(lambda: os.environ.get('TOKEN')),
    tried(lambda: open('/etc/shadow')),
]
"""
    worker = ask(serve(imported, env=(("TOKEN", "secret"),)))
    assert worker("seen") == [
        "FileNotFoundError",
        "[]",
        "OSError",
        "OSError",
        "True",
        "None",
        "FileNotFoundError",
    ]


def test_a_module_that_cannot_be_imported_is_a_failed_start_with_its_reason(ask, serve):
    with pytest.raises(SandboxSetupFailed, match="ZeroDivisionError"):
        ask(serve("1 / 0\n"))


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
