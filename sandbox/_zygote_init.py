"""The confined side of a zygote: the init it lives under, and the inits of its workers. Trusted, unlike both.

A zygote's init also becomes the parent of every worker forked there, so it is the one who learns how each ended. The
init of such a worker makes the place, waits until the worker inside was looked at, brings in what is the tenant's,
gives up everything as any init does, and is pid 1 until it is killed.
"""

import json
import os
import select
import signal
from collections.abc import Callable
from typing import NoReturn

from sandbox import _order
from sandbox._confine import Subject, run_steps

_MAX_WORD_BYTES = 4096

Say = Callable[[dict[str, object]], None]


def keep_zygote(gate: int, zygote: int, wakeups: int, say: Say) -> NoReturn:
    """Reap and report, stop the zygote and let it go on, until the gate is closed. Stays when the zygote has ended."""
    poll = _poll(gate, wakeups)
    while True:
        _report(zygote, say)
        for fd, _ in poll.poll():
            if fd == wakeups:
                os.read(wakeups, 4096)
                continue
            packet = os.read(gate, 4096)
            if not packet:
                os._exit(0)
            _signal(zygote, signal.SIGSTOP if "stop" in json.loads(packet) else signal.SIGCONT)


def _report(zygote: int, say: Say) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if os.WIFSTOPPED(status):
            if pid == zygote:
                say({"stopped": True})
            continue
        code = os.waitstatus_to_exitcode(status)
        ended = [code, None] if code >= 0 else [None, -code]
        say({"ended": ended} if pid == zygote else {"reaped": [pid, *ended]})


def be_site(subject: Subject, say: Say) -> NoReturn:
    """A worker's init: make the place, wait for what the worker gets, bring it in, confine itself, stay."""
    for done in ("assembled", "sealed"):
        received = _order.receive(subject.gate, streams=0)
        if received is None:
            os._exit(0)
        subject.order = received.read()
        run_steps(subject, subject.order.confine)
        if done == "assembled":
            say({"assembled": True})
            if not subject.gate.recv(_MAX_WORD_BYTES):
                os._exit(0)
            run_steps(subject, ("hide-memory",))
            say({"hidden": True})
    wakeups, wakeup_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    say({"sealed": True})
    poll = _poll(subject.gate.fileno(), wakeups)
    while True:
        _reap()
        for fd, _ in poll.poll():
            if fd == wakeups:
                os.read(wakeups, 4096)
            elif not os.read(fd, 4096):
                os._exit(0)


def _reap() -> None:
    """Orphans of the worker; the worker itself is not a child of its init."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _poll(gate: int, wakeups: int) -> select.poll:
    poll = select.poll()
    poll.register(gate, select.POLLIN)
    poll.register(wakeups, select.POLLIN)
    return poll


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        return
