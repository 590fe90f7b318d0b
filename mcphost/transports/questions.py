"""Questions to a legacy client: requests of ours on the stream of the request that they belong to.

The answer comes as a POST of its own, in the same session and under an id that we made up (2025-11-25,
basic/transports, "Sending Messages to the Server"). Nobody can guess an id, and none is looked for outside the session
that it was given to.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio
from msgspec import Raw

from mcphost.errors import CannotAsk
from mcphost.protocol import downstream, jsonrpc
from mcphost.protocol.jsonrpc import Message
from mcphost.transports.exchange import Exchange

ID_BYTES: Final = 16  # random bytes behind an id

# Open questions of one session. A user answers one after another; this is what a server may ask for at once, and
# bounds what a session that never answers holds.
MAX_QUESTIONS: Final = 64

_WITHDRAWN: Final = "the answer is not wanted any more"


class Question:
    """One question that is open: wait for what becomes of it."""

    def __init__(self, identifier: bytes) -> None:
        self.id = identifier
        self._done = anyio.Event()
        self._answer: Message | None = None

    def end(self, answer: Message | None) -> None:
        """Answered by a client's message, or (None) never to be."""
        if not self._done.is_set():
            self._answer = answer
            self._done.set()

    async def wait(self) -> Message:
        """The client's answer, a result or an error.

        Raises:
            CannotAsk: it will not come.
        """
        await self._done.wait()
        if self._answer is None:
            raise CannotAsk("the client's stream was closed before it answered")
        return self._answer


class Questions:
    """The open questions of one session, by id."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._open: dict[bytes, Question] = {}

    def __len__(self) -> int:
        return len(self._open)

    def answer(self, message: Message) -> bool:
        """Take a posted answer; whether it was one to an open question. Any other is dropped: it may be late, or made up."""
        question = self._open.get(message.id)
        if question is not None:
            question.end(message)
        return question is not None

    @contextmanager
    def opened(self) -> Iterator[Question]:
        """A question that is open inside the block.

        Raises:
            CannotAsk: the client owes as many answers as it may.
        """
        if len(self._open) >= MAX_QUESTIONS:
            raise CannotAsk(f"the client has {MAX_QUESTIONS} questions open in this session")
        question = Question(jsonrpc.raw_bytes(self._random_bytes(ID_BYTES).hex()))
        self._open[question.id] = question
        try:
            yield question
        finally:
            del self._open[question.id]


class Asker:
    """Asks a session's client on the stream of one of its requests."""

    def __init__(self, questions: Questions, exchange: Exchange) -> None:
        self._questions = questions
        self._exchange = exchange
        self._own: set[Question] = set()

    async def ask(self, method: str, params: Raw) -> Message:
        """Send a request and wait for its answer, a result or an error. Cancelling this takes the request back.

        Raises:
            CannotAsk: the stream is gone, or goes before the answer comes; or its client owes too many answers.
        """
        await self._exchange.wait_room()
        if self._exchange.is_gone:
            raise CannotAsk("the client's stream is closed, so it cannot be asked")
        with self._questions.opened() as question:
            self._own.add(question)
            try:
                self._exchange.put(downstream.question(question.id, method, params))
                return await question.wait()
            except anyio.get_cancelled_exc_class():
                self._exchange.put(downstream.withdrawal(question.id, _WITHDRAWN))
                raise
            finally:
                self._own.discard(question)

    def abandon(self) -> None:
        """The stream is gone: no open question on it will be answered."""
        for question in list(self._own):
            question.end(None)
