"""Giving up privilege for good: user and group, Linux capabilities, securebits, no-new-privs, ptrace-ability.

See capabilities(7), credentials(7), prctl(2).
"""

import os
import signal
from contextlib import suppress
from functools import cache

from sandbox import kernel_files, syscalls

# The user every worker is inside its namespace, and the owner of its data on disk. Debian reserves 65000-65533 and
# allocates none of them (Debian policy, 9.2.2), systemd leaves 65520-65533 unused (UIDS-GIDS.md).
WORKER_ID = 65533

# NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, each locked, and KEEP_CAPS locked off (include/uapi/linux/securebits.h).
_SECUREBITS = 0b11101111
_MAX_CAPABILITIES = 64

# Why `capabilities` is less than enforced for a user who has none to begin with.
BOUNDED_BY_NO_NEW_PRIVS = (
    "nothing is held, but the bounding set cannot be emptied without CAP_SETPCAP; "
    "no-new-privs keeps what is in it from being gained"
)

_WORKER_OOM_SCORE_ADJ = 500


def become(uid: int, gid: int) -> None:
    """Change every user and group id of this process; groups are left behind where the kernel lets us.

    The permitted Linux capabilities survive when user 0 has no meaning in this user namespace, which is how the steps
    after this one can still mount.
    """
    # Denied in a namespace that an ordinary user made: its groups stay, and reach nothing that is not mounted.
    with suppress(PermissionError):
        os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def lock_down() -> None:
    """No Linux capability can be gained any more: securebits locked, bounding and ambient sets emptied.

    Without CAP_SETPCAP only the last is possible: `bounding_set_left` tells.
    """
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    try:
        syscalls.prctl(syscalls.PR_SET_SECUREBITS, _SECUREBITS)
        for number in known_capabilities():
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
    except PermissionError:
        return


def bounding_set_left() -> bool:
    """Whether something is left in the bounding set of this process."""
    return any(syscalls.prctl(syscalls.PR_CAPBSET_READ, number) for number in known_capabilities())


@cache
def known_capabilities() -> tuple[int, ...]:
    """Those that this kernel has, by number; asked for once, in the fork server."""
    known = []
    for number in range(_MAX_CAPABILITIES):
        try:
            syscalls.prctl(syscalls.PR_CAPBSET_READ, number)
        except OSError:
            break  # EINVAL: the kernel knows no more
        known.append(number)
    return tuple(known)


def forbid_new() -> None:
    """No exec gains privilege any more."""
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Empty the effective, permitted and inheritable sets."""
    syscalls.capset_nothing()


def die_with_parent() -> None:
    """SIGKILL when the parent ends. A change of credentials clears this, so it is set again after each."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)


def hide_memory() -> None:
    """Nobody without privilege on this machine reads this process through /proc or ptrace."""
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)


def show_memory() -> None:
    """Undo `hide_memory`, as exec will in a moment anyway, so that the fork server can read back what is in force."""
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants, where there is no pid namespace to do that."""
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)


def die_first() -> None:
    """When memory runs out, this process and those it starts go before anything of this machine."""
    with suppress(OSError):
        kernel_files.write("/proc/self/oom_score_adj", b"%d" % _WORKER_OOM_SCORE_ADJ)
