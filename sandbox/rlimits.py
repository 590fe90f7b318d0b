"""Per-process caps that hold where no cgroup does (getrlimit(2), prlimit(2))."""

import os
import resource
from contextlib import suppress
from pathlib import Path

from sandbox.spec import Limits

# What an unprivileged process may pin; enough for a few secrets, nothing to starve a machine with.
_LOCKED_MEMORY_BYTES = 64 * 1024
_PENDING_SIGNALS = 1024

# Room for init and for the threads of one language runtime where no cap on processes was asked for.
_INIT_PROCESSES = 1


# PID_MAX_LIMIT (include/linux/threads.h): no limit is above it.
_MOST_TASKS = 4 * 1024 * 1024

# Where a group caps the processes too, it is to refuse first, because it counts what it refuses.
_ABOVE_GROUP = 1


def wanted(limits: Limits, *, grouped: bool, others: int = 0) -> dict[int, int]:
    """The limits to set, soft and hard alike, by resource number; `grouped` where a group caps the processes too.

    The process limit counts every process of the worker's user: with a user per worker, or a user namespace per
    worker (Linux 5.14), that is this worker alone. Else `others` is how many that user had before.
    """
    values = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: limits.files,
        resource.RLIMIT_MEMLOCK: _LOCKED_MEMORY_BYTES,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_NICE: 0,
        resource.RLIMIT_RTPRIO: 0,
        resource.RLIMIT_SIGPENDING: _PENDING_SIGNALS,
    }
    if limits.file_size_bytes is not None:
        values[resource.RLIMIT_FSIZE] = limits.file_size_bytes
    if limits.pids is not None:
        values[resource.RLIMIT_NPROC] = (
            limits.pids + _INIT_PROCESSES + (_ABOVE_GROUP if grouped else 0) + others
        )
    return values


def tasks_of(uid: int) -> int:
    """How many threads the user of this process has now, or a little more; `uid` is that user.

    The kernel counts those of every container of this user, /proc shows only this one's. So the number seen is tried out
    as a limit, and raised until a process can be made under it.
    """
    count = _visible_tasks_of(uid)
    more = 1
    while count + more < _MOST_TASKS and not _can_fork_under(count + more):
        more *= 2
    return count + more - 1


def _can_fork_under(limit: int) -> bool:
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    if hard != resource.RLIM_INFINITY and limit > hard:
        return True
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, hard))
    try:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    except BlockingIOError:
        return False
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    return True


def _visible_tasks_of(uid: int) -> int:
    count = 0
    for place in Path("/proc").iterdir():
        with suppress(OSError, KeyError, ValueError):
            lines = (
                (place / "status").read_text("utf-8", "replace").splitlines()
                if place.name.isdecimal()
                else []
            )
            fields = dict(line.split(":", 1) for line in lines)
            if int(fields["Uid"].split()[0]) == uid:
                count += int(fields["Threads"])
    return count


def apply(limits: Limits, *, grouped: bool, others: int = 0) -> None:
    """Set them on this process; a hard limit already below stays as it is."""
    for number, value in wanted(limits, grouped=grouped, others=others).items():
        _, hard = resource.getrlimit(number)
        lowered = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (lowered, lowered))


# Titles of /proc/<pid>/limits (proc_pid_limits(5)).
_TITLES = {
    "Max core file size": resource.RLIMIT_CORE,
    "Max open files": resource.RLIMIT_NOFILE,
    "Max locked memory": resource.RLIMIT_MEMLOCK,
    "Max file size": resource.RLIMIT_FSIZE,
    "Max processes": resource.RLIMIT_NPROC,
}


def read_back(text: str, limits: Limits, *, grouped: bool, shares_user: bool = False) -> list[str]:
    """What in `text`, a /proc/<pid>/limits, is above what was wanted; empty when all holds.

    With `shares_user` the process limit lies above what others of that user had, so that only its being one is judged.
    """
    above = []
    expected = wanted(limits, grouped=grouped)
    if shares_user and resource.RLIMIT_NPROC in expected:
        expected[resource.RLIMIT_NPROC] = _MOST_TASKS
    for line in text.splitlines()[1:]:
        title, soft_and_hard = line[:26].strip(), line[26:].split()
        value = expected.get(_TITLES.get(title, -1))
        if value is not None and (soft_and_hard[1] == "unlimited" or int(soft_and_hard[1]) > value):
            above.append(f"{title} is {soft_and_hard[1]}")
    return above
