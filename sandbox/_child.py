"""The confined side: a worker's init and the worker before its exec. The audited core; runs single-threaded.

init is made by the spawner with `syscalls.clone` and never returns. It prepares itself, waits for its order on the
gate (a socket to the spawner), confines itself step by step and forks the worker, which confines itself further and
waits, poised, until the spawner has read back from the kernel what is in force. Then the worker becomes the program,
and init does the one thing it is for: reaps, passes signals on, and ends when the worker ends or the spawner is gone.
As pid 1 of its namespace it takes everything in there with it.
"""

import errno
import fcntl
import json
import os
import select
import signal
import socket
from dataclasses import replace
from typing import NoReturn

from sandbox import _order, privileges, syscalls
from sandbox._confine import StepFailed, Subject, run_steps
from sandbox.spec import SandboxSpec

# Between the standard streams and `FIRST_FREE_FD`.
_GATE_FD, _STATUS_FD = 3, 4
# Where descriptors wait so that placing those overwrites none of them.
_PARKED_FD = 32

# Seen by the spawner only, which has the reason from the gate.
_SETUP_FAILED = 125


def main(
    gate: socket.socket, entries: tuple[int, ...], layers: frozenset[str], prepare: tuple[str, ...]
) -> NoReturn:
    """Be a worker's init, from right after clone to the end. Whatever fails is said on the gate."""
    try:
        _drop_inherited((gate.fileno(), *entries))
        subject = Subject(gate, entries, layers)
        run_steps(subject, prepare)
        subject.order = _order.receive(gate)
        if subject.order is None:
            os._exit(0)
        run_steps(subject, subject.order.confine)
        _serve(subject)
    except StepFailed as failure:
        say(gate, {"failed": [failure.step, failure.number, failure.detail]})
    except BaseException as error:  # noqa: BLE001 - the process boundary: nothing may return into the spawner's code
        say(gate, {"failed": ["init", getattr(error, "errno", 0) or 0, type(error).__name__]})
    finally:
        os._exit(_SETUP_FAILED)


def say(gate: socket.socket, message: dict[str, object]) -> None:
    """One packet to the spawner; when that is gone there is nobody to tell."""
    try:
        gate.send(json.dumps(message).encode())
    except OSError:
        os._exit(_SETUP_FAILED)


def _drop_inherited(keep: tuple[int, ...]) -> None:
    """Close everything the spawner had open, and be deaf to what it listened to."""
    signal.set_wakeup_fd(-1)
    first = 0
    for fd in sorted(keep):
        syscalls.close_range(first, fd - 1)
        first = fd + 1
    syscalls.close_range(first)
    for _ in range(3):
        os.open("/dev/null", os.O_RDWR)


def _serve(subject: Subject) -> NoReturn:
    """Fork the worker and stay until it ends."""
    order = subject.told
    wakeups, wakeup_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    status, status_end = os.pipe2(os.O_CLOEXEC)
    worker = os.fork()
    if worker == 0:
        os.close(status)
        _be_worker(subject, status_end)
    os.close(status_end)
    for fd in order.descriptors():
        os.close(fd)
    if "seccomp" in order.layers:
        run_steps(subject, ("restrict-seccomp",))
    # Closed by a successful exec, or at the worker's end, in which case it has said why.
    failed = os.read(status, 1)
    os.close(status)
    if failed:
        os._exit(_SETUP_FAILED)
    say(subject.gate, {"running": True})
    _keep(subject.gate, worker, wakeups)


def _keep(gate: socket.socket, worker: int, wakeups: int) -> NoReturn:
    poll = select.poll()
    poll.register(gate, select.POLLIN)
    poll.register(wakeups, select.POLLIN)
    while True:
        _reap(gate, worker)
        for fd, _ in poll.poll():
            if fd == wakeups:
                if signal.SIGTERM in os.read(wakeups, 4096):
                    _pass_on(worker, signal.SIGTERM)
            else:
                packet = gate.recv(4096)
                if not packet:
                    os._exit(0)
                _pass_on(worker, json.loads(packet)["signal"])


def _reap(gate: socket.socket, worker: int) -> None:
    """Collect whoever ended; when it was the worker, say how and end, which ends everyone left in here."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == worker:
            code = os.waitstatus_to_exitcode(status)
            say(gate, {"ended": [code, None] if code >= 0 else [None, -code]})
            os._exit(0)


def _pass_on(worker: int, signum: int) -> None:
    try:
        os.kill(worker, signum)
    except OSError:
        return


def _be_worker(subject: Subject, status_end: int) -> NoReturn:
    """Finish the confinement and become the program."""
    order = subject.told
    try:
        privileges.die_with_parent()
        _place(subject, status_end)
        run_steps(subject, order.finish)
        say(subject.gate, {"poised": [subject.landlock_abi, subject.landlock_seen]})
        if not subject.gate.recv(4096):
            os._exit(0)
        _execute(order.spec)
    except StepFailed as failure:
        say(subject.gate, {"failed": [failure.step, failure.number, failure.detail]})
    except BaseException as error:  # noqa: BLE001 - the process boundary: nothing may return into init's code
        say(subject.gate, {"failed": ["worker", getattr(error, "errno", 0) or 0, type(error).__name__]})
    finally:
        os.write(_STATUS_FD, b"x")
        os._exit(_SETUP_FAILED)


def _place(subject: Subject, status_end: int) -> None:
    """Park the streams out of the way, then put the gate and the status pipe at their fixed numbers."""
    subject.order = replace(subject.told, streams=tuple(_park(fd) for fd in subject.told.streams))
    gate, status = _park(subject.gate.fileno()), _park(status_end)
    os.dup2(gate, _GATE_FD, inheritable=False)
    os.dup2(status, _STATUS_FD, inheritable=False)
    subject.gate = socket.socket(fileno=_GATE_FD)


def _park(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _PARKED_FD)


def _execute(spec: SandboxSpec) -> NoReturn:
    """Become the program, looked for along the specification's own PATH; `StepFailed` says what was not there."""
    environment = dict(spec.env)
    name = spec.argv[0]
    candidates = (
        [name] if "/" in name else [os.path.join(place, name) for place in os.get_exec_path(environment)]
    )
    failure = OSError(errno.ENOENT, "")
    for candidate in candidates:
        try:
            os.execve(candidate, spec.argv, environment)  # noqa: S606 - what all of this is for
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR} or failure.errno == errno.ENOENT:
                failure = error
    number = failure.errno or 0
    missing = number in {errno.ENOENT, errno.ENOTDIR}
    detail = (
        f"the program {name} was not found inside the sandbox"
        if missing
        else f"the program {name} cannot be run"
    )
    raise StepFailed("exec", number, detail)
