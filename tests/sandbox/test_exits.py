"""How a worker ended and what it used, as the fork server tells it; what version 1 needs to be told by us."""

import signal

import pytest

from sandbox import Exited, Limits, Spawned
from sandbox._worker import why
from sandbox.messages import Kill, MalformedMessage, decode_request, encode_request

MIB = 1024 * 1024

# The child takes too much, the parent would wait for ever: what ends it is that they are one worker.
CHILD_HOGS = """
import os, signal
child = os.fork()
if child == 0:
    held = [bytearray(b'x') * (1 << 20) for _ in range(200)]
    os._exit(0)
os.waitpid(child, 0)
print('the child is gone', flush=True)
signal.pause()
"""

# A process of its own session burns its time and is never waited for by anyone.
UNREAPED = """
import os, sys, time
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        while time.process_time() < 0.3: pass
        print('burnt', flush=True)
        while True: time.sleep(100)
    os._exit(0)
while True: time.sleep(100)
"""


@pytest.mark.parametrize(
    ("code", "signum", "killed", "oom_kills", "reason"),
    [
        (0, None, None, 0, "exited"),
        (0, None, "killed", 0, "exited"),  # it was done before the kill came
        (1, None, None, 1, "exited"),  # it outlived the child that was taken
        (None, 15, "timeout", 0, "signalled"),  # the gentle signal was enough
        (None, 11, None, 1, "signalled"),
        (None, 9, None, 0, "signalled"),
        (None, 9, None, 1, "oom"),
        (None, 9, "timeout", 1, "timeout"),
        (None, 9, "protocol", 0, "protocol"),
        (None, 9, "killed", 0, "killed"),
    ],
)
def test_every_end_has_one_reason(code, signum, killed, oom_kills, reason):
    assert why(code, signum, killed, oom_kills) == reason


@pytest.mark.parametrize("reason", ["killed", "timeout", "protocol"])
def test_the_reason_of_a_kill_crosses_the_socket(reason):
    assert decode_request(encode_request(Kill(3, reason))) == Kill(3, reason)


def test_an_unknown_reason_of_a_kill_is_no_message():
    with pytest.raises(MalformedMessage):
        decode_request(b'{"kill":{"worker":1,"reason":"oom"}}')


@pytest.mark.kernel
@pytest.mark.parametrize("reason", ["killed", "timeout", "protocol"])
def test_a_kill_comes_back_with_its_reason(spawner, talk, make_shell_spec, reason):
    one = talk(make_shell_spec("exec sleep 1000"))
    worker = one.wait_for(Spawned)
    spawner.kill(worker.worker, reason)
    spawner.kill(worker.worker, "killed")  # too late to say why
    ended = one.wait_for(Exited)
    assert (ended.reason, ended.code, ended.signal) == (reason, None, signal.SIGKILL)


@pytest.mark.kernel
@pytest.mark.parametrize("disable", [frozenset(), frozenset({"pidns"})])
def test_a_child_out_of_memory_ends_the_whole_worker(python, disable):
    done = python(CHILD_HOGS, limits=Limits(memory_bytes=64 * MIB), disable=disable)
    assert (done.ended.reason, done.ended.signal) == ("oom", signal.SIGKILL)
    assert done.ended.oom_kills >= 1


@pytest.mark.kernel
def test_without_the_cap_the_child_ends_well_and_the_worker_goes_on(spawner, talk, make_spec):
    one = talk(
        make_spec(CHILD_HOGS, limits=Limits(memory_bytes=64 * MIB), disable=frozenset({"cgroup.memory"}))
    )
    worker = one.wait_for(Spawned)
    assert one.read_line() == "the child is gone"
    spawner.kill(worker.worker)
    assert one.wait_for(Exited).reason == "killed"


@pytest.mark.kernel
def test_cpu_time_of_what_nobody_waited_for_is_counted(spawner, talk, make_spec):
    one = talk(make_spec(UNREAPED))
    worker = one.wait_for(Spawned)
    assert one.read_line() == "burnt"
    spawner.kill(worker.worker)
    assert (one.wait_for(Exited).cpu_seconds or 0) >= 0.3


@pytest.mark.kernel
def test_being_held_back_is_counted_and_only_that(python):
    spin = "import time\nwhile time.process_time() < 0.1: pass"
    held_back = python(spin, limits=Limits(cpu_millis=100)).ended
    assert (held_back.throttled_periods or 0) >= 1
    assert (held_back.throttled_seconds or 0) > 0
    free = python(spin, limits=Limits(cpu_millis=100), disable=frozenset({"cgroup.cpu"})).ended
    assert not free.throttled_periods
