"""Caps on memory, processes, cpu and files, by what happens to a program that wants more."""

import pytest

from sandbox import Limits

pytestmark = pytest.mark.kernel

MIB = 1024 * 1024

HOG = "held = [bytearray(b'x') * (1 << 20) for _ in range(200)]; print('kept')"

FORKS = """
import errno, os, signal
children = []
try:
    for _ in range(40):
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
    print('all')
except OSError as error:
    print(errno.errorcode[error.errno], len(children))
for child in children:
    os.kill(child, 9)
"""

SPIN = """
import time
began = time.monotonic()
while time.process_time() < 0.15:
    pass
print('held back' if time.monotonic() - began > 10 * 0.15 else 'free')
"""


def test_a_memory_hog_is_ended_and_the_reason_is_oom(python):
    ended = python(HOG, limits=Limits(memory_bytes=64 * MIB)).ended
    assert (ended.reason, ended.signal) == ("oom", 9)
    assert ended.oom_kills >= 1
    assert 60 * MIB <= (ended.peak_memory_bytes or 0) <= 64 * MIB


def test_the_same_hog_lives_without_the_layer(python):
    done = python(HOG, limits=Limits(memory_bytes=64 * MIB), disable=frozenset({"cgroup.memory"}))
    assert done.stdout == b"kept\n"


def test_scratch_files_count_as_memory(python):
    program = "open('/tmp/a', 'wb').write(bytes(60 << 20)); open('/dev/shm/b', 'wb').write(bytes(60 << 20))"
    assert python(program, limits=Limits(memory_bytes=64 * MIB)).ended.reason == "oom"


@pytest.mark.parametrize("without", ["rlimits", "cgroup.pids"])
def test_a_fork_bomb_meets_the_cap_by_either_wall(python, without):
    done = python(FORKS, limits=Limits(pids=10), disable=frozenset({without}))
    word, count = done.stdout.split()
    assert word == b"EAGAIN"
    assert int(count) <= 10
    assert (done.ended.pids_denied or 0) > 0 or without == "cgroup.pids"


def test_of_both_walls_the_one_that_counts_refuses_first(python):
    done = python(FORKS, limits=Limits(pids=10))
    assert done.stdout.split()[0] == b"EAGAIN"
    assert (done.ended.pids_denied or 0) > 0


def test_the_same_forks_succeed_without_both(says):
    assert says(FORKS, limits=Limits(pids=10), disable=frozenset({"rlimits", "cgroup.pids"})) == "all"


def test_without_a_group_the_cap_on_processes_is_reported_as_degraded(python):
    done = python("", limits=Limits(pids=10), disable=frozenset({"cgroup.pids"}))
    status = next(status for status in done.layers if status.layer == "cgroup.pids")
    assert status.state == "degraded"
    assert "RLIMIT_NPROC" in status.reason


def test_cpu_time_is_held_back(says):
    # Cpu time against wall time: a busy machine can only make the gap larger.
    assert says(SPIN, limits=Limits(cpu_millis=50)) == "held back"


def test_cpu_time_is_free_without_the_layer(says):
    assert says(SPIN, limits=Limits(cpu_millis=50), disable=frozenset({"cgroup.cpu"})) == "free"


def test_a_file_may_not_grow_beyond_the_cap(says):
    program = (
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "try: open('/tmp/f', 'wb').write(bytes(2 << 20))\n"
        "except OSError as error: print(error.errno)"
    )
    assert says(program, limits=Limits(file_size_bytes=MIB)) == "27"


def test_no_core_is_dumped_even_by_a_crash(python, tmp_path):
    done = python("import os; os.chdir('/data'); os.abort()", data=str(tmp_path))
    assert (done.ended.reason, done.ended.signal) == ("signalled", 6)
    assert list(tmp_path.iterdir()) == []


def test_counters_are_read_before_the_group_goes(python):
    ended = python("x = bytearray(30 << 20)\nfor _ in range(10**6): pass").ended
    assert (ended.peak_memory_bytes or 0) > 30 * MIB
    assert (ended.cpu_seconds or 0) > 0
    assert (ended.oom_kills, ended.pids_denied) == (0, 0)
