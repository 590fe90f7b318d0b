"""The one deadline of a call, which counts the server's time and the client's apart."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import anyio

from mcphost.errors import CallTimeout, McpHostError, Unanswered


@dataclass(frozen=True, slots=True)
class AskingLimits:
    """How long clients are waited for while a server asks them something, and how many at once.

    `answer_seconds`: for a legacy client all the time that one call may ask, for a modern one the time until it comes
    back with answers. A place of its tenant's, and mostly a process, are held for so long.
    `parked`: calls of one principal that wait for it to come back.
    """

    answer_seconds: float = 600.0  # a person reads a form, looks something up, and comes back
    parked: int = 16  # a person who is asked so many things answers none


class CallTime:
    """Bounds one call: the server's work, and by itself what the client takes to answer."""

    def __init__(self, seconds: float, answer_seconds: float) -> None:
        self._seconds = seconds
        self._answer_seconds = answer_seconds
        self._left = seconds
        self._answer_left = answer_seconds
        self._asking = 0
        self._since = 0.0
        self._unanswered = False
        self._why: McpHostError | None = None
        self._scope = anyio.CancelScope()

    def __repr__(self) -> str:
        return f"<CallTime {'the client' if self._asking else 'the server'} is waited for>"

    @contextmanager
    def running(self) -> Iterator[None]:
        """The call. It begins with the server at work.

        Raises:
            CallTimeout: the server's time passed.
            Unanswered: the client's did.
            McpHostError: what `stop` was given.
        """
        self._since = anyio.current_time()
        self._scope.deadline = self._since + self._left
        with self._scope:
            yield
        if self._scope.cancelled_caught:
            if self._why is not None:
                raise self._why
            if self._unanswered or self._asking:
                raise Unanswered(self._answer_seconds)
            raise CallTimeout(self._seconds)

    def stop(self, why: McpHostError) -> None:
        """End the call with this error. The first reason counts."""
        if self._why is None:
            self._why = why
            self._scope.cancel()

    def wait_for_client(self) -> None:
        """From now on the client is waited for, until as many `back_to_work` were called."""
        if self._asking == 0:
            self._left -= self._passed()
            self._scope.deadline = self._since + self._answer_left
        self._asking += 1

    def back_to_work(self) -> None:
        """One wait for the client is over."""
        if self._scope.cancel_called:
            self._unanswered = True  # unless there is another reason, which counts more
        self._asking -= 1
        if self._asking == 0:
            self._answer_left -= self._passed()
            self._scope.deadline = self._since + self._left

    @contextmanager
    def queueing(self) -> Iterator[None]:
        """The call waits for its turn inside the block, for as long as whoever calls turns lets it: no time counts."""
        self._left -= self._passed()
        self._scope.deadline = math.inf
        try:
            yield
        finally:
            self._passed()
            self._scope.deadline = self._since + self._left

    def refill(self) -> None:
        """The client has come back: it may take its time anew."""
        self._answer_left = self._answer_seconds

    @contextmanager
    def asking(self) -> Iterator[None]:
        """The client is waited for inside the block; blocks may overlap."""
        self.wait_for_client()
        try:
            yield
        finally:
            self.back_to_work()

    def _passed(self) -> float:
        """Seconds since the last change of whose time counts, which is now."""
        before, self._since = self._since, anyio.current_time()
        return self._since - before
