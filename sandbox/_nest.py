"""Making a process inside a pid namespace that is not ours, in a user namespace that somebody else is to own.

A zygote's child may enter a worker's namespaces only where two things hold: the pid namespace lies below the zygote's
own (setns(2)), and the user namespace belongs to the zygote's user, which gives that user every Linux capability in
there and nothing anywhere else (user_namespaces(7)).

A pid namespace is made below the maker's own, never below the one its children are born in (EINVAL), and an ordinary
user's fork server could not come back from another one (setns(2) asks for rights over the one to go to). So one helper
sets where its children are born, and a second is born there and makes the process. Each is made as a sibling
(CLONE_PARENT): so what comes out is a child of this process, as every init is.
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
_HELPERS = 2


@dataclass(frozen=True, slots=True)
class Within:
    """A descriptor of the pid namespace to be born below, and the user who is to own the user namespace."""

    pid_namespace: int
    owner: int


def clone(flags: int, cgroup_fd: int | None, within: Within) -> Cloned | None:
    """Like `syscalls.clone`, below the namespace of `within`. None in the new process. Raises `OSError`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        helper = syscalls.clone(0)
        if helper is None:
            _be_helper(flags, cgroup_fd, within, theirs)
            return None
        theirs.close()
        os.close(helper.pidfd)
        helpers = [helper.pid]
        try:
            made, failed = _listen(ours, helpers)
        finally:
            for pid in helpers:
                os.waitpid(pid, 0)
    if made is None:
        raise OSError(failed, f"clone in a zygote's namespace: {os.strerror(failed)}")
    return made


def _listen(ours: socket.socket, helpers: list[int]) -> tuple[Cloned | None, int]:
    """What was made, or an errno; the second helper is added to `helpers`.

    The two speak in either order. A helper that nobody reaps would hold up the end of the namespace it was born in.
    """
    made, failed = None, 0
    while (made is None or len(helpers) < _HELPERS) and (said := _hear(ours)):
        number, descriptor = said
        if descriptor is None:
            failed = number
        elif number:
            helpers.append(number)
            os.close(descriptor)
        else:
            made = Cloned(_pid_of(descriptor), descriptor)
    return made, failed


def _hear(ours: socket.socket) -> tuple[int, int | None] | None:
    """A helper's pid with its descriptor, 0 with that of what was made, or an errno with none; None at the end."""
    packet, descriptors, _, _ = socket.recv_fds(ours, 16, 1, socket.MSG_CMSG_CLOEXEC)
    return (int(packet), descriptors[0] if descriptors else None) if packet else None


def _be_helper(flags: int, cgroup_fd: int | None, within: Within, theirs: socket.socket) -> None:
    """Returns in the process that was to be made, and in no other."""
    try:
        syscalls.setns(within.pid_namespace, syscalls.CLONE_NEWPID)
        second = syscalls.clone(syscalls.CLONE_PARENT)
        if second is not None:
            socket.send_fds(theirs, [str(second.pid).encode()], [second.pidfd])
            os._exit(0)
        if os.geteuid() != within.owner:
            syscalls.prctl(syscalls.PR_SET_SECUREBITS, _KEEP_CAPABILITIES)
            os.setresuid(-1, within.owner, -1)
        made = syscalls.clone(flags | syscalls.CLONE_PARENT, cgroup_fd)
        if made is not None:
            _hand_over(made, theirs)
    except BaseException as error:  # noqa: BLE001 - the process boundary: a helper may not return into our caller
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
