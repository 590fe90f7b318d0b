"""A worker's caps as values in files of its groups: written, and read back. The files' names are each version's own."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from sandbox.cgroups.group_files import GroupFiles
from sandbox.layers import LayerStatus
from sandbox.spec import Limits

CONTROLLERS = {"cgroup.memory": "memory", "cgroup.pids": "pids", "cgroup.cpu": "cpu"}

# Every worker's group also holds its init, which is not counted against the caller's cap.
INIT_PROCESSES = 1

# The kernel's own default: long enough to cost little, short enough that a held-back worker does not stutter.
CPU_PERIOD_MICROSECONDS = 100_000

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Cap:
    """What is written to `file`, and the first number to be `seen` in it then; `optional` where not every kernel has it."""

    file: str
    value: int | str
    seen: int
    optional: bool = False


Caps = Mapping[str, tuple[Cap, ...]]  # by layer; none where no cap is asked for
Places = Mapping[str, GroupFiles]  # by controller


def whole_pages(size: int) -> int:
    """`size` as the kernel keeps it."""
    return size // _PAGE_BYTES * _PAGE_BYTES


def cpu_quota(limits: Limits) -> int:
    """Microseconds of cpu in each period."""
    return (limits.cpu_millis or 0) * CPU_PERIOD_MICROSECONDS // 1000


def asked_for(limits: Limits, caps: Caps) -> dict[str, tuple[Cap, ...]]:
    """Of `caps`, those of layers that `limits` caps at all."""
    wanted = {
        "cgroup.memory": limits.memory_bytes,
        "cgroup.pids": limits.pids,
        "cgroup.cpu": limits.cpu_millis,
    }
    return {layer: caps[layer] for layer, number in wanted.items() if number is not None}


def apply(caps: Caps, places: Places) -> None:
    """Write each cap where there is a place for it; raises `OSError` when the kernel refuses one."""
    for layer, values in caps.items():
        if place := places.get(CONTROLLERS[layer]):
            for cap in values:
                if not cap.optional or place.has(cap.file):
                    place.write(cap.file, cap.value)


def statuses(caps: Caps, places: Places, missing: Mapping[str, str], pid: int) -> tuple[LayerStatus, ...]:
    """Whether `pid` is inside and each cap is what was asked, read from the kernel."""
    inside = {place for place in set(places.values()) if pid in place.processes()}
    found = []
    for layer, controller in CONTROLLERS.items():
        if controller not in places:
            found.append(LayerStatus(layer, "absent", missing.get(layer, "left out on purpose")))
        elif layer not in caps:
            found.append(LayerStatus(layer, "absent", "no cap was asked for"))
        elif places[controller] not in inside:
            found.append(LayerStatus(layer, "absent", f"the worker is not in {places[controller].path}"))
        else:
            found.append(_judge(layer, places[controller], caps[layer]))
    return tuple(found)


def _judge(layer: str, place: GroupFiles, caps: tuple[Cap, ...]) -> LayerStatus:
    said = []
    for cap in caps:
        if cap.optional and not place.has(cap.file):
            continue
        seen = place.number(cap.file)
        if seen != cap.seen:
            return LayerStatus(layer, "degraded", f"{cap.file} is {seen}, not {cap.seen}")
        said.append(f"{cap.file} is {seen}")
    return LayerStatus(layer, "enforced", f"inside, and {', '.join(said)}")
