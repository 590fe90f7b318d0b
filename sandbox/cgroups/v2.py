"""Control groups, version 2: one tree (Documentation/admin-guide/cgroup-v2.rst)."""

import contextlib
import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.cgroups import group_caps, group_files, groups
from sandbox.cgroups.group_caps import CONTROLLERS, Cap
from sandbox.cgroups.group_files import GroupFiles
from sandbox.layers import LayerStatus
from sandbox.spec import Limits

# Where the runtime and the fork server go when their own group has to hand controllers down ("no internal process").
_LEAF = "sandbox-leaf"


def own_place() -> Path | None:
    """The group to work under: this process's own, or the one above when it sits in a leaf made here before."""
    for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            for mount in group_files.mounts("cgroup2"):
                place = mount.directory(path)
                return place.parent if place.name == _LEAF else place
    return None


def caps(limits: Limits) -> group_caps.Caps:
    """What to write for `limits`, by layer."""
    memory = limits.memory_bytes or 0
    pids = (limits.pids or 0) + group_caps.INIT_PROCESSES
    period, quota = group_caps.CPU_PERIOD_MICROSECONDS, group_caps.cpu_quota(limits)
    return group_caps.asked_for(
        limits,
        {
            "cgroup.memory": (
                Cap("memory.max", memory, group_caps.whole_pages(memory)),
                Cap("memory.oom.group", 1, 1),
                # Kernels without swap, or told not to account for it, do not have the file.
                Cap("memory.swap.max", 0, 0, optional=True),
            ),
            "cgroup.pids": (Cap("pids.max", pids, pids),),
            "cgroup.cpu": (Cap("cpu.max", f"{quota} {period}", quota),),
        },
    )


@dataclass
class V2Group:
    """One directory, holding one worker."""

    place: GroupFiles
    controllers: frozenset[str]
    missing: dict[str, str]
    oom_notice: int | None = None  # memory.oom.group does what others are told to do by one

    def entry(self) -> tuple[int | None, tuple[int, ...]]:
        """See `groups.Group.entry`."""
        return os.open(self.place.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), ()

    def limit(self, limits: Limits) -> None:
        """See `groups.Group.limit`."""
        group_caps.apply(caps(limits), self._places())

    def statuses(self, pid: int, limits: Limits) -> tuple[LayerStatus, ...]:
        """See `groups.Group.statuses`."""
        return group_caps.statuses(caps(limits), self._places(), self.missing, pid)

    def kill(self) -> None:
        """See `groups.Group.kill`."""
        group_files.kill_all([self.place])

    def freeze(self, *, frozen: bool) -> bool:
        """See `groups.Group.freeze`."""
        return group_files.freeze(self.place, frozen=frozen)

    def counters(self) -> groups.Counters:
        """See `groups.Group.counters`."""
        return groups.Counters(
            peak_memory_bytes=self.place.number("memory.peak"),
            cpu_seconds=_seconds(self.place.keyed("cpu.stat", "usage_usec")),
            oom_kills=self.place.keyed("memory.events", "oom_kill") or 0,
            pids_denied=self.place.keyed("pids.events", "max"),
            throttled_periods=self.place.keyed("cpu.stat", "nr_throttled"),
            throttled_seconds=_seconds(self.place.keyed("cpu.stat", "throttled_usec")),
        )

    def remove(self) -> bool:
        """See `groups.Group.remove`."""
        return self.place.remove()

    def _places(self) -> dict[str, GroupFiles]:
        return dict.fromkeys(self.controllers, self.place)


@dataclass
class V2Driver:
    """Makes a group for the fork server, hands the controllers down to it, and makes workers' groups inside it."""

    own: Path
    missing: dict[str, str] = field(default_factory=dict)
    _base: Path | None = None
    _controllers: frozenset[str] = frozenset()

    def open(self, label: str) -> None:
        """Make the fork server's group; what is refused is reported in `missing`."""
        offered = offers(self.own)
        for layer, controller in CONTROLLERS.items():
            if controller not in offered:
                self.missing[layer] = _not_offered(controller, self.own)
        self._controllers = offered & frozenset(CONTROLLERS.values())
        if not self._controllers:
            return
        base = self.own / group_files.group_name(label)
        try:
            self._hand_down()
            base.mkdir(exist_ok=True)
            enable(base, self._controllers)
        except OSError as error:
            self._controllers = frozenset()
            GroupFiles(base).remove()
            undivide(self.own)
            reason = group_files.refusal(f"{self.own} cannot be divided", error)
            self.missing = dict.fromkeys(CONTROLLERS, reason)
        else:
            self._base = base

    def _hand_down(self) -> None:
        """Enable the controllers for groups inside the own one, which must hold no process while that is done.

        Only this process and its parent, the runtime, are moved, where they are in it: a group shared with others is
        not ours to divide.
        """
        try:
            enable(self.own, self._controllers)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            inside = set(GroupFiles(self.own).processes())
            if inside - {os.getpid(), os.getppid()}:
                raise
            leaf = self.own / _LEAF
            leaf.mkdir(exist_ok=True)
            for pid in inside:
                (leaf / "cgroup.procs").write_bytes(str(pid).encode())
            enable(self.own, self._controllers)

    def create(self, name: str, *, without: frozenset[str] = frozenset()) -> groups.Group:
        """See `groups.Driver.create`."""
        if self._base is None or CONTROLLERS.keys() <= without:
            return groups.NullGroup(self.missing)
        path = self._base / name
        path.mkdir()
        left_out = {CONTROLLERS[layer] for layer in without & CONTROLLERS.keys()}
        return V2Group(GroupFiles(path), self._controllers - left_out, self.missing)

    def close(self) -> None:
        """See `groups.Driver.close`."""
        if self._base is not None:
            with contextlib.suppress(OSError):
                self._base.rmdir()
        undivide(self.own)


def offers(own: Path) -> frozenset[str]:
    """The controllers that `own` can hand down."""
    return frozenset(GroupFiles(own).words("cgroup.controllers"))


def _not_offered(controller: str, own: Path) -> str:
    if "threaded" in GroupFiles(own).words("cgroup.type"):
        return f"{own} is threaded, which rules {controller} out; run in a domain group of its own"
    return (
        f"the {controller} controller is not handed down to {own}; have it enabled in the groups above "
        "(systemd: Delegate=yes)"
    )


def enable(place: Path, controllers: frozenset[str]) -> None:
    """Hand `controllers` down to the groups inside `place`."""
    (place / "cgroup.subtree_control").write_bytes(
        " ".join(f"+{name}" for name in sorted(controllers)).encode()
    )


def undivide(own: Path) -> None:
    """Put the own group back as it was found, unless another fork server still works under it."""
    leaf = own / _LEAF
    if not leaf.is_dir():
        return
    with contextlib.suppress(OSError):
        enabled = (own / "cgroup.subtree_control").read_text("ascii").split()
        (own / "cgroup.subtree_control").write_bytes(" ".join(f"-{name}" for name in enabled).encode())
        for pid in GroupFiles(leaf).processes():
            (own / "cgroup.procs").write_bytes(str(pid).encode())
        leaf.rmdir()


def _seconds(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1e6
