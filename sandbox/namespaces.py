"""Namespaces: which flags a layer means, the user map, and what is set up inside a fresh one (namespaces(7))."""

import fcntl
import os
import socket
import struct
from contextlib import suppress

from sandbox import kernel_files, syscalls

FLAGS: dict[str, int] = {
    "userns": syscalls.CLONE_NEWUSER,
    "mountns": syscalls.CLONE_NEWNS,
    "pidns": syscalls.CLONE_NEWPID,
    "netns": syscalls.CLONE_NEWNET,
    "ipcns": syscalls.CLONE_NEWIPC,
    "utsns": syscalls.CLONE_NEWUTS,
    "cgroupns": syscalls.CLONE_NEWCGROUP,
}
# The name of each under /proc/<pid>/ns.
PROC_NAMES: dict[str, str] = {
    "userns": "user",
    "mountns": "mnt",
    "pidns": "pid",
    "netns": "net",
    "ipcns": "ipc",
    "utsns": "uts",
    "cgroupns": "cgroup",
}
# These two decide what the process is, so they come with its creation; the others it makes itself, off the fork
# server's time, the cgroup one only after it has been put into its group.
_AT_CLONE = frozenset({"userns", "pidns"})

# include/uapi/linux/sockios.h, if.h
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


def clone_flags(layers: frozenset[str]) -> int:
    """The flags with which the worker's init is made."""
    return _flags(layers & _AT_CLONE)


def unshare_flags(layers: frozenset[str]) -> int:
    """The flags of the namespaces that init makes for itself."""
    return _flags((layers & FLAGS.keys()) - _AT_CLONE)


def _flags(layers: frozenset[str]) -> int:
    return sum(FLAGS[layer] for layer in layers)


def write_maps(pid: int, inside: int, outside: int, *, privileged: bool) -> None:
    """Map the one user and the one group of the namespace of `pid` (user_namespaces(7)).

    An ordinary user may only map itself, and only after giving up setgroups(2).
    """
    if not privileged:
        kernel_files.write(f"/proc/{pid}/setgroups", b"deny")
    line = f"{inside} {outside} 1\n".encode()
    kernel_files.write(f"/proc/{pid}/uid_map", line)
    gid = outside if privileged else os.getegid()
    kernel_files.write(f"/proc/{pid}/gid_map", f"{inside} {gid} 1\n".encode())


def forbid_user_namespaces(proc: int) -> None:
    """No user namespace can be made inside this one, and only a share of what the kernel counts per user be used up.

    The kernel charges inotify to the user who made the namespace as well (namespaces(7), /proc/sys/user): without a
    cap one worker could leave none to the others, or to the host's own programs. `proc` is an open /proc.
    """
    kernel_files.write("sys/user/max_user_namespaces", b"0", directory=proc)
    for name, most in (("max_inotify_instances", b"16"), ("max_inotify_watches", b"8192")):
        with suppress(FileNotFoundError):  # absent in kernels without inotify
            kernel_files.write(f"sys/user/{name}", most, directory=proc)


def loopback_up() -> None:
    """Bring up the one interface of a fresh network namespace, so that it has a localhost of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14x", b"lo", 0)
        (_, flags) = struct.unpack("16sH14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def own_identities(pid: int | str = "self") -> dict[str, str]:
    """The namespaces a process is in, by layer: the link texts of /proc/<pid>/ns, comparable between processes."""
    return {layer: os.readlink(f"/proc/{pid}/ns/{name}") for layer, name in PROC_NAMES.items()}
