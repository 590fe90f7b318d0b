"""Control groups, version 1: one tree per controller (Documentation/admin-guide/cgroup-v1).

What version 2 does by itself is put together here: a worker is killed at once by freezing it first, and when it runs
out of memory all of it goes, because the kernel's notice of that (memory.rst, section 9) is watched.
"""

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from sandbox import kernel_files
from sandbox.cgroups import group_caps, group_files, groups
from sandbox.cgroups.group_caps import CONTROLLERS, Cap
from sandbox.cgroups.group_files import GroupFiles
from sandbox.layers import LayerStatus
from sandbox.spec import Limits

# Used where they are mounted; no layer depends on them: one counts cpu time, the other makes a kill atomic.
_ALSO_USEFUL = ("cpuacct", "freezer")


def own_places() -> dict[str, Path]:
    """By controller, the directory of the group this process is in; only where it is mounted."""
    memberships = {}
    for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            memberships[controller] = path
    return {
        controller: place
        for mount in group_files.mounts("cgroup")
        for controller in mount.options
        if controller in memberships and (place := mount.directory(memberships[controller])).is_dir()
    }


def caps(limits: Limits) -> group_caps.Caps:
    """What to write for `limits`, by layer."""
    memory = limits.memory_bytes or 0
    seen = group_caps.whole_pages(memory)
    pids = (limits.pids or 0) + group_caps.INIT_PROCESSES
    period, quota = group_caps.CPU_PERIOD_MICROSECONDS, group_caps.cpu_quota(limits)
    return group_caps.asked_for(
        limits,
        {
            "cgroup.memory": (
                Cap("memory.limit_in_bytes", memory, seen),
                # Memory and swap together may not exceed the memory alone, so that nothing is swapped instead of
                # refused; where swap is not accounted, nothing of the group is chosen to be swapped.
                Cap("memory.memsw.limit_in_bytes", memory, seen, optional=True),
                Cap("memory.swappiness", 0, 0, optional=True),
            ),
            "cgroup.pids": (Cap("pids.max", pids, pids),),
            "cgroup.cpu": (Cap("cpu.cfs_period_us", period, period), Cap("cpu.cfs_quota_us", quota, quota)),
        },
    )


@dataclass
class V1Group:
    """One directory per controller, holding one worker."""

    places: dict[str, GroupFiles]
    missing: dict[str, str]
    oom_notice: int | None = None

    def entry(self) -> tuple[int | None, tuple[int, ...]]:
        """See `groups.Group.entry`.

        By `tasks`, not `cgroup.procs`: moving whole processes takes a lock against every fork on the machine, for
        which the kernel waits some 10 ms; moving oneself alone takes none, and who enters here has one thread.
        """
        return None, tuple(
            os.open(f"{place.path}/tasks", os.O_WRONLY | os.O_CLOEXEC) for place in self._all()
        )

    def limit(self, limits: Limits) -> None:
        """See `groups.Group.limit`."""
        group_caps.apply(caps(limits), self.places)

    def statuses(self, pid: int, limits: Limits) -> tuple[LayerStatus, ...]:
        """See `groups.Group.statuses`."""
        return group_caps.statuses(caps(limits), self.places, self.missing, pid)

    def kill(self) -> None:
        """See `groups.Group.kill`."""
        group_files.kill_all(self._all())

    def freeze(self, *, frozen: bool) -> bool:
        """See `groups.Group.freeze`."""
        freezer = self.places.get("freezer")
        return freezer is not None and group_files.freeze(freezer, frozen=frozen)

    def counters(self) -> groups.Counters:
        """See `groups.Group.counters`."""
        # A controller that is not there has no files, which every reader below gives as None.
        memory, pids, cpu, cpuacct = (
            self.places.get(name, GroupFiles(Path("/nonexistent")))
            for name in ("memory", "pids", "cpu", "cpuacct")
        )
        return groups.Counters(
            peak_memory_bytes=memory.number("memory.max_usage_in_bytes"),
            cpu_seconds=_seconds(cpuacct.number("cpuacct.usage")),
            oom_kills=memory.keyed("memory.oom_control", "oom_kill") or 0,
            pids_denied=pids.keyed("pids.events", "max"),
            throttled_periods=cpu.keyed("cpu.stat", "nr_throttled"),
            throttled_seconds=_seconds(cpu.keyed("cpu.stat", "throttled_time")),
        )

    def remove(self) -> bool:
        """See `groups.Group.remove`."""
        if self.oom_notice is not None:
            os.close(self.oom_notice)
            self.oom_notice = None
        gone = [place.remove() for place in self._all()]
        return all(gone)

    def _all(self) -> tuple[GroupFiles, ...]:
        """Each directory once: controllers may be mounted together."""
        return tuple(dict.fromkeys(self.places.values()))


@dataclass
class V1Driver:
    """Makes a group for the fork server in each controller's tree, and workers' groups inside it."""

    own: dict[str, Path]
    missing: dict[str, str] = field(default_factory=dict)
    _bases: dict[str, Path] = field(default_factory=dict)

    def open(self, label: str) -> None:
        """Make the fork server's groups; a controller that refuses is reported in `missing`."""
        name = group_files.group_name(label)
        for controller in (*CONTROLLERS.values(), *_ALSO_USEFUL):
            if reason := self._open(controller, name):
                self.missing |= {layer: reason for layer, of in CONTROLLERS.items() if of == controller}

    def _open(self, controller: str, name: str) -> str:
        """Why there is no group of this controller; empty when there is one."""
        if controller not in self.own:
            return f"the {controller} controller is not mounted"
        base = self.own[controller] / name
        try:
            base.mkdir(exist_ok=True)
            if controller == "memory":
                os.close(watch_memory(base))
        except OSError as error:
            with contextlib.suppress(OSError):
                base.rmdir()
            return group_files.refusal(f"no group can be made in {self.own[controller]}", error)
        self._bases[controller] = base
        return ""

    def create(self, name: str, *, without: frozenset[str] = frozenset()) -> V1Group:
        """See `groups.Driver.create`."""
        group = V1Group({}, self.missing)
        if CONTROLLERS.keys() <= without:
            # What is useful besides would still find and kill everyone; without groups means without that, too.
            return group
        left_out = {CONTROLLERS[layer] for layer in without & CONTROLLERS.keys()}
        try:
            for controller, base in self._bases.items():
                if controller not in left_out:
                    path = base / name
                    path.mkdir(exist_ok=GroupFiles(path) in group.places.values())
                    group.places[controller] = GroupFiles(path)
            if memory := group.places.get("memory"):
                group.oom_notice = watch_memory(memory.path)
        except OSError:
            group.remove()
            raise
        return group

    def close(self) -> None:
        """See `groups.Driver.close`."""
        for base in self._bases.values():
            with contextlib.suppress(OSError):
                base.rmdir()


def watch_memory(group: Path) -> int:
    """A descriptor that becomes readable when the group, or one around it, runs out of memory. Raises `OSError`."""
    notice = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        control = os.open(f"{group}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernel_files.write(f"{group}/cgroup.event_control", f"{notice} {control}".encode())
        finally:
            os.close(control)
    except OSError:
        os.close(notice)
        raise
    return notice


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9
