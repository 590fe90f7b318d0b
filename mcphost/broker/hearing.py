"""What a client hears of its call before the answer: progress and log messages, and who takes the server's questions."""

from collections.abc import Callable

from msgspec import Raw

from mcphost.broker.client import Client
from mcphost.errors import METHOD_NOT_FOUND
from mcphost.protocol import downstream, jsonrpc, loglevels
from mcphost.protocol.jsonrpc import ErrorObject, Fields
from mcphost.workers.hearing import Question

# What a client says that has not the capability asked for (2025-11-25, client/*).
NOT_OFFERED = ErrorObject(METHOD_NOT_FOUND, "the client does not offer this")


def refuse(question: Question) -> None:
    """Refuse a question as a client does that has not declared the capability for it."""
    question.refuse(NOT_OFFERED)


class Hears:
    """Hears one call for the client of its open round; deaf while none is open.

    Questions are always heard: one that a server may not ask has to be refused in the name of the call it came from.
    """

    can_be_asked = True

    def __init__(self, on_question: Callable[[Question], None] = refuse) -> None:
        self.on_question = on_question
        self._client: Client | None = None
        self._token: Raw | None = None
        self._done = Raw(b"")  # the last progress that was passed on, as it was written
        self._floor: float | None = None

    def turn_to(self, client: Client, meta: Fields) -> None:
        """Hear for this client; `meta` is its request's, which holds its progress token."""
        self._client = client
        self._token = downstream.progress_token(meta)

    def turn_away(self) -> None:
        """Nobody listens."""
        self._client = self._token = None

    def go_on(self) -> None:
        """The same request is sent again: a server begins to count anew, and its client is told of more only.

        Source: 2025-11-25, basic/utilities/progress: the value must grow with each notification.
        """
        done = jsonrpc.number(self._done)
        if done is not None:
            self._floor = done if self._floor is None else max(done, self._floor)

    @property
    def wants_progress(self) -> bool:
        """Whether the client gave a token."""
        return self._token is not None

    @property
    def wants_logs(self) -> bool:
        """Whether the client asked for log messages."""
        return self._client is not None and self._client.log_level is not None

    def progressed(self, params: Fields) -> None:
        """Pass progress on, under the client's own token."""
        if self._client is not None and self._token is not None:
            done = params.get("progress", Raw(b""))
            if self._floor is not None and (jsonrpc.number(done) or 0.0) <= self._floor:
                return
            self._done = done
            self._client.notify(downstream.progress(params, self._token))

    def logged(self, params: Fields) -> None:
        """Pass a log message on if it is at or above the level that the client asked for."""
        if self._client is not None and loglevels.reaches(params, self._client.log_level):
            self._client.notify(downstream.log_message(params))

    def asked(self, question: Question) -> None:
        """Hand a question to whoever takes it now."""
        self.on_question(question)
