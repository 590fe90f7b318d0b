"""The suite run against one address: a process of Node's, and what it wrote down."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from conformance.results import Outcome, read

PEERS = Path(__file__).parents[2] / ".peers"
NODE = PEERS / "servers" / "bin" / "node"
PACKAGE = PEERS / "node" / "node_modules" / "@modelcontextprotocol" / "conformance"
# Many times what a run takes, for machines with much else to do.
LEG_SECONDS = 200
# These give some answers half a second, which a machine with much else to do may not have. They are tried so often.
HURRIED = frozenset({"server-stateless"})
TRIES = 3


@dataclass(frozen=True, slots=True)
class Leg:
    """What one run of the suite found, and what it said to whoever watches."""

    outcomes: Mapping[str, Outcome]
    said: str


def version() -> str:
    """The version of the suite."""
    return json.loads((PACKAGE / "package.json").read_text())["version"]


def node_version() -> str:
    """The version of Node that runs it."""
    return subprocess.run([NODE, "--version"], capture_output=True, check=True, text=True).stdout.strip("v\n")


def scored(revision: str) -> frozenset[str]:
    """The scenarios that a revision's set of requirements counts."""
    return frozenset(requirements(revision)["server"])


def unscored(revision: str) -> frozenset[str]:
    """The scenarios that are run with a revision's set and not counted."""
    entries = requirements(revision)["not_scored"]
    return frozenset(entry["scenario"] for entry in entries if entry["leg"] == "server")


def requirements(revision: str) -> dict:
    return yaml.safe_load((PACKAGE / "requirements" / f"{revision}.yaml").read_text())


def run(url: str, folder: Path, *selection: str) -> Leg:
    """Judge what is served at an address, on loopback, since the suite has no way to send a token.

    `selection` is what to run, such as `--requirements 2026-07-28`. The folder is made, and takes the results.

    Raises:
        subprocess.TimeoutExpired: it did not end.
    """
    said = _run(url, folder, *selection)
    outcomes = dict(read(folder))
    again = {name for name in HURRIED & outcomes.keys() if not outcomes[name].clean}
    for number in range(1, TRIES):
        for name in sorted(again):
            place = folder / f"again-{number}"
            said += _run(url, place, "--scenario", name)
            outcomes |= read(place)
        again = {name for name in again if not outcomes[name].clean}
    return Leg(outcomes, said)


def _run(url: str, folder: Path, *selection: str) -> str:
    """What the suite said."""
    folder.mkdir(parents=True)
    command = [NODE, PACKAGE / "dist" / "index.js", "server", "--url", url, *selection, "-o", folder]
    # Proxies of the machine must not stand in between.
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=LEG_SECONDS,
        env=environment,
        check=False,
    )
    return done.stdout.decode(errors="replace")
