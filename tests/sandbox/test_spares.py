"""When spares are made, taken and replaced. The workers here are real processes; the times are made up."""

import contextlib
import os
import signal
import socket

import pytest

from sandbox._spares import LEAST_LIFE_SECONDS, MOST, Spares


class Prepared:
    """What of a worker a decision about spares looks at; its process is a child of ours that waits."""

    def __init__(self, made_at: float = 0.0) -> None:
        self.prepared = ("a",)
        self.made_at = made_at
        self.gate, self.other_side = socket.socketpair()
        self.reading, self.writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.writing)
            os.read(self.reading, 1)
            os._exit(0)
        os.close(self.reading)
        self.pidfd = os.pidfd_open(self.pid)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def close(self) -> None:
        os.close(self.writing)
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self.gate.close()
        self.other_side.close()


@pytest.fixture
def prepare():
    with contextlib.ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(contextlib.closing(Prepared(*arguments)))


def test_they_are_made_until_there_are_enough_and_again_after_a_start(prepare):
    spares = Spares()
    for number in range(MOST):
        assert spares.wanted_in(number) == 0
        spares.add(prepare(), number)
    assert spares.wanted_in(9) is None
    assert spares.take(("b",)) is None
    assert spares.take(("a",)) is not None
    spares.want(10)
    assert spares.wanted_in(10) == 0


def test_what_cannot_be_made_is_tried_for_again_with_the_next_start_only():
    spares = Spares()
    spares.give_up()
    assert spares.wanted_in(5) is None
    spares.want(6)
    assert spares.wanted_in(6) == 0


def test_one_that_dies_is_replaced_but_never_in_a_circle(prepare):
    spares, old, young = Spares(), prepare(0.0), prepare(100.0)
    spares.add(old, 1)
    spares.add(young, 100)
    spares.lose(old, 100.25)
    assert spares.wanted_in(100.25) == 0
    spares.give_up()
    spares.lose(young, 100.25)
    assert spares.wanted_in(100.25) == LEAST_LIFE_SECONDS - 0.25
    spares.lose(young, 100.5)
    spares.close()
    assert spares.wanted_in(1000) is None


def test_a_dead_or_failed_one_is_passed_over(prepare):
    spares, dead, living = Spares(), prepare(), prepare()
    spares.add(dead, 0)
    spares.add(living, 0)
    failed = prepare()
    spares.add(failed, 0)
    dead.kill()
    failed.other_side.send(b"failed")
    assert spares.take(("a",)) is living
    assert spares.take(("a",)) is None
