"""The confined side: a worker's init and the worker before its exec. The audited core; runs single-threaded.

init is made by the fork server with `syscalls.clone` and never returns. It prepares itself, forks the worker and waits
for its order on the gate, a socket to the fork server. When that comes the worker gets it too, on a socket between the
two; init puts the root together, says so, and both confine themselves to the end. The worker then waits, poised, until
the fork server has read back from the kernel what is in force, and becomes the program. init does the one thing it is
for: reaps, passes signals on, and ends when the worker ends or the fork server is gone. As pid 1 of its namespace it
takes everything in there with it. It is also who the kernel asks about the calls that the worker is refused, and counts
them (`denials`).
"""

import errno
import fcntl
import gc
import json
import os
import select
import signal
import socket
from contextlib import suppress
from functools import partial
from typing import NoReturn, cast

from sandbox import _order, _rehearsal, _zygote_init, privileges, syscalls
from sandbox._confine import FIRST_FREE_FD, StepFailed, Subject, run_steps
from sandbox.seccomp.denials import Denials
from sandbox.spec import SandboxSpec
from sandbox.steps import FORKED

# Between the standard streams and `FIRST_FREE_FD`.
_GATE_FD, _INIT_FD = 3, 4
# Where descriptors wait so that placing those overwrites none of them.
_PARKED_FD = 32

# Seen by the fork server only, which has the reason from the gate.
_SETUP_FAILED = 125
# What the two say to each other before the worker's exec; a word of the worker may bring a descriptor.
_FAILED, _READY = b"failed", b"ready"
_MAX_WORD_BYTES = 256


def main(subject: Subject, prepare: tuple[str, ...]) -> NoReturn:
    """Be a worker's init, from right after clone to the end. Whatever fails is said on the gate."""
    gate = subject.gate
    try:
        gc.disable()
        _drop_inherited((gate.fileno(), *subject.entries))
        run_steps(subject, prepare)
        if subject.role == "site":
            _zygote_init.be_site(subject, partial(say, gate))
        worker, channel = _fork(subject)
        if subject.is_spare:
            _rehearsal.as_spare()
        _wait_for_order(gate, channel)
        received = _order.receive(gate, _streams(subject))
        if received is None:
            os._exit(0)
        received.pass_on(channel)
        subject.order = received.read()
        run_steps(subject, subject.order.confine)
        channel.send(_READY)
        _serve(subject, worker, channel)
    except StepFailed as failure:
        say(gate, {"failed": [failure.step, failure.number, failure.detail]})
    except BaseException as error:  # noqa: BLE001 - the process boundary: nothing may return into its caller's code
        say(gate, {"failed": ["init", getattr(error, "errno", 0) or 0, type(error).__name__]})
    finally:
        os._exit(_SETUP_FAILED)


def say(gate: socket.socket, message: dict[str, object]) -> None:
    """One packet to the fork server; when that is gone there is nobody to tell."""
    try:
        gate.send(json.dumps(message).encode())
    except OSError:
        os._exit(_SETUP_FAILED)


def _drop_inherited(keep: tuple[int, ...]) -> None:
    """Close everything the fork server had open, and be deaf to what it listened to."""
    signal.set_wakeup_fd(-1)
    first = 0
    for fd in sorted(keep):
        syscalls.close_range(first, fd - 1)
        first = fd + 1
    syscalls.close_range(first)
    for _ in range(3):
        os.open("/dev/null", os.O_RDWR)


def _fork(subject: Subject) -> tuple[int, socket.socket]:
    """Make the worker to be; its pid, and a socket to it that ends with it or with its exec."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    init = os.getpid()
    worker = os.fork()
    if worker == 0:
        ours.close()
        subject.parent = init
        _be_worker(subject, theirs)
    theirs.close()
    return worker, ours


def _wait_for_order(gate: socket.socket, channel: socket.socket) -> None:
    """Until there is an order; a worker that dies before, killed by somebody, takes this spare with it."""
    poll = select.poll()
    poll.register(gate, select.POLLIN)
    poll.register(channel, select.POLLIN)
    if channel.fileno() in dict(poll.poll()):
        os._exit(_SETUP_FAILED)


def _serve(subject: Subject, worker: int, channel: socket.socket) -> NoReturn:
    """Confine this process too, see the worker become the program, and stay until it ends."""
    order = subject.told
    for fd in order.descriptors():
        os.close(fd)
    run_steps(subject, order.withdraw)
    say(subject.gate, {"confined": True})
    denials, uncounted = _wait_running(subject, channel)
    wakeups, wakeup_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    say(subject.gate, {"running": True, "uncounted": uncounted})
    if subject.role == "zygote":
        _zygote_init.keep_zygote(subject.gate.fileno(), worker, wakeups, partial(say, subject.gate))
    _keep(subject, worker, wakeups, denials)


def _streams(subject: Subject) -> int:
    """A zygote has a channel to the fork server as well."""
    return _order.STREAMS + (subject.role == "zygote")


def _wait_running(subject: Subject, channel: socket.socket) -> tuple[Denials | None, str]:
    """Until the worker has become its program, or has ended; what counts its denied calls, or why nothing does."""
    denials, uncounted = None, "seccomp is not in force"
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    with channel:
        while True:
            if channel.fileno() not in dict(poll.poll()):
                # Refused on its way to its program: answered, for it would wait for ever.
                cast("Denials", denials).take()
                continue
            word, descriptors, _, _ = socket.recv_fds(channel, _MAX_WORD_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            if not word:
                # Closed by a successful exec, or at the worker's end.
                return denials, uncounted
            if word == _FAILED:
                os._exit(_SETUP_FAILED)
            uncounted = word.removeprefix(b"uncounted ").decode("utf-8", "replace")
            if descriptors and subject.filter is not None:
                denials, uncounted = Denials(descriptors[0], subject.filter.refusals), ""
                poll.register(denials, select.POLLIN)


def _keep(subject: Subject, worker: int, wakeups: int, denials: Denials | None) -> NoReturn:
    gate = subject.gate
    poll = select.poll()
    poll.register(gate, select.POLLIN)
    poll.register(wakeups, select.POLLIN)
    if denials:
        poll.register(denials, select.POLLIN)
    while True:
        _reap(subject, worker, denials)
        for fd, events in poll.poll(denials.wait_milliseconds() if denials else None):
            if fd == wakeups:
                if signal.SIGTERM in os.read(wakeups, 4096):
                    _pass_on(worker, signal.SIGTERM)
            elif fd == gate.fileno():
                packet = gate.recv(4096)
                if not packet:
                    _leave(subject)
                message = json.loads(packet)
                if "end" in message:
                    _report(subject, denials, at_once=True)
                    _leave(subject)
                _pass_on(worker, message["signal"])
            elif denials and events & select.POLLIN:
                denials.take()
            else:
                poll.unregister(fd)
        _report(subject, denials)


def _report(subject: Subject, denials: Denials | None, *, at_once: bool = False) -> None:
    if denials and (counts := denials.report(at_once=at_once)):
        try:
            subject.gate.send(json.dumps({"denied": counts}).encode())
        except OSError:
            _leave(subject)


def _leave(subject: Subject) -> NoReturn:
    """Nobody is to be told anything any more."""
    _end_everyone(subject)
    os._exit(0)


def _end_everyone(subject: Subject) -> None:
    """End all that was ever started from here and see it gone, where no pid namespace does that when this ends.

    Only with our signals kept among our own; without that the fork server looks for who is left (`strays`).
    """
    while subject.signals_scoped:
        with suppress(OSError):
            os.kill(-1, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _reap(subject: Subject, worker: int, denials: Denials | None) -> None:
    """Collect whoever ended; when it was the worker, say how and end, which ends everyone left in here."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == worker:
            _report(subject, denials, at_once=True)
            _end_everyone(subject)
            code = os.waitstatus_to_exitcode(status)
            say(subject.gate, {"ended": [code, None] if code >= 0 else [None, -code]})
            os._exit(0)


def _pass_on(worker: int, signum: int) -> None:
    try:
        os.kill(worker, signum)
    except OSError:
        return


def _be_worker(subject: Subject, channel: socket.socket) -> NoReturn:
    """Wait for the order, finish the confinement and become the program."""
    try:
        privileges.die_with_parent()
        channel = subject.init = _place(subject, channel)
        run_steps(subject, FORKED)
        if subject.is_spare:
            _rehearsal.as_spare()
        received = _order.receive(channel, _streams(subject))
        if received is None:
            os._exit(0)
        order = subject.order = received.read_as_worker()
        if not channel.recv(_MAX_WORD_BYTES):
            os._exit(0)
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
        os.write(_INIT_FD, _FAILED)
        os._exit(_SETUP_FAILED)


def _place(subject: Subject, channel: socket.socket) -> socket.socket:
    """Put the gate and the channel to init at their fixed numbers; whatever else was there is init's."""
    parked = [
        fcntl.fcntl(each.detach(), fcntl.F_DUPFD_CLOEXEC, _PARKED_FD) for each in (subject.gate, channel)
    ]
    for fd, number in zip(parked, (_GATE_FD, _INIT_FD), strict=True):
        os.dup2(fd, number, inheritable=False)
    syscalls.close_range(FIRST_FREE_FD)
    subject.gate = socket.socket(fileno=_GATE_FD)
    return socket.socket(fileno=_INIT_FD)


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
