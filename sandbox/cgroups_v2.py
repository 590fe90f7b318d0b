"""Control groups, version 2: one tree (Documentation/admin-guide/cgroup-v2.rst)."""

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from sandbox import cgroups
from sandbox.cgroups import Counters, GroupFiles
from sandbox.layers import LayerStatus
from sandbox.spec import Limits

_CPU_PERIOD_MICROSECONDS = 100_000

# Where the runtime and the spawner go when their own group has to hand its controllers down ("no internal process").
_LEAF = "sandbox-leaf"


def own_place() -> Path | None:
    """The group to work under: this process's own, or the one above when it sits in a leaf made here before."""
    for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            for mount in cgroups.mounts("cgroup2"):
                place = mount.directory(path)
                return place.parent if place.name == _LEAF else place
    return None


@dataclass
class V2Group:
    """One directory, holding one worker."""

    place: GroupFiles
    controllers: frozenset[str]
    missing: dict[str, str]

    def entry(self) -> tuple[int | None, tuple[int, ...]]:
        """See `cgroups.Group.entry`."""
        return os.open(self.place.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), ()

    def limit(self, limits: Limits) -> None:
        """See `cgroups.Group.limit`."""
        if limits.memory_bytes is not None and "memory" in self.controllers:
            self.place.write("memory.max", limits.memory_bytes)
            self.place.write("memory.oom.group", 1)
            if self.place.has("memory.swap.max"):
                self.place.write("memory.swap.max", 0)
        if limits.pids is not None and "pids" in self.controllers:
            self.place.write("pids.max", limits.pids + cgroups.INIT_PROCESSES)
        if limits.cpu_millis is not None and "cpu" in self.controllers:
            quota = limits.cpu_millis * _CPU_PERIOD_MICROSECONDS // 1000
            self.place.write("cpu.max", f"{quota} {_CPU_PERIOD_MICROSECONDS}")

    def statuses(self, pid: int, limits: Limits) -> tuple[LayerStatus, ...]:
        """See `cgroups.Group.statuses`."""
        expected = cgroups.expected_values(limits)
        files = {"memory": "memory.max", "pids": "pids.max", "cpu": "cpu.max"}
        inside = pid in self.place.processes()
        return tuple(
            self._status(layer, controller, files[controller], expected[layer], inside)
            for layer, controller in cgroups.CONTROLLERS.items()
        )

    def _status(
        self, layer: str, controller: str, file: str, expected: int | None, inside: bool
    ) -> LayerStatus:
        if controller not in self.controllers:
            return LayerStatus(layer, "absent", self.missing.get(layer, "left out on purpose"))
        if expected is None:
            return LayerStatus(layer, "absent", "no cap was asked for")
        return cgroups.judge(layer, self.place, file, expected, inside=inside)

    def kill(self) -> None:
        """See `cgroups.Group.kill`."""
        if self.place.has("cgroup.kill"):
            with contextlib.suppress(OSError):
                self.place.write("cgroup.kill", 1)
        else:
            cgroups.kill_all(self.place if "pids" in self.controllers else None, [self.place])

    def counters(self) -> Counters:
        """See `cgroups.Group.counters`."""
        microseconds = self.place.keyed("cpu.stat", "usage_usec")
        return Counters(
            peak_memory_bytes=self.place.number("memory.peak"),
            cpu_seconds=None if microseconds is None else microseconds / 1e6,
            oom_kills=self.place.keyed("memory.events", "oom_kill") or 0,
            pids_denied=self.place.keyed("pids.events", "max"),
        )

    def remove(self) -> bool:
        """See `cgroups.Group.remove`."""
        return self.place.remove()


@dataclass
class V2Driver:
    """Makes a group for the spawner, hands the controllers down to it, and makes workers' groups inside it."""

    own: Path
    missing: dict[str, str] = field(default_factory=dict)
    _base: Path | None = None
    _controllers: frozenset[str] = frozenset()

    def open(self, label: str) -> None:
        """Make the spawner's group; what is refused is reported in `missing`."""
        offered = frozenset((self.own / "cgroup.controllers").read_text("ascii").split())
        for layer, controller in cgroups.CONTROLLERS.items():
            if controller not in offered:
                self.missing[layer] = f"the {controller} controller is not handed down to {self.own}"
        self._controllers = offered & frozenset(cgroups.CONTROLLERS.values())
        if not self._controllers:
            return
        try:
            self._hand_down()
            base = self.own / cgroups.group_name(label)
            base.mkdir(exist_ok=True)
            enable(base, self._controllers)
        except OSError as error:
            self._controllers = frozenset()
            reason = (
                f"{self.own} cannot be divided: {error.strerror}; run under a group of its own (Delegate=yes)"
            )
            self.missing = dict.fromkeys(cgroups.CONTROLLERS, reason)
        else:
            self._base = base

    def _hand_down(self) -> None:
        """Enable the controllers for groups inside the own one, which must hold no process while that is done.

        Only this process and its parent, the runtime, are moved: a group shared with others is not ours to divide.
        """
        try:
            enable(self.own, self._controllers)
        except OSError as error:
            if error.errno != 16:  # noqa: PLR2004 - EBUSY: the group has processes
                raise
            ours = {os.getpid(), os.getppid()}
            if set(GroupFiles(self.own).processes()) - ours:
                raise
            leaf = self.own / _LEAF
            leaf.mkdir(exist_ok=True)
            for pid in ours:
                (leaf / "cgroup.procs").write_bytes(str(pid).encode())
            enable(self.own, self._controllers)

    def create(self, name: str, *, without: frozenset[str] = frozenset()) -> cgroups.Group:
        """See `cgroups.Driver.create`."""
        if self._base is None:
            return cgroups.NullGroup(self.missing)
        path = self._base / name
        path.mkdir()
        left_out = {cgroups.CONTROLLERS[layer] for layer in without & cgroups.CONTROLLERS.keys()}
        return V2Group(GroupFiles(path), self._controllers - left_out, self.missing)

    def close(self) -> None:
        """See `cgroups.Driver.close`."""
        if self._base is not None:
            with contextlib.suppress(OSError):
                self._base.rmdir()
        undivide(self.own)


def enable(place: Path, controllers: frozenset[str]) -> None:
    """Hand `controllers` down to the groups inside `place`."""
    (place / "cgroup.subtree_control").write_bytes(
        " ".join(f"+{name}" for name in sorted(controllers)).encode()
    )


def undivide(own: Path) -> None:
    """Put the own group back as it was found, unless another spawner still works under it."""
    leaf = own / _LEAF
    if not leaf.is_dir():
        return
    with contextlib.suppress(OSError):
        enabled = (own / "cgroup.subtree_control").read_text("ascii").split()
        (own / "cgroup.subtree_control").write_bytes(" ".join(f"-{name}" for name in enabled).encode())
        for pid in GroupFiles(leaf).processes():
            (own / "cgroup.procs").write_bytes(str(pid).encode())
        leaf.rmdir()
