"""Starts and ends: what is left afterwards is nothing, whoever dies first."""

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sandbox
from control_groups import groups_named
from sandbox import (
    Exited,
    SandboxSetupFailed,
    SandboxUnsupported,
    Spawned,
    Spawner,
    SpawnerGone,
    SpawnFailed,
    run,
)
from sandbox.messages import Spawn, encode_request

pytestmark = pytest.mark.kernel

# Two spares, each an init and a worker to be.
SPARE_PROCESSES = 4


def alive(pid: int) -> bool:
    """Whether a process exists that is more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(condition, seconds: float = 20.0) -> bool:
    """Processes die by themselves here; nothing announces it to a stranger but their absence."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        select.select([], [], [], 0.005)
    return True


def descendants(pid: int) -> set[int]:
    found, waiting = set(), [pid]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                children = {int(word) for word in task.read_text().split()}
                waiting += children - found
                found |= children
    return found


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def leftovers(spawner: Spawner) -> list[str]:
    return groups(f"sandbox.*.{spawner.pid}.*")


def groups(pattern: str) -> list[str]:
    while True:
        with contextlib.suppress(FileNotFoundError):  # one went while it was looked for
            return [str(place) for place in groups_named(pattern)]


def test_the_exit_code_is_passed_on(shell):
    ended = shell("exit 7").ended
    assert (ended.reason, ended.code, ended.signal) == ("exited", 7, None)


def test_death_by_signal_is_passed_on(shell):
    ended = shell("kill -SEGV $$").ended
    assert (ended.reason, ended.code, ended.signal) == ("signalled", None, signal.SIGSEGV)


def test_a_signal_reaches_the_program_through_its_init(spawner, talk, make_shell_spec):
    one = talk(make_shell_spec("trap 'echo bye; exit 3' TERM; echo up; while :; do read line; done"))
    worker = one.wait_for(Spawned)
    assert one.read_line() == "up"
    spawner.signal(worker.worker, signal.SIGTERM)
    os.write(one.stdin, b"\n")
    assert one.read_line() == "bye"
    ended = one.wait_for(Exited)
    assert (ended.reason, ended.code) == ("exited", 3)


def test_a_terminated_init_passes_that_on(talk, make_shell_spec):
    one = talk(make_shell_spec("exec cat"))
    worker = one.wait_for(Spawned)
    os.kill(worker.pid, signal.SIGTERM)
    ended = one.wait_for(Exited)
    assert (ended.reason, ended.signal) == ("signalled", signal.SIGTERM)


@pytest.mark.parametrize("disable", [(), ("pidns",)])
def test_kill_is_certain_whatever_the_program_does_against_it(spawner, talk, make_spec, disable):
    program = (
        "import os, signal, time\n"
        "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)\n"
        "if os.fork() == 0: os.setsid()\n"
        "print(os.getpid(), flush=True)\n"
        "while True: time.sleep(100)\n"
    )
    one = talk(make_spec(program, disable=frozenset(disable)))
    worker = one.wait_for(Spawned)
    one.read_line()
    one.read_line()
    inside = descendants(worker.pid)
    assert len(inside) == 2
    spawner.kill(worker.worker)
    spawner.kill(worker.worker)
    ended = one.wait_for(Exited)
    assert (ended.reason, ended.signal) == ("killed", 9)
    assert wait_until(lambda: not any(alive(pid) for pid in inside))


def test_an_unknown_worker_may_be_killed_and_signalled(spawner, shell):
    spawner.kill(999999)
    spawner.signal(999999, 15)
    assert shell("true").ended.code == 0


def test_a_grandchild_in_its_own_session_goes_with_the_worker_and_lets_go_of_its_streams(
    talk, make_shell_spec
):
    one = talk(make_shell_spec("setsid sh -c 'echo up; exec cat' & read line; exit 0"))
    worker = one.wait_for(Spawned)
    assert one.read_line() == "up"
    inside = descendants(worker.pid)
    assert len(inside) >= 2
    os.write(one.stdin, b"\n")
    one.wait_for(Exited)
    assert not any(alive(pid) for pid in inside)
    assert one.read_line() == ""


def test_zombies_by_the_hundred_are_reaped_by_the_init(says):
    program = (
        "import os\n"
        "for _ in range(30):\n"
        "    if os.fork() == 0:\n"
        "        for _ in range(10):\n"
        "            if os.fork() == 0: os._exit(0)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "print('done')"
    )
    assert says(program) == "done"


def test_a_program_that_does_not_exist_is_a_failed_start_that_names_it(shell, python):
    with pytest.raises(
        SandboxSetupFailed, match="the program nosuch was not found inside the sandbox"
    ) as caught:
        python("", argv=("nosuch",))
    assert (caught.value.step, caught.value.errno) == ("exec", 2)
    assert shell("true").ended.code == 0


def test_a_program_without_the_right_to_be_run_is_told_apart(python):
    with pytest.raises(SandboxSetupFailed, match="cannot be run"):
        python("", argv=("/etc/passwd",))


def test_a_source_that_does_not_exist_is_named(python, make_spec):
    mounts = make_spec("").mounts
    missing = type(mounts[0])(source="/no/such/place", target="/opt/place")
    with pytest.raises(SandboxSetupFailed, match="/no/such/place") as caught:
        python("", mounts=(*mounts, missing))
    assert caught.value.step == "open-mounts"


def test_a_working_directory_that_does_not_exist_fails_the_start(python):
    with pytest.raises(SandboxSetupFailed) as caught:
        python("", cwd="/nowhere")
    assert caught.value.step == "enter-directory"


def test_a_required_layer_left_out_is_a_refusal(python):
    with pytest.raises(SandboxUnsupported) as caught:
        python("", require=frozenset({"seccomp", "landlock"}), disable=frozenset({"landlock"}))
    assert [status.layer for status in caught.value.layers] == ["landlock"]


def test_no_environment_crosses_and_the_given_one_arrives(says, monkeypatch, make_spec):
    monkeypatch.setenv("CANARY", "canary-7f3a")
    with contextlib.closing(Spawner.start(name="canary")) as spawner:
        assert b"canary-7f3a" not in Path(f"/proc/{spawner.pid}/environ").read_bytes()
        spec = make_spec("import os; print(dict(os.environ))", env=(("A", "1"), ("LC_ALL", "C.UTF-8")))
        assert run(spec, spawner=spawner).stdout == b"{'A': '1', 'LC_ALL': 'C.UTF-8'}\n"


def test_no_descriptor_of_ours_reaches_the_program(says, tmp_path):
    with open(tmp_path / "open", "w") as held:
        os.set_inheritable(held.fileno(), True)
        # The fourth is the directory being listed.
        assert says("import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))") == "[0, 1, 2, 3]"


def test_a_spare_that_somebody_kills_is_never_used(spawner, shell):
    shell("true")
    assert wait_until(lambda: len(descendants(spawner.pid)) == SPARE_PROCESSES)
    spares = descendants(spawner.pid)
    # The future workers only: each init must notice by itself.
    for pid in spares - {int(word) for word in children_of(spawner.pid)}:
        os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not any(alive(pid) for pid in spares))
    for _ in range(3):
        assert shell("true").ended.code == 0


def test_a_hundred_starts_leave_nothing_behind(spawner, shell):
    groups = lambda: {path.name for place in leftovers(spawner) for path in Path(place).glob("worker-*")}
    settled = lambda: (
        len(descendants(spawner.pid)) == SPARE_PROCESSES and len(groups()) <= SPARE_PROCESSES // 2
    )
    count = lambda: (len(os.listdir(f"/proc/{spawner.pid}/fd")), len(os.listdir("/proc/self/fd")))
    shell("true")
    assert wait_until(settled)
    before = count()
    for _ in range(100):
        assert shell("true").ended.code == 0
    assert wait_until(lambda: settled() and count() == before), f"{count()} open, {before} before"


def test_twenty_workers_at_once(talk, make_shell_spec, spawner):
    conversations = [talk(make_shell_spec("read line; echo $line")) for _ in range(20)]
    events = []
    while len(events) < 20:
        assert select.select([spawner], [], [], 10)[0]
        events += spawner.receive()
    assert all(isinstance(event, Spawned) for event in events)
    assert len({event.pid for event in events}) == 20
    for number, one in enumerate(conversations):
        os.write(one.stdin, f"{number}\n".encode())
    assert [one.read_line() for one in conversations] == [str(number) for number in range(20)]
    ended = []
    while len(ended) < 20:
        assert select.select([spawner], [], [], 10)[0]
        ended += spawner.receive()
    assert {event.worker for event in ended} == {event.worker for event in events}


def test_closing_ends_everything_and_may_be_repeated(talk, make_shell_spec):
    spawner = Spawner.start(name="closing")
    one = talk(make_shell_spec("exec cat"), spawner)
    one.wait_for(Spawned)
    inside = descendants(spawner.pid)
    assert len(inside) >= 2
    assert leftovers(spawner)
    spawner.close()
    spawner.close()
    assert not any(alive(pid) for pid in inside)
    assert leftovers(spawner) == []


def test_when_the_fork_server_is_killed_every_worker_dies_and_close_removes_the_groups(talk, make_shell_spec):
    with contextlib.closing(Spawner.start(name="killed")) as spawner:
        one = talk(make_shell_spec("trap '' TERM HUP; setsid sleep 1000 & exec sleep 1000"), spawner)
        one.wait_for(Spawned)
        inside = descendants(spawner.pid)
        os.kill(spawner.pid, signal.SIGKILL)
        assert wait_until(lambda: not any(alive(pid) for pid in inside))
        with pytest.raises(SpawnerGone):
            one.wait_for(Exited)
        with pytest.raises(SpawnerGone):
            spawner.kill(1)
    assert leftovers(spawner) == []


RUNTIME = """
import os, select, sys
from sandbox import Limits, Mount, SandboxSpec, Spawned, Spawner
spawner = Spawner.start(name="orphan")
limits = Limits(memory_bytes=64 << 20, pids=16, cpu_millis=1000)
spec = SandboxSpec(name="orphan", argv=("/bin/sleep", "1000"), mounts=(Mount(source="/usr", target="/usr"),), limits=limits)
null = os.open("/dev/null", os.O_RDWR)
spawner.spawn(1, spec, null, null, null)
select.select([spawner], [], [], 10)
(event,) = spawner.receive()
assert isinstance(event, Spawned), event
print(spawner.pid, event.pid, flush=True)
sys.stdin.read()
"""


def test_when_the_runtime_is_killed_nothing_is_left():
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", RUNTIME]
    runtime = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    with runtime:
        spawner, init = (int(word) for word in runtime.stdout.readline().split())
        inside = descendants(spawner)
        assert init in inside
        mounts = len(Path("/proc/self/mountinfo").read_text().splitlines())
        runtime.kill()
        runtime.wait()
    left = lambda: groups(f"sandbox.orphan.{spawner}.*")
    assert wait_until(lambda: not any(alive(pid) for pid in {spawner, *inside}))
    assert left() == []
    assert len(Path("/proc/self/mountinfo").read_text().splitlines()) == mounts


def test_a_worker_that_cannot_end_does_not_keep_the_fork_server_once_the_runtime_is_gone():
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    runtime = subprocess.Popen(
        [sys.executable, "-c", RUNTIME], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    with runtime:
        spawner, init = (int(word) for word in runtime.stdout.readline().split())
        (worker,) = (int(pid) for pid in children_of(init))
        # Traced, it stays a zombie until we wait for it, and its namespace cannot end before (ptrace(2), PTRACE_SEIZE).
        if ctypes.CDLL(None, use_errno=True).ptrace(0x4206, worker, None, None) < 0:
            raise OSError(ctypes.get_errno(), "ptrace")
        runtime.kill()
        runtime.wait()
    assert wait_until(lambda: not alive(spawner), 40)
    os.waitpid(worker, 0x40000000)  # __WALL
    assert wait_until(lambda: not alive(init))
    Spawner.start(name="orphan").close()
    assert groups(f"sandbox.orphan.{spawner}.*") == []


def test_a_fork_server_whose_runtime_dies_before_it_is_ready_leaves_nothing():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    boot = "import sys; sys.path.append(sys.argv[1]); from sandbox._spawnd import main; main(int(sys.argv[2]), 'early')"
    command = [sys.executable, "-I", "-S", "-c", boot, str(Path(sandbox.__file__).parent.parent)]
    with theirs, ours:
        process = subprocess.Popen(
            [*command, str(theirs.fileno())], pass_fds=[theirs.fileno()], stderr=subprocess.PIPE
        )
    with process:
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert groups(f"sandbox.early.{process.pid}.*") == []


def test_groups_of_a_dead_fork_server_are_swept_at_the_next_start():
    # A group as a killed fork server leaves it: its pid may live again, its start time never comes back.
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next(line.split(":", 2)[2] for line in lines if ":pids:" in line)
    stale = Path(
        f"/sys/fs/cgroup/pids{own}/sandbox.dead.{os.getpid()}.1.{os.stat('/proc/self/ns/pid').st_ino}"
    )
    (stale / "worker-1").mkdir(parents=True)
    Spawner.start(name="sweeper").close()
    assert not stale.exists()


def test_run_without_a_spawner_brings_its_own(make_shell_spec):
    done = run(make_shell_spec("cat; echo err >&2"), b"in")
    assert (done.stdout, done.stderr) == (b"in", b"err\n")


def test_run_kills_what_takes_too_long(make_shell_spec, spawner):
    done = run(make_shell_spec("exec sleep 1000"), timeout_seconds=3.0, spawner=spawner)
    assert done.ended.reason == "timeout"


@pytest.mark.parametrize(
    "packet",
    [
        b"\x00\xff",
        b"[]",
        b"{}",
        b'{"spawn":{}}',
        b'{"spawn":{"request":"one"}}',
        b'{"kill":{"worker":[1]}}',
        b'{"signal":{"worker":1,"signum":99999}}',
        b"[" * 100_000,
        b"x" * 120_000,
    ],
)
def test_nonsense_on_the_control_socket_is_survived(spawner, shell, packet):
    null = os.open("/dev/null", os.O_RDWR)
    socket.send_fds(spawner._channel, [packet], [null] * 5)
    os.close(null)
    assert shell("true").ended.code == 0


def test_a_spawn_that_makes_no_sense_is_answered(spawner, make_shell_spec):
    spawner._channel.send(b'{"spawn":{"request":5,"spec":{"name":7}}}')
    select.select([spawner], [], [], 5)
    (event,) = spawner.receive()
    assert isinstance(event, SpawnFailed)
    assert (event.request, event.error.step) == (5, "read-specification")


def test_a_spawn_without_its_descriptors_is_answered(spawner, make_shell_spec):
    spawner._channel.send(encode_request(Spawn(6, make_shell_spec("true"))))
    select.select([spawner], [], [], 5)
    (event,) = spawner.receive()
    assert (event.request, event.error.step) == (6, "read-request")
