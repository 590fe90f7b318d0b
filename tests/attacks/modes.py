"""Where a command runs: as root, as an ordinary user, or as in a stock container.

`command` gives the argument list that runs another one in such a place; nothing is left when it ends. To be started
as root. The package must be readable to the user of the place: `copy_package` puts one where it is.
"""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import sandbox

# A user that no machine has, for a place without privilege.
USER = 54321


@dataclass(frozen=True, kw_only=True)
class Place:
    """A process's surroundings.

    `user` is the user to be, None for root. With `container` it is a stock container's: namespaces of its own, the
    Linux capabilities of Docker's default set, its masked /proc, its small /dev, control groups to look at only, and a
    filter that refuses namespaces and mounts. The rest are departures from stock: `allow_namespaces` is a filter that
    lets them through (what deploy/ ships), `masked_proc` and `writable_cgroups` what a container may be started with.

    `stand_ins` is a network of its own whose loopback also answers to a metadata address and a private one;
    `delegated_groups` control groups that belong to the user, as a service manager hands them over.
    """

    user: int | None = None
    container: bool = False
    allow_namespaces: bool = False
    masked_proc: bool = True
    writable_cgroups: bool = False
    own_network: bool = True
    stand_ins: bool = False
    delegated_groups: bool = False


ROOT = Place()
ORDINARY = Place(user=USER)
CONTAINER = Place(container=True)
CONTAINER_USER = Place(container=True, user=USER)

PLACES = {"root": ROOT, "user": ORDINARY, "container": CONTAINER, "container-user": CONTAINER_USER}


def interpreter(place: Place) -> str:
    """A Python that the place's user can run: the one here may lie in a private home."""
    if place.user is None:
        return sys.executable
    return shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable


def command(place: Place, argv: Sequence[str]) -> list[str]:
    """The argument list that runs `argv` in `place`; its standard streams and exit status are those of `argv`."""
    if place == ROOT:
        return list(argv)
    script = str(Path(__file__).with_name("container.py"))
    package = str(Path(sandbox.__file__).parent.parent)
    return [sys.executable, "-I", script, package, json.dumps(asdict(place)), *argv]


def copy_package(folder: Path) -> Path:
    """Copy `sandbox` and this package below `folder`, readable for everyone; gives the folder for PYTHONPATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid != os.geteuid() or parent == Path("/tmp"):
            break
        parent.chmod(parent.stat().st_mode | 0o055)
    for package in (Path(sandbox.__file__).parent, Path(__file__).parent):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, folder / package.name, ignore=ignored, dirs_exist_ok=True)
    return folder
