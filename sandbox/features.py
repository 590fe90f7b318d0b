"""What this kernel and this user can apply, found by applying it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SpawnerGone
from sandbox.layers import LayerStatus, lacking

PROBE_TIMEOUT_SECONDS = 20.0

_BOOT = "import sys; sys.path.append(sys.argv[1]); from sandbox._trial import main; main()"


@dataclass(frozen=True, slots=True)
class Features:
    """One status per layer: `enforced` means that it was applied in a trial, anything else carries the reason."""

    layers: tuple[LayerStatus, ...]

    def __iter__(self) -> Iterator[LayerStatus]:
        return iter(self.layers)

    def status(self, layer: str) -> LayerStatus:
        """What was found about `layer`."""
        for status in self.layers:
            if status.layer == layer:
                return status
        return LayerStatus(layer, "absent", "not probed")

    def has(self, layer: str) -> bool:
        """Whether `layer` can be enforced."""
        return self.status(layer).state == "enforced"


def unmet(features: Features, require: frozenset[str]) -> tuple[LayerStatus, ...]:
    """The required layers that cannot be enforced here, with the reason of each; empty when all can."""
    return lacking(features.layers, require)


def probe() -> Features:
    """Try every layer in a short-lived process of its own; changes nothing of the caller. Takes tens of milliseconds.

    Raises:
        SpawnerGone: the trial process could not run at all.
    """
    command = [
        sys.executable,
        "-I",
        "-S",
        "-X",
        "utf8",
        "-c",
        _BOOT,
        str(Path(__file__).resolve().parent.parent),
    ]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            command,
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=PROBE_TIMEOUT_SECONDS,
        )
        layers = tuple(LayerStatus(**item) for item in json.loads(done.stdout))
    except (OSError, ValueError, TypeError, subprocess.SubprocessError) as error:
        raise SpawnerGone(f"the trial process did not answer: {type(error).__name__}") from None
    return Features(layers)
