"""Control groups of both versions, on what this machine has of each."""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox import Limits, syscalls
from sandbox.cgroups import group_caps, group_files, groups, tree, v2

pytestmark = pytest.mark.kernel

GOING_SECONDS = 10.0  # on a busy machine those that were killed need a moment
LIMITS = Limits(memory_bytes=64 << 20, pids=5, cpu_millis=500)

born: list[int] = []


@pytest.fixture(autouse=True)
def children() -> Iterator[list[int]]:
    """The children that a test made; whichever it did not wait for is waited for here."""
    born.clear()
    yield born
    for pid in born:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def child(born_in: int | None, entries: tuple[int, ...], does: Callable[[], None]) -> int:
    """The pid of a process in the group that does this and ends; whatever happens it does not go on with the tests."""
    cloned = syscalls.clone(0, born_in)
    if cloned is None:
        try:
            for entry in entries:
                os.write(entry, b"0")
            does()
        finally:
            os._exit(0)
    born.append(cloned.pid)
    for fd in (cloned.pidfd, *entries, *(() if born_in is None else (born_in,))):
        os.close(fd)
    return cloned.pid


def wait_for_process(group, pid: int) -> None:
    while not all(status.state == "enforced" for status in group.statuses(pid, LIMITS)):
        os.sched_yield()


@pytest.fixture
def driver():
    driver = tree.open_driver("groups")
    yield driver
    driver.close()
    tree.sweep()


def test_caps_are_set_read_back_and_gone_with_the_group(driver):
    group = driver.create("one")
    group.limit(LIMITS)
    pid = child(*group.entry(), signal.pause)
    wait_for_process(group, pid)
    assert not group.remove()
    group.kill()
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert group.counters().oom_kills == 0
    assert group.remove()
    assert group.remove()


def test_mounts_of_others_keep_nobody_from_finding_their_groups(tmp_path):
    """One without a source, and one under a name that is no UTF-8, as anybody may make who may mount."""
    seen, seen_end = os.pipe()

    def look() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        odd = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
        os.mkdir(odd)
        syscalls.mount("", os.fsdecode(odd), "tmpfs", 0, "size=4k")
        os.write(seen_end, str(groups_here()).encode())

    def groups_here() -> list[group_files.TreeMount]:
        return group_files.mounts("cgroup") + group_files.mounts("cgroup2")

    child(None, (), look)
    os.close(seen_end)
    with open(seen) as told:
        assert told.read() == str(groups_here())


def test_a_process_outside_is_not_reported_as_capped(driver):
    group = driver.create("one")
    group.limit(LIMITS)
    assert {status.state for status in group.statuses(os.getpid(), LIMITS)} == {"absent"}
    assert group.remove()


def test_a_cap_changed_behind_our_back_is_reported_as_degraded(driver):
    group = driver.create("one")
    group.limit(LIMITS)
    pid = child(*group.entry(), signal.pause)
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
    tree.sweep()
    assert {status.layer for status in group.statuses(os.getpid(), LIMITS) if "not in" in status.reason}
    assert group.remove()


def echo(group) -> tuple[int, int, int]:
    """A process in the group that gives back what it is given: its pid, and where to write and to read."""
    inner_in, stdin = os.pipe()
    stdout, inner_out = os.pipe()

    def give_back() -> None:
        while byte := os.read(inner_in, 1):
            os.write(inner_out, byte)

    pid = child(*group.entry(), give_back)
    os.write(stdin, b"a")
    assert os.read(stdout, 1) == b"a"
    return pid, stdin, stdout


def is_frozen(group) -> bool:
    places = getattr(group, "places", None)
    if places is not None:
        return places["freezer"].words("freezer.state") == ["FROZEN"]
    return group.place.keyed("cgroup.events", "frozen") == 1


def test_what_is_frozen_does_nothing_until_it_is_thawed(any_group):
    _, stdin, stdout = echo(any_group)
    assert any_group.freeze(frozen=True)
    while not is_frozen(any_group):
        os.sched_yield()
    os.write(stdin, b"b")
    assert select.select([stdout], [], [], 0.1)[0] == []
    assert any_group.freeze(frozen=False)
    assert os.read(stdout, 1) == b"b"


def test_what_is_frozen_can_be_killed(any_group):
    pid, _, _ = echo(any_group)
    any_group.freeze(frozen=True)
    while not is_frozen(any_group):
        os.sched_yield()
    any_group.kill()
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def test_a_kill_takes_what_is_being_born_meanwhile(any_group):
    def multiply() -> None:
        while not os.fork():  # each lives only to make the next, so that a list of them is always an old one
            pass

    os.waitpid(child(*any_group.entry(), multiply), 0)
    any_group.kill()
    assert members(any_group) == []


def members(group) -> list[int]:
    """Who is inside and more than a zombie, once those that were killed had the time to go."""
    end = time.monotonic() + GOING_SECONDS
    while True:
        places = list(getattr(group, "places", {"": getattr(group, "place", None)}).values())
        if not (found := [pid for place in places for pid in place.processes()]):
            return []
        if time.monotonic() > end:
            return found
        os.sched_yield()


@pytest.fixture(params=["own", "v2"])
def any_group(request):
    """A group of the driver of this machine, and one of version 2 without controllers where that is mounted."""
    if request.param == "own":
        driver = request.getfixturevalue("driver")
        group = driver.create("one")
    else:
        place = request.getfixturevalue("v2_place")
        group = v2.V2Group(group_files.GroupFiles(place), frozenset(), {})
    yield group
    group.kill()
    assert members(group) == []
    assert group.remove()


@pytest.fixture
def v2_place():
    own = v2.own_place()
    if own is None:
        pytest.skip("no cgroup2 is mounted here")
    place = own / f"sandbox-test-{os.getpid()}"
    place.mkdir()
    yield place
    if place.exists():
        place.rmdir()


def test_version_2_a_process_is_born_in_its_group_and_killed_with_it(v2_place: Path):
    group = v2.V2Group(group_files.GroupFiles(v2_place), frozenset(), {})
    born_in, entries = group.entry()
    assert entries == ()
    pid = child(born_in, (), signal.pause)
    assert group.place.processes() == [pid]
    assert not group.remove()
    group.kill()
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert (group.counters().cpu_seconds or 0) >= 0
    assert group.remove()


def test_version_2_without_controllers_says_which_are_missing(tmp_path: Path):
    own = v2.own_place()
    assert own is not None
    driver = v2.V2Driver(own)
    driver.open("groups")
    offered = (own / "cgroup.controllers").read_text().split()
    expected = {layer for layer, name in group_caps.CONTROLLERS.items() if name not in offered}
    assert driver.missing.keys() == expected
    assert all("is not handed down" in reason for reason in driver.missing.values())
    driver.close()


def test_without_any_groups_everything_is_absent_with_the_reason():
    group = groups.NullDriver("no such thing").create("one")
    assert {(status.state, status.reason) for status in group.statuses(1, LIMITS)} == {
        ("absent", "no such thing")
    }
    assert group.remove()
