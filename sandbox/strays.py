"""Processes that outlived their worker's init where no pid namespace ended them with it.

The fork server is made the reaper of orphans below it (PR_SET_CHILD_SUBREAPER), so whatever a dead init leaves becomes
its child, however it daemonised. Each pass takes the children that nobody here made: they may not fork any more, and
are killed; their own children come to us with that, for the next pass. Usually there are none: an init that ends in order
has ended everyone of its own before, at one stroke (`landlock.scope_signals`).
"""

import os
import resource
import signal
from collections.abc import Set as AbstractSet
from contextlib import suppress

from sandbox import kernel_files

# A pass is about a millisecond; the rest of a long line of descendants waits for the next turn of the loop.
_PASSES = 20


def end_strays(known: AbstractSet[int]) -> bool:
    """Whether none is left. `known` are the inits; helpers of our own are told by our session, which no init is in."""
    for _ in range(_PASSES):
        found = _strays(known)
        if not found:
            return True
        for pid in found:
            with suppress(OSError):
                resource.prlimit(pid, resource.RLIMIT_NPROC, (0, 0))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    return False


def _strays(known: AbstractSet[int]) -> list[int]:
    """Our children of other sessions. They cannot be mistaken for others: their numbers are taken until we reap them."""
    us, session = os.getpid(), os.getsid(0)
    found = []
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) in known:
            continue
        with suppress(OSError):
            # pid (comm) state ppid pgrp session (proc_pid_stat(5)); the name may hold anything
            fields = kernel_files.read(f"/proc/{name}/stat").rpartition(")")[2].split()
            if int(fields[1]) == us and int(fields[3]) != session:
                found.append(int(name))
    return found
