"""What this kernel and this user can apply, found by applying it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from sandbox import _apart
from sandbox.errors import SpawnerGone
from sandbox.layers import LAYERS, OWN_PROC, LayerStatus, lacking


@dataclass(frozen=True, slots=True)
class Features:
    """One status per layer: `enforced` means that it was applied in a trial, anything else carries the reason.

    `without_proc` says why a root cannot have a /proc of its own, and is empty where it can.
    """

    layers: tuple[LayerStatus, ...]
    without_proc: str = ""

    def __iter__(self) -> Iterator[LayerStatus]:
        return iter(self.layers)

    def status(self, layer: str) -> LayerStatus:
        """What was found about `layer`."""
        for status in self.layers:
            if status.layer == layer:
                return status
        return LayerStatus(layer, "absent", "not probed")

    def applicable(self) -> frozenset[str]:
        """What is applied where nothing is left out on purpose: every layer that is not absent, and `OWN_PROC`."""
        layers = frozenset(layer for layer in LAYERS if self.status(layer).state != "absent")
        return with_proc(layers, self)

    def has(self, layer: str) -> bool:
        """Whether `layer` can be enforced."""
        return self.status(layer).state == "enforced"


def exposes_spawner(features: Features, uid: int) -> bool:
    """Whether a worker could name, as the same user, the processes it is started from.

    `uid` is the fork server's user; root gives every worker another one.
    """
    return uid != 0 and not all(features.has(layer) for layer in ("userns", "pidns", "rootfs"))


def with_proc(layers: frozenset[str], features: Features) -> frozenset[str]:
    """The layers of a worker, and `OWN_PROC` where it has a /proc of its own."""
    has_proc = {"rootfs", "pidns"} <= layers and not features.without_proc
    return layers | {OWN_PROC} if has_proc else layers


def unmet(features: Features, require: frozenset[str]) -> tuple[LayerStatus, ...]:
    """The required layers that cannot be enforced here, with the reason of each; empty when all can."""
    return lacking(features.layers, require)


def probe() -> Features:
    """Try every layer in a short-lived process of its own; changes nothing of the caller. Takes tens of milliseconds.

    Raises:
        SpawnerGone: the trial process could not run at all.
    """
    try:
        found = cast("dict[str, Any]", _apart.ask("_trial"))
        return Features(tuple(LayerStatus(**item) for item in found["layers"]), found["without_proc"])
    except TypeError as error:
        raise SpawnerGone(f"the trial process did not answer: {type(error).__name__}") from None


def probe_sizes(directory: str) -> LayerStatus:
    """Whether a volume below `directory` can be held to a size here, found by doing it; the reason says how.

    A file of some hundred KiB is made in `directory` for a moment. Blocks for tens of milliseconds.

    Raises:
        SpawnerGone: the trial process could not run at all.
    """
    match _apart.ask("volumes.sizes", directory):
        case [str(state), str(reason)]:
            return LayerStatus("volume-size", "enforced" if state == "enforced" else "absent", reason)
    raise SpawnerGone("the trial process did not answer")
