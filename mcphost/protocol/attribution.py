"""Whose is what a server says without naming a request: its own questions, and its log messages.

On stdio nothing in such a message says to which request it belongs (2025-11-25; log messages in 2026-07-28, too).
It is delivered only where exactly one request can be meant; that there is never more than one is for those to see to
who send requests. A request that was given up can still be meant until the server has answered it, which it need not
do: what is said of it late would reach the next one.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from mcphost.protocol.versions import Era

# So many requests that were given up are told apart, as `pending` does. Past that one counts as unanswered for good.
MAX_LATE: Final = 1024


@dataclass(frozen=True, slots=True)
class Hears:
    """What a request may get besides its answer and its progress."""

    logs: bool = False
    questions: bool = False


DEAF: Final = Hears()


class Attribution:
    """The requests that may hear what names none. Holds no more than the requests in flight and three times `MAX_LATE` ids.

    With `one_client` all requests come from one client, and the oldest is meant: its stream is as good as any.
    """

    def __init__(self, *, one_client: bool) -> None:
        self._one_client = one_client
        self._logs: dict[int, None] = {}  # in the order they were sent, as are the questions'
        self._questions: dict[int, None] = {}
        self._late = _Late()
        self._late_logs = _Late()
        self._late_questions = _Late()

    def __repr__(self) -> str:
        return f"<Attribution {len(self._logs)} hear logs, {len(self._questions)} questions>"

    def unsettled(self, era: Era) -> bool:
        """Whether the server may still say something, without naming it, of a request that was given up."""
        return bool(self._late if era == "legacy" else self._late_logs)

    def sent(self, identifier: int, hears: Hears) -> None:
        """A request is under way."""
        if hears.logs:
            self._logs[identifier] = None
        if hears.questions:
            self._questions[identifier] = None

    def answered(self, identifier: int) -> None:
        """A request was answered, in time or late."""
        self._logs.pop(identifier, None)
        self._questions.pop(identifier, None)
        for late in (self._late, self._late_logs, self._late_questions):
            late.discard(identifier)

    def cancelled(self, identifier: int) -> None:
        """A request was given up."""
        self._late.add(identifier)
        if self._logs.pop(identifier, self) is None:
            self._late_logs.add(identifier)
        if self._questions.pop(identifier, self) is None:
            self._late_questions.add(identifier)

    def settle(self) -> None:
        """Take it that the server says no more of anything given up."""
        for late in (self._late, self._late_logs, self._late_questions):
            late.clear()

    def of_question(self) -> int | None:
        """The request that a question of the server belongs to; None if that cannot be said."""
        return self._meant(self._questions, self._late_questions)

    def of_log(self, era: Era, in_flight: int) -> int | None:
        """The same of a log message; `in_flight` counts all requests under way.

        A modern server logs only for requests that ask for it, a legacy one for any.
        """
        if not self._one_client and era == "legacy" and (in_flight > 1 or self._late):
            return None
        return self._meant(self._logs, self._late_logs)

    def _meant(self, candidates: dict[int, None], late: "_Late") -> int | None:
        if not candidates or (not self._one_client and (len(candidates) > 1 or late)):
            return None
        return next(iter(candidates))


class _Late:
    """Ids that may still be heard of; more of them than can be told apart are some for ever."""

    def __init__(self) -> None:
        self._ids: OrderedDict[int, None] = OrderedDict()
        self._overflowed = False

    def __bool__(self) -> bool:
        return self._overflowed or bool(self._ids)

    def add(self, identifier: int) -> None:
        self._ids[identifier] = None
        if len(self._ids) > MAX_LATE:
            self._ids.popitem(last=False)
            self._overflowed = True

    def discard(self, identifier: int) -> None:
        self._ids.pop(identifier, None)

    def clear(self) -> None:
        self._ids.clear()
        self._overflowed = False
