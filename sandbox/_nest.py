"""Making a process inside a pid namespace that is not ours, in a user namespace that somebody else is to own.

A zygote's child may enter a worker's namespaces only where two things hold: the pid namespace lies below the zygote's
own (setns(2)), and the user namespace belongs to the zygote's user, which gives that user every Linux capability in
there and nothing anywhere else (user_namespaces(7)).

A pid namespace is made below the maker's own, never below the one its children are born in (EINVAL), so a helper is
born there first. What it makes is its sibling (CLONE_PARENT): a child of this process, as every init is.
"""

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from sandbox import syscalls
from sandbox.syscalls import Cloned

# NO_SETUID_FIXUP: a change of the effective user leaves the Linux capabilities as they are (capabilities(7)).
_KEEP_CAPABILITIES = 0b100


@dataclass(frozen=True, slots=True)
class Within:
    """A descriptor of the pid namespace to be born below, and the user who is to own the user namespace."""

    pid_namespace: int
    owner: int


def clone(flags: int, cgroup_fd: int | None, within: Within) -> Cloned | None:
    """Like `syscalls.clone`, below the namespace of `within`. None in the new process. Raises `OSError`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        helper = _clone_helper(within.pid_namespace)
        if helper is None:
            made = _make(flags, cgroup_fd, within.owner, theirs)
            if made is None:
                return None
            _hand_over(made, theirs)
        theirs.close()
        try:
            number, descriptors, _, _ = socket.recv_fds(ours, 16, 1)
        finally:
            os.close(helper.pidfd)
            os.waitpid(helper.pid, 0)
    if not descriptors:
        failed = int(number or b"0")
        raise OSError(failed, f"clone in a zygote's namespace: {os.strerror(failed)}")
    return Cloned(_pid_of(descriptors[0]), descriptors[0])


def _clone_helper(pid_namespace: int) -> Cloned | None:
    """A child in that namespace; the children after it are born in our own again."""
    home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(pid_namespace, syscalls.CLONE_NEWPID)
        try:
            helper = syscalls.clone(0)
        except OSError:
            syscalls.setns(home, syscalls.CLONE_NEWPID)
            raise
        if helper is not None:
            syscalls.setns(home, syscalls.CLONE_NEWPID)
        return helper
    finally:
        os.close(home)


def _make(flags: int, cgroup_fd: int | None, owner: int, theirs: socket.socket) -> Cloned | None:
    try:
        if os.geteuid() != owner:
            syscalls.prctl(syscalls.PR_SET_SECUREBITS, _KEEP_CAPABILITIES)
            os.setresuid(-1, owner, -1)
        return syscalls.clone(flags | syscalls.CLONE_PARENT, cgroup_fd)
    except BaseException as error:  # noqa: BLE001 - the process boundary: the helper may not return into our caller
        theirs.send(str(getattr(error, "errno", 0) or 0).encode())
        os._exit(0)


def _hand_over(made: Cloned, theirs: socket.socket) -> NoReturn:
    try:
        socket.send_fds(theirs, [b"0"], [made.pidfd])
    except OSError:
        # Nobody would know of it.
        signal.pidfd_send_signal(made.pidfd, signal.SIGKILL)
    os._exit(0)


def _pid_of(pidfd: int) -> int:
    """The process of a descriptor, as this process counts (pidfd_open(2), /proc/self/fdinfo)."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text("ascii").splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise OSError(3, "a process descriptor without a process")
