"""Caps on a worker and everything it starts, by control groups: one interface, version 1, version 2, or none.

Every worker gets a group of its own in a group named after its spawner, which lies in the group the spawner itself is
in: `<own>/sandbox.<label>.<pid>.<start time>.<pid namespace>/worker-<number>`. The name is how leftovers of a spawner that was killed are told from
those of a living one: a pid may come again, but not with the same start time.

This module is what the versions share; `cgroups_v1` and `cgroups_v2` are the drivers, `cgroup_tree` picks one.
"""

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sandbox.layers import LayerStatus
from sandbox.spec import Limits

CONTROLLERS = {"cgroup.memory": "memory", "cgroup.pids": "pids", "cgroup.cpu": "cpu"}

# Every worker's group also holds its init, which is not counted against the caller's cap.
INIT_PROCESSES = 1

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Counters:
    """What a group counted over its life; None where nothing counted."""

    peak_memory_bytes: int | None = None
    cpu_seconds: float | None = None
    oom_kills: int = 0
    pids_denied: int | None = None


class Group(Protocol):
    """The groups of one worker. Every method may be called again without harm; none waits."""

    def entry(self) -> tuple[int | None, tuple[int, ...]]:
        """How a process gets in: a descriptor to be cloned into, or descriptors to write 0 to. The caller closes them."""

    def limit(self, limits: Limits) -> None:
        """Set the caps; raises `OSError` when the kernel refuses one."""

    def statuses(self, pid: int, limits: Limits) -> tuple[LayerStatus, ...]:
        """Whether `pid` is inside and each cap is what was asked, read from the kernel."""

    def kill(self) -> None:
        """SIGKILL to every process inside."""

    def counters(self) -> Counters:
        """What was counted; to be read before `remove`."""

    def remove(self) -> bool:
        """Whether the groups are gone now; not while a process is left inside."""


class Driver(Protocol):
    """Makes groups."""

    missing: dict[str, str]  # layers that cannot be had, each with the reason

    def open(self, label: str) -> None:
        """Make the spawner's own group. What is refused is reported in `missing`, never raised."""

    def create(self, name: str, *, without: frozenset[str] = frozenset()) -> Group:
        """Fresh, empty, uncapped groups called `name`, leaving out the layers of `without`."""

    def close(self) -> None:
        """Remove the spawner's own group; its workers' must be gone."""


class NullGroup:
    """No group at all, honestly reported."""

    def __init__(self, missing: dict[str, str]) -> None:
        self._missing = missing

    def entry(self) -> tuple[int | None, tuple[int, ...]]:
        """See `Group.entry`."""
        return None, ()

    def limit(self, limits: Limits) -> None:
        """Nothing to limit with."""

    def statuses(self, pid: int, limits: Limits) -> tuple[LayerStatus, ...]:
        """See `Group.statuses`."""
        return tuple(
            LayerStatus(layer, "absent", self._missing.get(layer, "no control groups"))
            for layer in CONTROLLERS
        )

    def kill(self) -> None:
        """Nothing to kill by."""

    def counters(self) -> Counters:
        """See `Group.counters`."""
        return Counters()

    def remove(self) -> bool:
        """See `Group.remove`."""
        return True


class NullDriver:
    """For machines and users without control groups."""

    def __init__(self, reason: str) -> None:
        self.missing = dict.fromkeys(CONTROLLERS, reason)

    def open(self, label: str) -> None:
        """Nothing to make."""

    def create(self, name: str, *, without: frozenset[str] = frozenset()) -> NullGroup:
        """See `Driver.create`."""
        return NullGroup(self.missing)

    def close(self) -> None:
        """Nothing was made."""


@dataclass(frozen=True, slots=True)
class GroupFiles:
    """The files of one group."""

    path: Path

    def has(self, name: str) -> bool:
        """Whether the group has a file of this name."""
        return (self.path / name).exists()

    def write(self, name: str, value: int | str) -> None:
        """Write one value; raises `OSError`."""
        (self.path / name).write_bytes(str(value).encode())

    def number(self, name: str) -> int | None:
        """The first number in a file; None without the file or a number in it ("max")."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int((self.path / name).read_text("ascii").split()[0])
        return None

    def keyed(self, name: str, key: str) -> int | None:
        """The number after `key` in a file of such lines."""
        with contextlib.suppress(OSError, ValueError):
            for line in (self.path / name).read_text("ascii").splitlines():
                if line.startswith(f"{key} "):
                    return int(line.split()[1])
        return None

    def processes(self) -> list[int]:
        """Who is inside, as this process counts; 0 stands for those it cannot see."""
        with contextlib.suppress(OSError):
            return [int(line) for line in (self.path / "cgroup.procs").read_text("ascii").split()]
        return []

    def remove(self) -> bool:
        """Whether the directory is gone."""
        with contextlib.suppress(OSError):
            self.path.rmdir()
        return not self.path.exists()


@dataclass(frozen=True, slots=True)
class TreeMount:
    """Where a tree of groups is mounted: `root` of the tree appears at `point`."""

    point: Path
    root: str
    options: tuple[str, ...]

    def directory(self, group: str) -> Path:
        """The directory of a group named as in /proc/<pid>/cgroup."""
        inside = group.removeprefix(self.root) if self.root != "/" else group
        return self.point / inside.lstrip("/")


def mounts(kind: str) -> list[TreeMount]:
    """The mounted trees of file system type `kind` (proc_pid_mountinfo(5))."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines():
        before, after = line.split(" - ", 1)
        fields, (type_name, _, options) = before.split(), after.split()
        if type_name == kind:
            found.append(TreeMount(Path(fields[4]), fields[3], tuple(options.split(","))))
    return found


def group_name(label: str) -> str:
    """The name of this process's own group: with pid and start time, which no other process ever shares."""
    return f"sandbox.{label}.{os.getpid()}.{start_time(os.getpid())}.{pid_namespace()}"


def pid_namespace() -> int:
    """The pid namespace in which this process's idea of a pid holds."""
    return Path("/proc/self/ns/pid").stat().st_ino


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is none (proc_pid_stat(5), field 22)."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19])
    return None


def expected_values(limits: Limits) -> dict[str, int | None]:
    """What the kernel's files must say for `limits`, by layer; None where no cap was asked for."""
    cpu = None if limits.cpu_millis is None else limits.cpu_millis * 100
    memory = None if limits.memory_bytes is None else limits.memory_bytes // _PAGE_BYTES * _PAGE_BYTES
    return {
        "cgroup.memory": memory,
        "cgroup.pids": None if limits.pids is None else limits.pids + INIT_PROCESSES,
        "cgroup.cpu": cpu,
    }


def judge(layer: str, place: GroupFiles, file: str, expected: int, *, inside: bool) -> LayerStatus:
    """Compare a cap as the kernel has it with what was asked."""
    seen = place.number(file)
    if not inside:
        return LayerStatus(layer, "absent", f"the worker is not in {place.path}")
    if seen != expected:
        return LayerStatus(layer, "degraded", f"{file} is {seen}, not {expected}")
    return LayerStatus(layer, "enforced", f"inside, and {file} is {seen}")


def kill_all(pids: GroupFiles | None, places: list[GroupFiles]) -> None:
    """SIGKILL to everyone in `places`; with a process controller nobody can be born meanwhile."""
    if pids is not None:
        with contextlib.suppress(OSError):
            pids.write("pids.max", 0)
    for pid in {pid for place in places for pid in place.processes()} - {0, os.getpid()}:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
