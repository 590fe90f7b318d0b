"""Control groups as the kernel shows them: directories, their files, and where the trees are mounted (cgroups(7))."""

import contextlib
import errno
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sandbox import kernel_files

_REMEDIES = {
    errno.EROFS: "it is mounted read-only; start the container with writable cgroups of its own, or use systemd's Delegate=yes",
    errno.EACCES: "it is not this user's; have it delegated (systemd: Delegate=yes, or chown of an own subtree)",
    errno.EPERM: "it is not this user's; have it delegated (systemd: Delegate=yes, or chown of an own subtree)",
    errno.EBUSY: "processes of others are in it; run in a group of its own (systemd: Delegate=yes)",
    errno.EOPNOTSUPP: "it is threaded, or below a threaded group; run in a domain group of its own",
    errno.ENOENT: "it is gone; a group may not be removed while its processes are to make others",
}

# A kill names everyone it finds until a look finds nobody new. With forks refused, and with the freezer, the second
# look is the last; the bound is for groups that have neither.
_KILL_ROUNDS = 16


@dataclass(frozen=True, slots=True)
class GroupFiles:
    """The files of one group."""

    path: Path

    def has(self, name: str) -> bool:
        """Whether the group has a file of this name."""
        return os.path.exists(f"{self.path}/{name}")

    def write(self, name: str, value: int | str) -> None:
        """Write one value; raises `OSError`."""
        kernel_files.write(f"{self.path}/{name}", str(value).encode())

    def words(self, name: str) -> list[str]:
        """The words in a file; none without the file."""
        with contextlib.suppress(OSError):
            return kernel_files.read(f"{self.path}/{name}").split()
        return []

    def number(self, name: str) -> int | None:
        """The first number in a file; None without the file or a number in it ("max")."""
        with contextlib.suppress(ValueError, IndexError):
            return int(self.words(name)[0])
        return None

    def keyed(self, name: str, key: str) -> int | None:
        """The number after `key` in a file of such lines."""
        with contextlib.suppress(OSError, ValueError):
            for line in kernel_files.read(f"{self.path}/{name}").splitlines():
                if line.startswith(f"{key} "):
                    return int(line.split()[1])
        return None

    def processes(self) -> list[int]:
        """Who is inside, as this process counts; 0 stands for those it cannot see."""
        return [int(word) for word in self.words("cgroup.procs")]

    def remove(self) -> bool:
        """Whether the directory is gone."""
        with contextlib.suppress(OSError):
            os.rmdir(self.path)
        return not os.path.exists(self.path)


@dataclass(frozen=True, slots=True)
class TreeMount:
    """Where a tree of groups is mounted: `root` of the tree appears at `point`."""

    point: Path
    root: str
    options: tuple[str, ...]

    def directory(self, group: str) -> Path:
        """The directory of a group named as in /proc/<pid>/cgroup."""
        inside = group.removeprefix(self.root) if self.root != "/" else group
        return self.point / inside.lstrip("/")


def mounts(kind: str) -> list[TreeMount]:
    """The mounted trees of file system type `kind` (proc_pid_mountinfo(5))."""
    found = []
    # Anybody's mounts are in there, under names in any encoding, and one may have no source at all.
    for line in kernel_files.read("/proc/self/mountinfo").split("\n"):
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] == kind:
            fields, options = before.split(" "), after.rsplit(" ", 1)[-1]
            found.append(TreeMount(Path(fields[4]), fields[3], tuple(options.split(","))))
    return found


def group_name(label: str) -> str:
    """The name of this process's own group: with pid and start time, which no other process ever shares."""
    return f"sandbox.{label}.{os.getpid()}.{start_time(os.getpid())}.{pid_namespace()}"


def pid_namespace() -> int:
    """The pid namespace in which this process's idea of a pid holds."""
    return Path("/proc/self/ns/pid").stat().st_ino


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (proc_pid_stat(5), field 22).

    None when there is none, or only what is left of one: whoever is to reap it may take its time.
    """
    with contextlib.suppress(OSError, IndexError, ValueError):
        state, *fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return None if state in "ZX" else int(fields[18])
    return None


def kill_all(places: Iterable[GroupFiles]) -> None:
    """SIGKILL to everyone in `places`, those included that are born while this goes on.

    Where the kernel has it, `cgroup.kill` does that by itself. Else forks are refused (pids) and everyone is stopped
    (the version 1 freezer) before the first is killed; what is frozen dies when it is thawed, which comes last.
    """
    everywhere = tuple(dict.fromkeys(places))
    at_once = [place for place in everywhere if place.has("cgroup.kill")]
    for place in at_once:
        with contextlib.suppress(OSError):
            place.write("cgroup.kill", 1)
    others = [place for place in everywhere if place not in at_once and place.processes()]
    for place in others:
        with contextlib.suppress(OSError):
            if place.has("pids.max"):
                place.write("pids.max", 0)
        freeze(place, frozen=True)
    killed: set[int] = {0, os.getpid()}
    for _ in range(_KILL_ROUNDS):
        found = {pid for place in others for pid in place.processes()} - killed
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            break
        killed |= found
    for place in others:
        freeze(place, frozen=False)


def freeze(place: GroupFiles, *, frozen: bool) -> bool:
    """Stop everyone in the group, or let them go on; whether the group can do that. Does not wait for it."""
    for name, stop, go_on in (("cgroup.freeze", "1", "0"), ("freezer.state", "FROZEN", "THAWED")):
        with contextlib.suppress(OSError):
            if place.has(name):
                place.write(name, stop if frozen else go_on)
                return True
    return False


def refusal(what: str, error: OSError) -> str:
    """Why `what`, and what helps."""
    said = f"{what}: {error.strerror}"
    return f"{said}; {_REMEDIES[error.errno]}" if error.errno in _REMEDIES else said
