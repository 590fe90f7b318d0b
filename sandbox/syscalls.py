"""The system calls Python has no name for: the only module with ctypes. A failure is an `OSError` with its errno.

Nothing here decides anything. Numbers are those of x86_64 (arch/x86/entry/syscalls/syscall_64.tbl) and aarch64
(include/uapi/asm-generic/unistd.h); calls newer than Linux 5.0 have one number everywhere.
"""

import ctypes
import os
import platform
import signal
import struct
from dataclasses import dataclass

MACHINE = platform.machine()

NUMBERS_BY_MACHINE: dict[str, dict[str, int]] = {
    "x86_64": {"pivot_root": 155, "capset": 126, "seccomp": 317, "clone": 56, "kcmp": 312},
    "aarch64": {"pivot_root": 41, "capset": 91, "seccomp": 277, "clone": 220, "kcmp": 272},
}
COMMON_NUMBERS: dict[str, int] = {
    "open_tree": 428,
    "move_mount": 429,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}
_NUMBERS = {**COMMON_NUMBERS, **NUMBERS_BY_MACHINE.get(MACHINE, {})}

# include/uapi/linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PARENT = 0x00008000
_CLONE_PIDFD = 0x00001000
_CLONE_INTO_CGROUP = 0x200000000

# include/uapi/linux/mount.h and fcntl.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_IDMAP = 0x100000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000

# include/uapi/linux/openat2.h
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04

# include/uapi/linux/prctl.h, securebits.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_LINUX_CAPABILITY_VERSION_3 = 0x20080522
# include/uapi/linux/kcmp.h
_KCMP_FILE = 0
KCMP_VM = 1
KCMP_FILES = 2

# include/uapi/linux/seccomp.h
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_GET_NOTIF_SIZES = 3
_FILTER_FLAG_NEW_LISTENER, _FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 3, 1 << 5

# `PyDLL` keeps the interpreter lock: a fork in the middle of handing it over would leave the child without it.
_libc = ctypes.PyDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


@dataclass(frozen=True, slots=True)
class Cloned:
    """A process made by `clone`, as its parent sees it."""

    pid: int
    pidfd: int


def _call(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    if name not in _NUMBERS:
        raise OSError(38, f"{name}: no number known for {MACHINE}")
    prepared = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    result = int(_syscall(ctypes.c_long(_NUMBERS[name]), *prepared))
    if result < 0:
        _raise(name)
    return result


def _libc_call(name: str, *arguments: int | bytes | ctypes.c_ulong | None) -> int:
    result = int(getattr(_libc, name)(*arguments))
    if result < 0:
        _raise(name)
    return result


def _raise(name: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{name}: {os.strerror(number)}")


def clone(flags: int, cgroup_fd: int | None = None) -> Cloned | None:
    """Fork with namespace `flags`, into the v2 cgroup of `cgroup_fd` where given; None in the child (clone(2)).

    Where clone3 is refused without a cgroup (container engines answer ENOSYS), clone is used.
    """
    pidfd = ctypes.c_int(-1)
    size = 88  # CLONE_ARGS_SIZE_VER2, which has the cgroup field (Linux 5.7)
    full = flags | _CLONE_PIDFD | (_CLONE_INTO_CGROUP if cgroup_fd is not None else 0)
    # A sibling (CLONE_PARENT) announces its end as its maker does; the kernel takes no signal for it.
    ends_with = 0 if flags & CLONE_PARENT else signal.SIGCHLD
    fields = (full, ctypes.addressof(pidfd), 0, 0, ends_with, 0, 0, 0, 0, 0, cgroup_fd or 0)
    arguments = ctypes.create_string_buffer(struct.pack("=11Q", *fields), size)
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = int(_syscall(ctypes.c_long(_NUMBERS["clone3"]), arguments, ctypes.c_long(size)))
    number = ctypes.get_errno()
    if pid < 0 and number in {38, 1} and cgroup_fd is None:
        legacy = ctypes.c_long(flags | _CLONE_PIDFD | ends_with)
        pid = int(_syscall(ctypes.c_long(_NUMBERS["clone"]), legacy, None, ctypes.byref(pidfd), None, None))
        number = ctypes.get_errno()
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return None
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, f"clone: {os.strerror(number)}")
    return Cloned(pid, pidfd.value)


def unshare(flags: int) -> None:
    """Leave namespaces for fresh ones (unshare(2))."""
    _libc_call("unshare", ctypes.c_ulong(flags))


def setns(fd: int, kind: int) -> None:
    """Join the namespace open as `fd`, which is of `kind`, one of the flags of `unshare` (setns(2))."""
    _libc_call("setns", fd, ctypes.c_ulong(kind))


def shares(pid: int, other: int, kind: int) -> bool:
    """Whether two processes have one memory (`KCMP_VM`) or one table of descriptors (`KCMP_FILES`) (kcmp(2))."""
    return _call("kcmp", pid, other, kind, 0, 0) == 0


def is_one_file(pid: int, fd: int, other: int, other_fd: int) -> bool:
    """Whether two descriptors of two processes are one open file (kcmp(2))."""
    return _call("kcmp", pid, other, _KCMP_FILE, fd, other_fd) == 0


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount something (mount(2))."""
    words = (source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _libc_call("mount", *words)


def umount(target: str, flags: int) -> None:
    """Take a mount off (umount2(2))."""
    _libc_call("umount2", os.fsencode(target), flags)


def syncfs(fd: int) -> None:
    """Write out the file system of `fd` (syncfs(2))."""
    _libc_call("syncfs", fd)


def pivot_root(new: str, old: str) -> None:
    """Change the root of the mount namespace (pivot_root(2))."""
    _call("pivot_root", os.fsencode(new), os.fsencode(old))


def sethostname(name: str) -> None:
    """Name the UTS namespace (sethostname(2))."""
    encoded = name.encode()
    _libc_call("sethostname", encoded, ctypes.c_ulong(len(encoded)))


def open_tree(fd: int, path: str = "") -> int:
    """A detached copy of the mounts at `path` under `fd`, to be put somewhere by `move_mount` (open_tree(2))."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE | (0 if path else _AT_EMPTY_PATH)
    return _call("open_tree", fd, os.fsencode(path), flags)


def move_mount(tree: int, target: int) -> None:
    """Put the detached mounts `tree` onto the directory or file open as `target` (move_mount(2))."""
    _call("move_mount", tree, b"", target, b"", _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH)


def mount_setattr(fd: int, attributes: int, *, idmap_fd: int | None = None) -> None:
    """Set attributes on every mount of the tree `fd` (mount_setattr(2)); `idmap_fd` is a user namespace."""
    wanted = attributes | (MOUNT_ATTR_IDMAP if idmap_fd is not None else 0)
    value = struct.pack("=4Q", wanted, 0, 0, idmap_fd or 0)
    _call("mount_setattr", fd, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, value, len(value))


def openat2(fd: int, path: str, flags: int, resolve: int) -> int:
    """Open close-on-exec, with rules for the lookup (openat2(2))."""
    how = struct.pack("=3Q", flags | os.O_CLOEXEC, 0, resolve)
    return _call("openat2", fd, os.fsencode(path), how, len(how))


def close_range(first: int, last: int = 2**32 - 1) -> None:
    """Close every descriptor from `first` to `last`, both included (close_range(2))."""
    if first <= last:
        _call("close_range", first, last, 0)


def prctl(option: int, *values: int) -> int:
    """Change this process's attributes (prctl(2))."""
    padded = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    return _libc_call("prctl", option, *padded)


def capset_nothing() -> None:
    """Empty the effective, permitted and inheritable sets (capset(2))."""
    header = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    _call("capset", header, bytes(24))


def seccomp_filter(program: bytes) -> None:
    """Install a filter of `struct sock_filter`, for good (seccomp(2)); needs no-new-privs."""
    held = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held))
    _call("seccomp", _SECCOMP_SET_MODE_FILTER, 0, header)


def seccomp_listener(program: bytes) -> int:
    """Install a filter as `seccomp_filter` does; gives the descriptor on which its notifications arrive.

    A caller whose notification has been received is interrupted by fatal signals only, where the kernel can (5.19).
    """
    held = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held))
    try:
        flags = _FILTER_FLAG_NEW_LISTENER | _FILTER_FLAG_WAIT_KILLABLE_RECV
        return _call("seccomp", _SECCOMP_SET_MODE_FILTER, flags, header)
    except OSError as error:
        if error.errno != 22:  # noqa: PLR2004 - EINVAL: a flag this kernel does not know
            raise
    return _call("seccomp", _SECCOMP_SET_MODE_FILTER, _FILTER_FLAG_NEW_LISTENER, header)


def seccomp_notification_sizes() -> tuple[int, int]:
    """How large the running kernel's struct seccomp_notif and struct seccomp_notif_resp are (seccomp(2))."""
    sizes = ctypes.create_string_buffer(6)
    _call("seccomp", _SECCOMP_GET_NOTIF_SIZES, 0, sizes)
    notification, response, _ = struct.unpack("=3H", sizes.raw)
    return notification, response


def landlock_abi() -> int:
    """The Landlock version of this kernel (landlock_create_ruleset(2), LANDLOCK_CREATE_RULESET_VERSION)."""
    return _call("landlock_create_ruleset", None, 0, 1)


def landlock_create_ruleset(attributes: bytes) -> int:
    """A new ruleset's descriptor."""
    return _call("landlock_create_ruleset", attributes, len(attributes), 0)


def landlock_add_rule(ruleset: int, kind: int, attributes: bytes) -> None:
    """Add one rule."""
    _call("landlock_add_rule", ruleset, kind, attributes, 0)


def landlock_restrict_self(ruleset: int) -> None:
    """Apply the ruleset to this process and all it will start."""
    _call("landlock_restrict_self", ruleset, 0)


def answer(number: int, *arguments: int | bytes) -> int:
    """The errno with which call `number` is turned down, 0 where it is not: for asking whether a filter stands there."""
    prepared = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    result = int(_syscall(ctypes.c_long(number), *prepared))
    return ctypes.get_errno() if result < 0 else 0
