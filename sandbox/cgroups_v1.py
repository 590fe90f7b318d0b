"""Control groups, version 1: one tree per controller (Documentation/admin-guide/cgroup-v1)."""

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from sandbox import cgroups
from sandbox.cgroups import Counters, GroupFiles
from sandbox.layers import LayerStatus
from sandbox.spec import Limits

_CPU_PERIOD_MICROSECONDS = 100_000


def own_places() -> dict[str, Path]:
    """By controller, the directory of the group this process is in; only where it is mounted."""
    memberships = {}
    for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            memberships[controller] = path
    return {
        controller: place
        for mount in cgroups.mounts("cgroup")
        for controller in mount.options
        if controller in memberships and (place := mount.directory(memberships[controller])).is_dir()
    }


@dataclass
class V1Group:
    """One directory per controller, holding one worker."""

    places: dict[str, GroupFiles]
    missing: dict[str, str]

    def entry(self) -> tuple[int | None, tuple[int, ...]]:
        """See `cgroups.Group.entry`."""
        files = [place.path / "cgroup.procs" for place in self.places.values()]
        return None, tuple(os.open(file, os.O_WRONLY | os.O_CLOEXEC) for file in files)

    def limit(self, limits: Limits) -> None:
        """See `cgroups.Group.limit`."""
        if limits.memory_bytes is not None and (memory := self.places.get("memory")):
            memory.write("memory.limit_in_bytes", limits.memory_bytes)
            # Memory and swap together may not exceed the memory alone, so that nothing is swapped instead of refused.
            if memory.has("memory.memsw.limit_in_bytes"):
                memory.write("memory.memsw.limit_in_bytes", limits.memory_bytes)
            elif memory.has("memory.swappiness"):
                memory.write("memory.swappiness", 0)
        if limits.pids is not None and (pids := self.places.get("pids")):
            pids.write("pids.max", limits.pids + cgroups.INIT_PROCESSES)
        if limits.cpu_millis is not None and (cpu := self.places.get("cpu")):
            cpu.write("cpu.cfs_period_us", _CPU_PERIOD_MICROSECONDS)
            cpu.write("cpu.cfs_quota_us", limits.cpu_millis * _CPU_PERIOD_MICROSECONDS // 1000)

    def statuses(self, pid: int, limits: Limits) -> tuple[LayerStatus, ...]:
        """See `cgroups.Group.statuses`."""
        expected = cgroups.expected_values(limits)
        files = {
            "memory": "memory.limit_in_bytes",
            "pids": "pids.max",
            "cpu": "cpu.cfs_quota_us",
        }
        return tuple(
            self._status(layer, controller, files[controller], expected[layer], pid)
            for layer, controller in cgroups.CONTROLLERS.items()
        )

    def _status(self, layer: str, controller: str, file: str, expected: int | None, pid: int) -> LayerStatus:
        if controller not in self.places:
            return LayerStatus(layer, "absent", self.missing.get(layer, "left out on purpose"))
        if expected is None:
            return LayerStatus(layer, "absent", "no cap was asked for")
        place = self.places[controller]
        return cgroups.judge(layer, place, file, expected, inside=pid in place.processes())

    def kill(self) -> None:
        """See `cgroups.Group.kill`."""
        cgroups.kill_all(self.places.get("pids"), list(self.places.values()))

    def counters(self) -> Counters:
        """See `cgroups.Group.counters`."""
        memory, pids = self.places.get("memory"), self.places.get("pids")
        return Counters(
            peak_memory_bytes=memory.number("memory.max_usage_in_bytes") if memory else None,
            oom_kills=(memory.keyed("memory.oom_control", "oom_kill") if memory else None) or 0,
            pids_denied=pids.keyed("pids.events", "max") if pids else None,
        )

    def remove(self) -> bool:
        """See `cgroups.Group.remove`."""
        gone = [place.remove() for place in self.places.values()]
        return all(gone)


@dataclass
class V1Driver:
    """Makes a group for the spawner in each controller's tree, and workers' groups inside it."""

    own: dict[str, Path]
    missing: dict[str, str] = field(default_factory=dict)
    _bases: dict[str, Path] = field(default_factory=dict)

    def open(self, label: str) -> None:
        """Make the spawner's groups; a controller that refuses is reported in `missing`."""
        name = cgroups.group_name(label)
        for layer, controller in cgroups.CONTROLLERS.items():
            if controller not in self.own:
                self.missing[layer] = f"the {controller} controller is not mounted"
                continue
            base = self.own[controller] / name
            try:
                base.mkdir(exist_ok=True)
            except OSError as error:
                self.missing[layer] = f"no group can be made in {self.own[controller]}: {error.strerror}"
            else:
                self._bases[controller] = base

    def create(self, name: str, *, without: frozenset[str] = frozenset()) -> V1Group:
        """See `cgroups.Driver.create`."""
        places = {}
        for layer, controller in cgroups.CONTROLLERS.items():
            if controller in self._bases and layer not in without:
                path = self._bases[controller] / name
                path.mkdir()
                places[controller] = GroupFiles(path)
        return V1Group(places, self.missing)

    def close(self) -> None:
        """See `cgroups.Driver.close`."""
        for base in self._bases.values():
            with contextlib.suppress(OSError):
                base.rmdir()
