"""Denied calls are refused as the profile says, counted by name, and nobody is held up by who makes many of them."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import Denied, Exited, Spawned, syscalls
from sandbox.seccomp import bpf, filters

pytestmark = pytest.mark.kernel

TRY = """
import ctypes, os, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(number, *arguments):
    answer = libc.syscall(number, *(ctypes.c_long(item) for item in arguments))
    return ctypes.get_errno() if answer < 0 else "done"
"""
FLOOD = TRY + "while True: attempt({unshare}, 0)\n"
NUMBERS = filters.numbers(syscalls.MACHINE)
FLOOD = FLOOD.replace("{unshare}", str(NUMBERS["unshare"]))


def numbers_of(*names: str) -> list[str]:
    return [str(NUMBERS[name]) for name in names]


def test_every_refusal_is_counted_by_name_and_answered_as_the_profile_says(python):
    names = ("unshare", "keyctl", "keyctl", "socket", "personality")
    program = "print([attempt(int(number), 16, 3, 0, 0, 0, 0) for number in sys.argv[1:]])"
    done = python(TRY + program, *numbers_of(*names))
    assert done.stdout.decode().strip() == "[1, 1, 1, 97, 1]"
    assert done.ended.denied_calls == {"unshare": 1, "keyctl": 2, "socket": 1, "personality": 1}
    assert done.uncounted == ""


def test_calls_that_are_let_through_or_answered_without_effect_are_not_counted(python):
    program = "print([attempt(int(number), 0, 0, 0) for number in sys.argv[1:]], attempt(2000))"
    done = python(TRY + program, *numbers_of("getppid", "sync", "clone3"))
    assert done.stdout.decode().strip() == "['done', 'done', 38] 38"
    assert done.ended.denied_calls == {}


def test_what_a_descendant_is_refused_counts_for_the_worker(python):
    program = (
        "for _ in range(3):\n    if not os.fork():\n        os.setsid()\n        attempt(int(sys.argv[1]), 0); os._exit(0)\n"
        "    os.wait()"
    )
    assert python(TRY + program, *numbers_of("unshare")).ended.denied_calls == {"unshare": 3}


def test_the_listener_is_never_seen_by_the_program(says):
    program = "print(sorted(os.readlink(f'/proc/self/fd/{fd}').split(':')[0] for fd in os.listdir('/proc/self/fd') if fd in '012' or os.path.exists(f'/proc/self/fd/{fd}')))"
    assert says("import os\n" + program) == "['pipe', 'pipe', 'pipe']"


def test_a_count_arrives_while_the_worker_runs(talk, make_spec):
    program = TRY + "attempt(int(sys.argv[1]), 0); sys.stdin.read()"
    worker = talk(make_spec(program, *numbers_of("unshare")))
    started = worker.wait_for(Spawned)
    assert worker.wait_for(Denied) == Denied(started.worker, {"unshare": 1})
    worker.spawner.kill(started.worker)
    assert worker.wait_for(Exited).denied_calls == {"unshare": 1}


@pytest.mark.parametrize("end", ["signal", "kill"])
def test_a_flood_of_denied_calls_holds_up_neither_a_signal_nor_a_kill(talk, make_spec, end):
    program = "import os, signal; os.fork(); os.fork()\n" + FLOOD
    worker = talk(make_spec(program))
    started = worker.wait_for(Spawned)
    worker.wait_for(Denied)
    if end == "signal":
        worker.spawner.signal(started.worker, signal.SIGTERM)
    else:
        worker.spawner.kill(started.worker)
    ended = worker.wait_for(Exited)
    assert (ended.reason, ended.signal) == (("signalled", 15) if end == "signal" else ("killed", 9))
    assert ended.denied_calls["unshare"] > 0


def test_callers_that_are_killed_in_the_middle_hold_nobody_up(python):
    program = """
for _ in range(20):
    children = [os.fork() for _ in range(2)]
    if 0 in children:
        while True: attempt(int(sys.argv[1]), 0)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
print(attempt(int(sys.argv[1]), 0))
"""
    done = python(TRY + program, *numbers_of("unshare"))
    assert (done.stdout.decode().strip(), done.ended.code) == ("1", 0)
    assert done.ended.denied_calls["unshare"] >= 1


def test_a_filter_of_the_workers_own_takes_nothing_back(python):
    """Its own listener is refused, for ours is there; a filter that allows everything allows nothing that we refuse."""
    allow_all = bpf.program({}, bpf.ALLOW, syscalls.MACHINE).hex()
    program = """
import struct
code = bytes.fromhex(sys.argv[2])
held = ctypes.create_string_buffer(code, len(code))
header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(held)))
for flags in (8, 0):
    print(attempt(int(sys.argv[3]), 1, flags, ctypes.addressof(header)), end=" ")
print(attempt(int(sys.argv[1]), 0))
"""
    unshare, filter_call = numbers_of("unshare", "seccomp")
    done = python(TRY + program, unshare, allow_all, filter_call)
    assert done.stdout.decode().strip() == "16 done 1"
    assert done.ended.denied_calls == {"unshare": 1}


@pytest.mark.parametrize("disable", [("pidns",), ("userns",), ("netns", "ipcns", "pidns")])
def test_counting_works_whatever_namespaces_there_are(python, disable):
    done = python(TRY + "attempt(int(sys.argv[1]), 0)", *numbers_of("unshare"), disable=frozenset(disable))
    assert done.ended.denied_calls == {"unshare": 1}


def test_without_the_filter_nothing_is_counted_and_the_reason_is_said(python):
    done = python(
        TRY + "attempt(int(sys.argv[1]), 0)", *numbers_of("unshare"), disable=frozenset({"seccomp"})
    )
    assert (done.ended.denied_calls, done.uncounted) == ({}, "seccomp is not in force")


def test_below_a_listener_of_somebody_else_calls_are_refused_but_not_counted(make_spec):
    """As in a container whose engine watches calls itself: the kernel takes one listener for each process."""
    script = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
from sandbox import SandboxSpec, run, syscalls
from sandbox.seccomp import bpf
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
listener = syscalls.seccomp_listener(bpf.program({}, bpf.ALLOW, syscalls.MACHINE))
done = run(SandboxSpec.from_wire(json.loads(sys.argv[2])))
print(json.dumps([done.stdout.decode().strip(), done.ended.denied_calls, done.uncounted,
    [each.state for each in done.layers if each.layer == "seccomp"]]))
"""
    spec = make_spec(TRY + "print(attempt(int(sys.argv[1]), 0))", *numbers_of("unshare"))
    packages = json.dumps([str(Path(filters.__file__).parent.parent)])
    argv = [sys.executable, "-c", script, packages, json.dumps(spec.to_wire())]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=30)
    assert json.loads(done.stdout) == ["1", {}, "seccomp: Device or resource busy", ["enforced"]]
