"""What the kernel shows of a process tree and of what it may leave behind. Reads /proc and /sys only."""

import ctypes
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox.cgroups import v1

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Whoever loses its parent below this process becomes a child of it, so that nothing can hide (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def fields(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the third on; None when there is no such process (proc_pid_stat(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None


def is_zombie(pid: int) -> bool:
    stat = fields(pid)
    return stat is not None and stat[0] in "ZX"


def identity(pid: int) -> tuple[int, str]:
    """A process as no other is: its pid and when it started, in clock ticks (field 22 of stat)."""
    stat = fields(pid)
    return pid, stat[19] if stat else ""


def exists(process: tuple[int, str]) -> bool:
    """Whether it has not ended."""
    return identity(process[0]) == process and not is_zombie(process[0])


def tree() -> dict[int, list[int]]:
    """The children of every process."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if stat := fields(int(folder.name)):
            children.setdefault(int(stat[1]), []).append(int(folder.name))
    return children


def descendants(root: int) -> list[int]:
    """Everyone below `root`, parents first."""
    children, found, position = tree(), [root], 0
    while position < len(found):
        found += children.get(found[position], [])
        position += 1
    return found[1:]


def reap(orphans: list[int]) -> None:
    """Collect those of `orphans` that are zombies and children of this process."""
    for pid in orphans:
        if is_zombie(pid):
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def descriptors(pid: int) -> int:
    """How many are open in a process; -1 when it is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return -1


class OwnGroups:
    """Control groups (version 1) for this process and everything below it, so that only ours are looked at."""

    def __init__(self) -> None:
        self._before = v1.own_places()
        self._own: dict[str, Path] = {}
        for controller in sorted(self._before.keys() & set(cgroup_controllers())):
            with suppress(OSError):
                place = self._before[controller] / f"chaos-{os.getpid()}"
                place.mkdir()
                (place / "cgroup.procs").write_text("0")
                self._own[controller] = place

    def names(self) -> set[str]:
        """The groups that fork servers made in here."""
        return {
            str(path) for place in self._own.values() for path in place.glob("sandbox.*") if path.is_dir()
        }

    def close(self) -> None:
        """Go back to where we were."""
        for controller, place in self._own.items():
            (self._before[controller] / "cgroup.procs").write_text("0")
            place.rmdir()


def cgroup_controllers() -> tuple[str, ...]:
    """Those that a worker is capped by."""
    return ("memory", "pids", "cpu")


def mounts() -> set[str]:
    return set(Path("/proc/self/mountinfo").read_text().splitlines())


def loops(folder: Path) -> set[str]:
    """What below `folder` loop devices show."""
    shown = (place.read_text().strip() for place in Path("/sys/block").glob("loop*/loop/backing_file"))
    return {path for path in shown if path.startswith(f"{folder}/")}


def files(*folders: Path) -> set[str]:
    """Every path below `folders`."""
    return {str(path) for folder in folders for path in folder.rglob("*")}


@dataclass(frozen=True)
class Belongings:
    """What a product that is gone must have left as it was."""

    mounts: set[str]
    loops: set[str]
    temporary: set[str]

    @classmethod
    def now(cls, folder: Path) -> "Belongings":
        """`folder` is what the product was given."""
        return cls(mounts(), loops(folder), files(folder / "tmp"))

    def left_since(self, before: "Belongings") -> dict[str, list[str]]:
        """What is there now and was not before, by kind; empty when nothing is."""
        found = {
            "mounts": self.mounts - before.mounts,
            "loops": self.loops - before.loops,
            "temporary": self.temporary - before.temporary,
        }
        return {kind: sorted(items) for kind, items in found.items() if items}
