"""The names of the confinements and what is said about each: the vocabulary every other module shares."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

LAYERS: tuple[str, ...] = (
    "userns",
    "mountns",
    "pidns",
    "netns",
    "ipcns",
    "utsns",
    "cgroupns",
    "rootfs",
    "no-new-privs",
    "capabilities",
    "landlock",
    "seccomp",
    "rlimits",
    "cgroup.memory",
    "cgroup.pids",
    "cgroup.cpu",
)

NAMESPACE_LAYERS: tuple[str, ...] = ("userns", "mountns", "pidns", "netns", "ipcns", "utsns", "cgroupns")
CGROUP_LAYERS: tuple[str, ...] = ("cgroup.memory", "cgroup.pids", "cgroup.cpu")

# Stands among the layers of a plan where a worker has a /proc of its own. It is no layer: without it there is less to be
# seen, not more, and `rootfs` says so.
OWN_PROC = "proc"

State = Literal["enforced", "degraded", "absent"]


@dataclass(frozen=True, slots=True)
class LayerStatus:
    """One layer as found on the kernel's side; `reason` says how that was seen, or why it is less than asked."""

    layer: str
    state: State
    reason: str


def lacking(statuses: Iterable[LayerStatus], require: frozenset[str]) -> tuple[LayerStatus, ...]:
    """The required layers that are not enforced, in the order of `LAYERS`."""
    found = {status.layer: status for status in statuses}
    wanted = [
        found.get(layer, LayerStatus(layer, "absent", "not reported")) for layer in LAYERS if layer in require
    ]
    return tuple(status for status in wanted if status.state != "enforced")
