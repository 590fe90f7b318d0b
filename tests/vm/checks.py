"""What holds for workers on a machine with control groups of version 2, each thing by its outcome. Run by `vm.suite`.

A check gets a fork server that others use as well. Those about a layer look a second time with it left out, so that a
check which could not fail is noticed.
"""

import contextlib
import os
import select
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sandbox import LAYERS, Exited, Finished, Limits, Mount, SandboxSpec, Spawned, Spawner, Zygote, run
from sandbox.cgroups import group_files

MIB = 1024 * 1024
PYTHON = os.path.realpath("/usr/bin/python3")
LIMITS = Limits(memory_bytes=128 * MIB, pids=32, cpu_millis=2000)
CGROUPS = {"cgroup.memory", "cgroup.pids", "cgroup.cpu"}

HOG = "held = [bytearray(b'x') * (1 << 20) for _ in range(64)]; print('kept')"

# The child takes too much, the parent would wait for ever.
CHILD_HOGS = """
import os, signal
child = os.fork()
if child == 0:
    held = [bytearray(b'x') * (1 << 20) for _ in range(64)]
    os._exit(0)
os.waitpid(child, 0)
print('the child is gone', flush=True)
signal.pause()
"""

FORKS = """
import errno, os, signal
children = []
try:
    for _ in range(20):
        child = os.fork()
        if child == 0: signal.pause()
        children.append(child)
    print('all')
except OSError as error:
    print(errno.errorcode[error.errno], len(children))
for child in children: os.kill(child, 9)
"""

SPIN = "import time\nwhile time.process_time() < 0.3: pass"

# A process of its own session burns its time and is never waited for by anyone.
UNREAPED = """
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        while time.process_time() < 0.3: pass
        print('burnt', flush=True)
    signal = __import__('signal').pause()
while True: time.sleep(100)
"""


def spec(program: str, **changes: object) -> SandboxSpec:
    values: dict[str, object] = {
        "name": "check",
        "argv": (PYTHON, "-I", "-S", "-c", program),
        "mounts": (Mount(source="/usr", target="/usr"),),
        "limits": LIMITS,
    }
    return SandboxSpec(**(values | changes))  # type: ignore[arg-type]


def finish(spawner: Spawner, program: str, **changes: object) -> Finished:
    return run(spec(program, **changes), spawner=spawner)


def states(layers: object) -> dict[str, str]:
    return {status.layer: status.state for status in layers}  # type: ignore[attr-defined]


@contextlib.contextmanager
def started(spawner: Spawner, program: str, **changes: object) -> Iterator[tuple[Spawned, int]]:
    """A running worker and its output; it is killed after the block."""
    null = os.open("/dev/null", os.O_RDWR)
    reader, writer = os.pipe()
    spawner.spawn(1, spec(program, **changes), null, writer, writer)
    os.close(writer)
    event = next_event(spawner)
    assert isinstance(event, Spawned), event
    yield event, reader
    os.close(reader)
    os.close(null)


def next_event(spawner: Spawner) -> object:
    assert select.select([spawner], [], [], 30)[0], "nothing was said in 30 s"
    return spawner.receive()[0]


def expect(seen: object, wanted: object) -> None:
    assert seen == wanted, f"{seen!r}, not {wanted!r}"


def until(holds: object, what: str) -> None:
    deadline = time.monotonic() + 10
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"not within 10 s: {what}"
        time.sleep(0.01)


def inside(own: Path) -> list[Path]:
    """The workers' groups of a spawner below `own`."""
    return sorted(own.glob("sandbox.*/worker-*"))


def check_every_layer_is_enforced(spawner: Spawner) -> None:
    expect({status for status in spawner.features if status.state != "enforced"}, set())
    done = finish(spawner, "print('hello')", require=frozenset(LAYERS))
    expect((done.stdout, done.ended.reason), (b"hello\n", "exited"))
    expect({status for status in done.layers if status.state != "enforced"}, set())
    without = finish(spawner, "", disable=frozenset({"cgroup.memory"}))
    expect(states(without.layers)["cgroup.memory"], "absent")


def check_a_zygotes_worker_has_a_capped_group_of_its_own(spawner: Spawner) -> None:
    zygote = Zygote(interpreter=(PYTHON, "-I", "-S"), preload=("json",), run="json.tool", argv=("json.tool",))
    forked = spec("", zygote=zygote, require=frozenset(LAYERS))
    done = run(forked, b"[1]", spawner=spawner)
    expect((done.stdout.split(), done.ended.reason), ([b"[", b"1", b"]"], "exited"))
    expect({status for status in done.layers if status.state != "enforced"}, set())
    without = run(
        replace(forked, require=frozenset(), disable=frozenset({"cgroup.memory"})), b"[1]", spawner=spawner
    )
    expect(states(without.layers)["cgroup.memory"], "absent")


# --- caps, by what a program that wants more gets to see -----------------------------------------------------


def check_out_of_memory_ends_the_whole_worker(spawner: Spawner) -> None:
    small = Limits(memory_bytes=32 * MIB, pids=32)
    ended = finish(spawner, CHILD_HOGS, limits=small).ended
    expect((ended.reason, ended.signal), ("oom", 9))
    assert ended.oom_kills >= 2, ended  # the parent is among them: memory.oom.group
    assert 25 * MIB <= (ended.peak_memory_bytes or 0) <= 32 * MIB, ended
    with started(spawner, CHILD_HOGS, limits=small, disable=frozenset({"cgroup.memory"})) as (
        worker,
        out,
    ):
        expect(os.read(out, 100), b"the child is gone\n")
        spawner.kill(worker.worker, "protocol")
        event = next_event(spawner)
    assert isinstance(event, Exited)
    expect((event.reason, event.oom_kills), ("protocol", 0))


def check_nothing_of_a_worker_may_be_swapped(spawner: Spawner) -> None:
    with started(spawner, "import time; print(1, flush=True); time.sleep(1000)") as (worker, out):
        os.read(out, 1)
        place = group_files.GroupFiles(Path(f"/sys/fs/cgroup{group_of(worker.pid)}"))
        expect(place.number("memory.swap.max"), 0)
        expect(place.number("memory.oom.group"), 1)
        spawner.kill(worker.worker)
        next_event(spawner)


def group_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text().strip().rpartition("::")[2]


def check_processes_are_capped(spawner: Spawner) -> None:
    few = Limits(pids=8)
    for disable in (frozenset[str](), frozenset({"rlimits"})):
        done = finish(spawner, FORKS, limits=few, disable=disable)
        word, count = done.stdout.split()
        expect(word, b"EAGAIN")
        assert int(count) <= 8, done.stdout
        assert (done.ended.pids_denied or 0) >= 1, done.ended
    free = finish(spawner, FORKS, limits=few, disable=frozenset({"rlimits", "cgroup.pids"}))
    expect(free.stdout, b"all\n")


def check_cpu_is_held_back(spawner: Spawner) -> None:
    slow = Limits(cpu_millis=200)
    held_back = finish(spawner, SPIN, limits=slow).ended
    assert (held_back.throttled_periods or 0) >= 2, held_back
    assert (held_back.throttled_seconds or 0) > 0, held_back
    free = finish(spawner, SPIN, limits=slow, disable=frozenset({"cgroup.cpu"})).ended
    expect(free.throttled_periods or 0, 0)


def check_not_even_a_whiteout_can_be_made(spawner: Spawner) -> None:
    """The one device that needs no privilege; Landlock of this kernel does not count it as one."""
    program = "import os; os.mknod('/tmp/w', 0o20600, 0); print('made')"
    assert b"Permission denied" in finish(spawner, program).stderr
    expect(finish(spawner, program, disable=frozenset({"seccomp"})).stdout, b"made\n")


# --- ends ----------------------------------------------------------------------------------------------------


def check_a_kill_is_told_apart_by_its_reason(spawner: Spawner) -> None:
    for reason in ("killed", "timeout", "protocol"):
        with started(spawner, "import time; time.sleep(1000)") as (worker, _):
            spawner.kill(worker.worker, reason)  # type: ignore[arg-type]
            event = next_event(spawner)
        assert isinstance(event, Exited)
        expect((event.reason, event.signal), (reason, 9))


def check_counters_are_read_before_the_group_goes(spawner: Spawner) -> None:
    with started(spawner, UNREAPED) as (worker, out):
        expect(os.read(out, 100), b"burnt\n")
        spawner.kill(worker.worker)
        event = next_event(spawner)
    assert isinstance(event, Exited)
    assert (event.cpu_seconds or 0) >= 0.3, event
    assert (event.peak_memory_bytes or 0) > MIB, event
