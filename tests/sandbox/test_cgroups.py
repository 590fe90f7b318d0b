"""Control groups of both versions, on what this machine has of each."""

import os
import signal
from pathlib import Path

import pytest

from sandbox import Limits, cgroup_tree, cgroups, cgroups_v2, syscalls

pytestmark = pytest.mark.kernel

LIMITS = Limits(memory_bytes=64 << 20, pids=5, cpu_millis=500)


def sleeper(born_in: int | None, entries: tuple[int, ...]) -> int:
    """A process in the group, made as a worker's init is."""
    cloned = syscalls.clone(0, born_in)
    if cloned is None:
        for entry in entries:
            os.write(entry, b"0")
        signal.pause()
        os._exit(0)
    for fd in (cloned.pidfd, *entries, *(() if born_in is None else (born_in,))):
        os.close(fd)
    return cloned.pid


def wait_for_process(group, pid: int) -> None:
    while not all(status.state == "enforced" for status in group.statuses(pid, LIMITS)):
        os.sched_yield()


@pytest.fixture
def driver():
    driver = cgroup_tree.open_driver("groups")
    yield driver
    driver.close()
    cgroup_tree.sweep()


def test_caps_are_set_read_back_and_gone_with_the_group(driver):
    group = driver.create("one")
    group.limit(LIMITS)
    pid = sleeper(*group.entry())
    wait_for_process(group, pid)
    assert not group.remove()
    group.kill()
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert group.counters().oom_kills == 0
    assert group.remove()
    assert group.remove()


def test_a_process_outside_is_not_reported_as_capped(driver):
    group = driver.create("one")
    group.limit(LIMITS)
    assert {status.state for status in group.statuses(os.getpid(), LIMITS)} == {"absent"}
    assert group.remove()


def test_a_cap_changed_behind_our_back_is_reported_as_degraded(driver):
    group = driver.create("one")
    group.limit(LIMITS)
    pid = sleeper(*group.entry())
    wait_for_process(group, pid)
    found = group.statuses(pid, Limits(memory_bytes=32 << 20, pids=6, cpu_millis=700))
    assert {status.state for status in found} == {"degraded"}
    group.kill()
    os.waitpid(pid, 0)
    assert group.remove()


def test_a_group_left_out_is_absent_with_that_reason(driver):
    group = driver.create("one", without=frozenset({"cgroup.pids"}))
    found = {status.layer: status for status in group.statuses(os.getpid(), LIMITS)}
    assert found["cgroup.pids"].reason == "left out on purpose"
    assert group.remove()


def test_living_spawners_are_not_swept(driver):
    group = driver.create("one")
    cgroup_tree.sweep()
    assert {status.layer for status in group.statuses(os.getpid(), LIMITS) if "not in" in status.reason}
    assert group.remove()


@pytest.fixture
def v2_place():
    own = cgroups_v2.own_place()
    if own is None:
        pytest.skip("no cgroup2 is mounted here")
    place = own / f"sandbox-test-{os.getpid()}"
    place.mkdir()
    yield place
    if place.exists():
        place.rmdir()


def test_version_2_a_process_is_born_in_its_group_and_killed_with_it(v2_place: Path):
    group = cgroups_v2.V2Group(cgroups.GroupFiles(v2_place), frozenset(), {})
    born_in, entries = group.entry()
    assert entries == ()
    pid = sleeper(born_in, ())
    assert group.place.processes() == [pid]
    assert not group.remove()
    group.kill()
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert (group.counters().cpu_seconds or 0) >= 0
    assert group.remove()


def test_version_2_without_controllers_says_which_are_missing(tmp_path: Path):
    own = cgroups_v2.own_place()
    assert own is not None
    driver = cgroups_v2.V2Driver(own)
    driver.open("groups")
    offered = (own / "cgroup.controllers").read_text().split()
    expected = {layer for layer, name in cgroups.CONTROLLERS.items() if name not in offered}
    assert driver.missing.keys() == expected
    assert all("is not handed down" in reason for reason in driver.missing.values())
    driver.close()


def test_without_any_groups_everything_is_absent_with_the_reason():
    group = cgroups.NullDriver("no such thing").create("one")
    assert {(status.state, status.reason) for status in group.statuses(1, LIMITS)} == {
        ("absent", "no such thing")
    }
    assert group.remove()
