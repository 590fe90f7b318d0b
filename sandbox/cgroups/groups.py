"""Caps on a worker and everything it starts, by control groups: one interface, version 1, version 2, or none.

Every worker gets a group of its own in a group named after its fork server, which lies in the group the fork server
itself is in: `<own>/sandbox.<label>.<pid>.<start time>.<pid namespace>/worker-<number>`. The name is how leftovers of a
fork server that was killed are told from those of a living one: a pid may come again, but not with the same start time.

This module is what the rest of the sandbox sees of them. `v1` and `v2` are the drivers, `tree`
picks one, `group_files` and `group_caps` are what both are made of.
"""

from dataclasses import dataclass
from typing import Protocol

from sandbox.cgroups.group_caps import CONTROLLERS
from sandbox.layers import LayerStatus
from sandbox.spec import Limits


@dataclass(frozen=True, slots=True)
class Counters:
    """What a group counted over its life; None where nothing counted."""

    peak_memory_bytes: int | None = None
    cpu_seconds: float | None = None
    oom_kills: int = 0
    pids_denied: int | None = None
    throttled_periods: int | None = None
    throttled_seconds: float | None = None


class Group(Protocol):
    """The groups of one worker. Every method may be called again without harm; none waits."""

    # Becomes readable when the group, or one around it, ran out of memory; None where the kernel ends all of a group
    # by itself then. Closed by `remove`.
    oom_notice: int | None

    def entry(self) -> tuple[int | None, tuple[int, ...]]:
        """How a process gets in: a descriptor to be cloned into, or some to write 0 to. The caller closes them."""

    def limit(self, limits: Limits) -> None:
        """Set the caps; raises `OSError` when the kernel refuses one."""

    def statuses(self, pid: int, limits: Limits) -> tuple[LayerStatus, ...]:
        """Whether `pid` is inside and each cap is what was asked, read from the kernel."""

    def kill(self) -> None:
        """SIGKILL to every process inside, also to those that are frozen or being born."""

    def freeze(self, *, frozen: bool) -> bool:
        """Stop every process inside, or let them go on; whether this machine can. Takes effect soon after."""

    def counters(self) -> Counters:
        """What was counted; to be read before `remove`."""

    def remove(self) -> bool:
        """Whether the groups are gone now; not while a process is left inside."""


class Driver(Protocol):
    """Makes groups."""

    missing: dict[str, str]  # layers that cannot be had, each with the reason and what helps

    def open(self, label: str) -> None:
        """Make the fork server's own group. What is refused is reported in `missing`, never raised."""

    def create(self, name: str, *, without: frozenset[str] = frozenset()) -> Group:
        """Fresh, empty, uncapped groups called `name`, leaving out the layers of `without`. Raises `OSError`."""

    def close(self) -> None:
        """Remove the fork server's own group; its workers' must be gone."""


class NullGroup:
    """No group at all, honestly reported."""

    oom_notice: int | None = None

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

    def freeze(self, *, frozen: bool) -> bool:
        """Nothing to freeze by."""
        return False

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
