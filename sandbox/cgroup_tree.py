"""Which control groups this process can use, and the removal of what a killed spawner left in them."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

from sandbox import cgroup_files, cgroups, cgroups_v1, cgroups_v2
from sandbox.cgroup_caps import CONTROLLERS

_NAME = re.compile(r"sandbox\.[a-z0-9-]+\.(\d+)\.(\d+)\.(\d+)")
_PAUSE_SECONDS = 0.005


def open_driver(label: str) -> cgroups.Driver:
    """The driver for this machine, opened. Version 2 where it has controllers, else version 1 where it has, else none.

    Where both are mounted, each controller is in one of the trees only, and machines give all to the same.
    """
    own_v2, own_v1 = cgroups_v2.own_place(), cgroups_v1.own_places()
    wanted = set(CONTROLLERS.values())
    driver: cgroups.Driver
    if own_v2 is not None and cgroups_v2.offers(own_v2) & wanted:
        driver = cgroups_v2.V2Driver(own_v2)
    elif own_v1.keys() & wanted:
        driver = cgroups_v1.V1Driver(own_v1)
    elif own_v2 is not None:
        driver = cgroups_v2.V2Driver(own_v2)  # it says of each controller why it cannot be had
    else:
        driver = cgroups.NullDriver("no control groups are mounted here")
    driver.open(label)
    return driver


def sweep(*, wait_seconds: float = 0.0) -> None:
    """Remove the groups of spawners that are dead, waiting for their processes to go for at most `wait_seconds`.

    Groups of living spawners, told by pid and start time, are never touched, nor those of another pid namespace, of
    which that cannot be told.
    """
    deadline = time.monotonic() + wait_seconds
    while any(not _remove(place) for place in _stale()):
        if time.monotonic() >= deadline:
            return
        time.sleep(_PAUSE_SECONDS)


def restore() -> None:
    """Put this process's own group back as it was found, where a spawner that was killed could not."""
    own = cgroups_v2.own_place()
    if own is not None:
        cgroups_v2.undivide(own)


def _stale() -> Iterator[Path]:
    own_v2 = cgroups_v2.own_place()
    for place in {*cgroups_v1.own_places().values(), *([] if own_v2 is None else [own_v2])}:
        for child in place.glob("sandbox.*"):
            match = _NAME.fullmatch(child.name)
            if not match or int(match[3]) != cgroup_files.pid_namespace():
                continue
            if cgroup_files.start_time(int(match[1])) != int(match[2]):
                yield child


def _remove(place: Path) -> bool:
    for child in place.iterdir():
        if child.is_dir():
            group = cgroup_files.GroupFiles(child)
            cgroup_files.kill_all([group])
            group.remove()
    return cgroup_files.GroupFiles(place).remove()
