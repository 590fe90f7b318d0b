"""Finding out what stands in the way, by calls that change nothing: a layer's trial says that it fails, this says why.

A system call filter answers before the kernel looks at arguments. So each call here is one that the kernel itself
turns down for its form (a flag nobody defined, an empty path), with an error that no filter gives; any other error is
the filter's. Every call is made in a process of its own, for a filter may also kill.
"""

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from sandbox import syscalls
from sandbox.doctor.place import Attempts
from sandbox.seccomp import bpf, filters

_NO_SUCH_FLAG = 0x80000000  # of umount2(2), open_tree(2), mount_setattr(2)
_UNSHARE_NO_SUCH_FLAG = 0x1  # of unshare(2), where the low byte is none of the flags but CLONE_NEWTIME
_CLONE_FS = 0x00000200  # together with CLONE_NEWUSER it is refused (clone(2), EINVAL)
_BAD_FD = -1
_NO_SUCH_PID = 0x7FFFFFFF  # above PID_MAX_LIMIT of any kernel (include/linux/threads.h)

# Call, arguments, and the error with which the kernel itself turns that down.
_CALLS: tuple[tuple[str, tuple[int | bytes, ...], int], ...] = (
    ("clone", (syscalls.CLONE_NEWUSER | _CLONE_FS, 0, 0, 0, 0), errno.EINVAL),
    ("unshare", (syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS | _UNSHARE_NO_SUCH_FLAG,), errno.EINVAL),
    ("mount", (b"", b"", b"", 0, 0), errno.ENOENT),
    ("umount2", (b"", _NO_SUCH_FLAG), errno.EINVAL),
    ("open_tree", (_BAD_FD, b"", _NO_SUCH_FLAG), errno.EINVAL),
    ("mount_setattr", (_BAD_FD, b"", _NO_SUCH_FLAG, 0, 0), errno.EINVAL),
    ("openat2", (_BAD_FD, b"", 0, 0), errno.EINVAL),
    ("setns", (_BAD_FD, 0), errno.EBADF),
    ("kcmp", (_NO_SUCH_PID, _NO_SUCH_PID, 0, 0, 0), errno.ESRCH),
)
# The kernel asks for privilege before it looks at these, so that only who holds it can tell the two apart.
_PRIVILEGED_CALLS: tuple[tuple[str, tuple[int | bytes, ...], int], ...] = (
    ("pivot_root", (b"", b""), errno.ENOENT),
    ("sethostname", (b"", -1), errno.EINVAL),
    ("move_mount", (_BAD_FD, b"", _BAD_FD, b"", _NO_SUCH_FLAG), errno.EINVAL),
)
_LOOP_CONTROL = "/dev/loop-control"
_MAKE_EXT4 = "mke2fs"
_TOOL_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_KILLED = -1


def attempt(*, may_administer: bool) -> Attempts:
    """Make the calls. Forks, so the calling process must be single-threaded."""
    calls = _CALLS + (_PRIVILEGED_CALLS if may_administer else ())
    numbers = filters.numbers(syscalls.MACHINE)
    answers = {name: _apart(partial(syscalls.answer, numbers[name], *given)) for name, given, _ in calls}
    return Attempts(
        refused_calls=tuple(name for name, _, own in calls if answers[name] not in {own, 0}),
        landlock_errno=_apart(partial(_errno_of, syscalls.landlock_abi)),
        notifier_errno=_apart(partial(_errno_of, _listen_to_calls)),
        loop_errno=_apart(partial(_errno_of, _open_loop_control)),
        has_mkfs=shutil.which(_MAKE_EXT4, path=_TOOL_PATH) is not None,
    )


def _apart(call: Callable[[], int]) -> int:
    """What `call` gives in a process of its own, `_KILLED` where that was killed for it."""
    report, report_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            os.write(report_end, str(call()).encode())
        os._exit(0)
    os.close(report_end)
    text = os.read(report, 16)
    os.close(report)
    os.waitpid(pid, 0)
    return int(text) if text else _KILLED


def _errno_of(action: Callable[..., object], *arguments: int) -> int:
    try:
        action(*arguments)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _listen_to_calls() -> None:
    """Under another listener, as some container engines have one, there can be none (seccomp(2), EBUSY)."""
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.seccomp_listener(bpf.program({}, bpf.ALLOW, syscalls.MACHINE))


def _open_loop_control() -> None:
    os.close(os.open(_LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC))


def main(may_administer: str) -> None:
    """Print the outcome as JSON."""
    outcome = attempt(may_administer=may_administer == "1")
    sys.stdout.write(json.dumps(outcome.to_wire()))
