"""Which control groups this process can use, and the removal of what a killed fork server left in them."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

from sandbox.cgroups import group_files, groups, v1, v2
from sandbox.cgroups.group_caps import CONTROLLERS

_NAME = re.compile(r"sandbox\.[a-z0-9-]+\.(\d+)\.(\d+)\.(\d+)")
_PAUSE_SECONDS = 0.005


def open_driver(label: str) -> groups.Driver:
    """The driver for this machine, opened. Version 2 where it has controllers, else version 1 where it has, else none.

    Where both are mounted, each controller is in one of the trees only, and machines give all to the same.
    """
    own_v2, own_v1 = v2.own_place(), v1.own_places()
    wanted = set(CONTROLLERS.values())
    driver: groups.Driver
    if own_v2 is not None and v2.offers(own_v2) & wanted:
        driver = v2.V2Driver(own_v2)
    elif own_v1.keys() & wanted:
        driver = v1.V1Driver(own_v1)
    elif own_v2 is not None:
        driver = v2.V2Driver(own_v2)  # it says of each controller why it cannot be had
    else:
        driver = groups.NullDriver("no control groups are mounted here")
    driver.open(label)
    return driver


def sweep(*, wait_seconds: float = 0.0) -> None:
    """Remove the groups of fork servers that are dead, waiting for their processes to go for at most `wait_seconds`.

    Groups of living fork servers, told by pid and start time, are never touched, nor those of another pid namespace, of
    which that cannot be told.
    """
    deadline = time.monotonic() + wait_seconds
    while any(not _remove(place) for place in _stale()):
        if time.monotonic() >= deadline:
            return
        time.sleep(_PAUSE_SECONDS)


def restore() -> None:
    """Put this process's own group back as it was found, where a fork server that was killed could not."""
    own = v2.own_place()
    if own is not None:
        v2.undivide(own)


def _stale() -> Iterator[Path]:
    own_v2 = v2.own_place()
    for place in {*v1.own_places().values(), *([] if own_v2 is None else [own_v2])}:
        for child in place.glob("sandbox.*"):
            match = _NAME.fullmatch(child.name)
            if not match or int(match[3]) != group_files.pid_namespace():
                continue
            if group_files.start_time(int(match[1])) != int(match[2]):
                yield child


def _remove(place: Path) -> bool:
    for child in place.iterdir():
        if child.is_dir():
            group = group_files.GroupFiles(child)
            group_files.kill_all([group])
            group.remove()
    return group_files.GroupFiles(place).remove()
