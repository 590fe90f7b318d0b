"""Workers forked from a process that has imported already: as confined as any, and strangers to each other.

What is imported here attacks: it runs in the zygote, before any worker exists, and its code is what every worker's
confinement then runs through. Each attack is shown to be real by what it reaches where nothing keeps it from it.
"""

import contextlib
import ctypes
import os
import signal
from pathlib import Path

import pytest

from forked import parent, zygotes
from sandbox import LAYERS, SandboxSetupFailed, SandboxUnsupported, syscalls

pytestmark = pytest.mark.kernel

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
