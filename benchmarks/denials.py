"""`python -m benchmarks.denials`: what counting denied system calls costs, as ratios of paired measurements.

Two fork servers, one as usual, one below a listener of somebody else, where the kernel refuses by itself and nothing is
counted. Workers of both make the same calls in turn; each pair gives a ratio, and the median of the ratios is printed.
Run it as root or as an ordinary user; nothing else should be running.
"""

import contextlib
import json
import os
import socket
import statistics
import sys
from collections.abc import Iterator

from sandbox import Mount, SandboxSpec, Spawner, run, syscalls
from sandbox.seccomp import bpf, filters

PAIRS = 15
CALLS = 20_000
DENIED = 2_000

PROGRAM = """
import ctypes, json, sys, time
call = ctypes.PyDLL(None).syscall
def each(number, count):
    began = time.perf_counter_ns()
    for _ in range(count): call(number, 0)
    return (time.perf_counter_ns() - began) / count
ordinary, denied, count, few = map(int, sys.argv[1:])
print(json.dumps([each(ordinary, count), each(denied, few)]))
"""


def spec() -> SandboxSpec:
    """A worker that times calls of its own."""
    numbers = filters.numbers(syscalls.MACHINE)
    argv = ("/usr/bin/python3", "-I", "-S", "-c", PROGRAM)
    words = (str(numbers["getppid"]), str(numbers["unshare"]), str(CALLS), str(DENIED))
    return SandboxSpec(
        name="bench", argv=argv + words, mounts=(Mount(source="/usr", target="/usr"),), cwd="/"
    )


@contextlib.contextmanager
def uncounted() -> Iterator[socket.socket]:
    """Answers each byte with one measurement from below a listener, in a process of its own."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.seccomp_listener(bpf.program({}, bpf.ALLOW, syscalls.MACHINE))
        with contextlib.closing(Spawner.start(name="bench-off")) as spawner:
            while theirs.recv(1):
                theirs.send(measured(spawner, counted=False))
        os._exit(0)
    theirs.close()
    with ours:
        yield ours
    os.waitpid(child, 0)


def measured(spawner: Spawner, *, counted: bool) -> bytes:
    """One worker's two numbers, as it printed them."""
    done = run(spec(), spawner=spawner)
    if bool(done.uncounted) == counted:
        raise SystemExit(f"not what was to be measured: {done.uncounted or 'counted'}")
    return done.stdout


def main() -> None:
    """Measure and print."""
    rows = []
    with uncounted() as other, contextlib.closing(Spawner.start(name="bench-on")) as spawner:
        for _ in range(PAIRS):
            other.send(b"x")
            off = json.loads(other.recv(4096))
            rows.append((json.loads(measured(spawner, counted=True)), off))
    for index, name in enumerate(("ordinary call", "denied call")):
        ratio = statistics.median(on[index] / off[index] for on, off in rows)
        on, off = (statistics.median(pair[side][index] for pair in rows) for side in (0, 1))
        sys.stdout.write(f"{name}: counted {on:.0f} ns, uncounted {off:.0f} ns, median ratio {ratio:.2f}\n")


if __name__ == "__main__":
    main()
