"""Attacks on what everybody shares: memory, processes, descriptors, time; and on being ended."""

import ctypes
import errno
import os
import resource
import signal
import socket
import struct
import threading
import time
from contextlib import suppress

from attacks.attack import Canaries, Rows
from attacks.hostile import call, end_all

rows = Rows("resources")

_NO_GROUP = "no control groups there, and no limit of a process that would do: `require` is how to insist"
# An init that keeps signals among its own ends them at one stroke. Where the machine has no pid namespaces, the fork
# server also looks for whoever is left, and that cannot be left out.
_FOLLOWED = ("landlock:6+pidns", "start!pidns")

# More than any cap of these tests, and nothing to a machine.
MANY = 100


@rows("cgroup.pids", "rlimits")
def have_more_processes_than_allowed(_: Canaries) -> object:
    children: list[int] = []
    try:
        for _number in range(MANY):
            pid = os.fork()
            if pid == 0:
                signal.alarm(5)
                signal.pause()
                os._exit(0)
            children.append(pid)
    finally:
        end_all(children)
    return True


@rows("cgroup.pids", "rlimits")
def have_more_threads_than_allowed(_: Canaries) -> object:
    done = threading.Event()
    started = []
    try:
        for _number in range(MANY):
            thread = threading.Thread(target=done.wait, args=(5,))
            thread.start()
            started.append(thread)
    finally:
        done.set()
        for thread in started:
            thread.join()
    return True


@rows("cgroup.pids", "rlimits")
def leave_dead_children_unreaped(_: Canaries) -> object:
    children: list[int] = []
    try:
        for _number in range(MANY):
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            children.append(pid)
    finally:
        end_all(children)
    return True


@rows("rlimits")
def open_more_descriptors_than_allowed(_: Canaries) -> object:
    held: list[int] = []
    try:
        held.extend(os.open("/dev/null", os.O_RDONLY) for _number in range(300))
    finally:
        for fd in held:
            os.close(fd)
    return True


@rows("rlimits")
def write_a_larger_file_than_allowed(c: Canaries) -> object:
    path = f"{c['data']}/large"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        os.pwrite(fd, b"x", 60 << 20)
    finally:
        os.close(fd)
        os.unlink(path)
    return True


@rows("rlimits")
def pin_more_memory_than_allowed(_: Canaries) -> object:
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    block = ctypes.create_string_buffer(1 << 20)
    return soft and call("mlock", ctypes.addressof(block), 1 << 20) == 0


@rows("rlimits")
def queue_more_signals_than_allowed(_: Canaries) -> object:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
    info = struct.pack("=iii4xii8x", int(signal.SIGRTMIN), 0, -1, os.getpid(), os.getuid()) + bytes(96)
    for _number in range(2000):
        call("rt_sigqueueinfo", os.getpid(), int(signal.SIGRTMIN), info)
    return True


@rows("rlimits")
def make_more_timers_than_allowed(_: Canaries) -> object:
    identity = ctypes.create_string_buffer(8)
    for _number in range(2000):
        call("timer_create", 1, 0, identity)
    return True


@rows("userns", "seccomp!rootfs")
def use_up_the_watchers_of_a_user(_: Canaries) -> object:
    for _number in range(40):
        call("inotify_init1", 0)
    return True


@rows("cgroup.memory", alone=True, degraded=_NO_GROUP)
def use_more_memory_than_allowed(_: Canaries) -> object:
    block = bytearray()
    for _number in range(24):
        block += b"x" * (10 << 20)
    return len(block)


@rows("cgroup.memory", alone=True, degraded=_NO_GROUP)
def use_more_memory_than_allowed_in_a_file_of_memory(_: Canaries) -> object:
    """It belongs to no process and no mount with a size."""
    total = 0
    for _number in range(5):
        fd = os.memfd_create("hoard")
        for _part in range(45):
            total += os.write(fd, b"x" * (1 << 20))
    return total


@rows("cgroup.memory", alone=True, degraded=_NO_GROUP)
def use_more_memory_than_allowed_in_many_processes(_: Canaries) -> object:
    children: list[int] = []
    ready, end = os.pipe()

    def note(*_: object) -> None:
        raise ChildProcessError(errno.ENOMEM, "one was killed")

    signal.signal(signal.SIGCHLD, note)
    try:
        for _number in range(12):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                _block = bytearray(b"x" * (20 << 20))
                os.write(end, b"x")
                signal.pause()
                os._exit(0)
            children.append(pid)
        os.close(end)
        got = b""
        while part := os.read(ready, 100):
            got += part
            if len(got) == len(children):
                break
        return len(got) == len(children)
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        end_all(children)


@rows("cgroup.cpu", alone=True, witness="throttled", degraded=_NO_GROUP)
def use_more_of_the_processors_than_allowed(_: Canaries) -> object:
    """Enough work for several periods of the cap; whether it was held back is read from its group."""
    end = time.process_time() + 0.15
    while time.process_time() < end:
        pass
    return True


@rows("pidns", "groups", *_FOLLOWED, alone=True, witness="left")
def leave_a_daemon_behind(_: Canaries) -> object:
    """Twice forked, a session of its own, its parent-death signal cleared, deaf to every signal that can be refused."""
    _daemon()
    return True


@rows("pidns", "groups", *_FOLLOWED, alone=True, witness="left")
def leave_a_child_behind_that_holds_the_output(_: Canaries) -> object:
    if os.fork() == 0:
        call("prctl", 1, 0, 0, 0, 0)
        signal.alarm(20)
        while True:
            signal.pause()
    return True


@rows("pidns", "groups", *_FOLLOWED, alone=True, witness="left")
def run_away_by_being_born_again_and_again(_: Canaries) -> object:
    """Whoever kills by a list of processes comes too late for each."""
    if os.fork() == 0:
        os.setsid()
        call("prctl", 1, 0, 0, 0, 0)
        # Bounded, for the machines on which this works: then the last of the line stays for a while.
        end = time.monotonic() + 1.0
        with suppress(OSError):
            while time.monotonic() < end:
                if os.fork():
                    os._exit(0)
        signal.alarm(20)
        signal.pause()
        os._exit(0)
    return True


@rows("kill", alone=True, first=True, witness="left")
def refuse_to_end_when_asked(_: Canaries) -> object:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    _say_ready()
    signal.alarm(20)
    while True:
        signal.pause()


@rows("kill", alone=True, first=True, witness="left")
def stop_itself_so_as_not_to_notice(_: Canaries) -> object:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    _say_ready()
    os.kill(os.getpid(), signal.SIGSTOP)
    return True


@rows("kill", alone=True, first=True, witness="left")
def wait_for_a_child_that_never_ends(_: Canaries) -> object:
    """A parent in vfork sleeps in the kernel, deaf to all but SIGKILL."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    if call("clone", 0x4000 | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        _say_ready()
        signal.alarm(20)
        while True:
            signal.pause()
    return True


@rows("pidns", "landlock:6", alone=True, witness="stopped")
def stop_its_own_supervisor(c: Canaries) -> object:
    """init, which is to notice when this ends. In a pid namespace of its own it is out of reach for signals."""
    os.kill(c["supervisor"], signal.SIGSTOP)
    return True


@rows("seccomp", "netns", "landlock:4", alone=True)
def listen_where_the_host_can_be_reached(c: Canaries) -> object:
    with socket.create_server(("127.0.0.1", c["free"])) as server:
        server.settimeout(5)
        _say_ready()
        connection, _ = server.accept()
        return connection.recv(10) == b"hello"


def _say_ready() -> None:
    os.write(1, b'["ready"]\n')


def _daemon() -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        call("prctl", 1, 0, 0, 0, 0)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        # Where nothing ends it, it ends itself.
        signal.alarm(20)
        while True:
            signal.pause()
