"""What attacks are made of: calls by name, a filter that tells a wall from the kernel, the way to be root somewhere.

Runs inside, where nothing but the standard library is.
"""

import ctypes
import errno
import os
import signal
import struct
from contextlib import suppress
from typing import Any

from attacks.attack import Reached

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

# Call numbers by name, given by the agent.
NUMBERS: dict[str, int] = {}
# Calls that a filter may answer with ENOSYS, which looks like a kernel without them.
SAID_TO_BE_MISSING: set[str] = set()

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x2000000, 0x10000000, 0x40000000
AT_FDCWD = -100

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_TRACE, _ALLOW = 0x7FF00000, 0x7FFF0000


def call(name: str | int, *arguments: Any) -> int:
    """A system call; an `OSError` when it fails."""
    number = NUMBERS[name] if isinstance(name, str) else name
    ctypes.set_errno(0)
    result = int(libc.syscall(ctypes.c_long(number), *(_argument(item) for item in arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), str(name))
    return result


def _argument(item: Any) -> Any:
    return ctypes.c_long(item) if isinstance(item, int) else item


def touch_kernel(name: str, *arguments: Any) -> None:
    """Find out whether a call gets past every filter, without making it; `Reached` when it does.

    A filter of our own answers it with SECCOMP_RET_TRACE. Refusals take precedence over that (seccomp(2)); without
    any, and without a tracer, the answer is ENOSYS and the call is not made. What a filter of ours answers with ENOSYS
    cannot be told apart in this way and is really called; nothing dangerous is among it.
    """
    if name in SAID_TO_BE_MISSING:
        try:
            call(name, *arguments)
        except OSError as error:
            if error.errno == errno.ENOSYS:
                raise
        raise Reached(f"{name} was really called")
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    steps = ((0x20, 0, 0, 0), (0x15, 0, 1, NUMBERS[name]), (0x06, 0, 0, _TRACE), (0x06, 0, 0, _ALLOW))
    program = b"".join(struct.pack("=HBBI", *step) for step in steps)
    held = ctypes.create_string_buffer(program, len(program))
    call(
        "prctl",
        _PR_SET_SECCOMP,
        _MODE_FILTER,
        struct.pack("HxxxxxxP", len(steps), ctypes.addressof(held)),
        0,
        0,
    )
    try:
        call(name, *arguments)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise Reached(f"{name} is the kernel's to refuse") from None
        raise
    raise AssertionError("a traced call was made")


def try_call(name: str, *arguments: Any) -> bool:
    """Make a call. True when it works, `Reached` when it is the kernel itself that says no."""
    with suppress(OSError):
        return call(name, *arguments) >= 0
    touch_kernel(name, *arguments)
    return False


def become_root(flags: int = 0) -> None:
    """Be root in a user namespace of one's own, with the namespaces of `flags` in it: where most kernel exploits begin."""
    uid, gid = os.getuid(), os.getgid()
    call("unshare", CLONE_NEWUSER | flags)
    # Without a map the Linux capabilities are there all the same.
    with suppress(OSError):
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)


def read(path: str, most: int = 65536) -> bytes:
    """The first bytes of a file."""
    with open(path, "rb") as file:
        return file.read(most)


def there(path: str) -> bool:
    """Whether a path exists; `OSError` when not."""
    os.lstat(path)
    return True


def open_privileged(path: str, flags: int) -> bool:
    """Open what only root may open: True when it opens, `Reached` when it is there and only its owner stands before us."""
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK))
    except OSError as error:
        os.lstat(path)
        if flags != os.O_RDONLY and os.statvfs(path).f_flag & os.ST_RDONLY:
            # Who owns it is asked before whether its mount is writable.
            raise OSError(errno.EROFS, path) from None
        raise Reached(f"{path} is there: {error.strerror}") from None
    return True


def in_child(action: Any) -> bool:
    """Do `action` in a child of its own; whether it came back with something true."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with suppress(BaseException):
            code = 0 if action() else 1
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def end_all(pids: list[int]) -> None:
    """Kill and reap children."""
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    for pid in pids:
        with suppress(OSError):
            os.waitpid(pid, 0)


def seconds_later(seconds: int = 3) -> None:
    """Whatever happens, this process does not stay."""
    signal.alarm(seconds)
