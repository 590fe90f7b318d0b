"""What a request may get besides its answer: progress, log messages, and questions of the server for its client."""

from collections.abc import Callable
from typing import Protocol

from msgspec import Raw

from mcphost.protocol.jsonrpc import ErrorObject, Fields

# A notification that belongs to no call: its method, its params without the subscription id, and the id of our own
# `subscriptions/listen` that it came on; None on a legacy worker. Called by the reader of the pipe: it may not block.
OnNotified = Callable[[str, Fields, int | None], None]


class Hearer(Protocol):
    """Who listens while a request is under way. Every method is called by the reader of the pipe: none may block.

    The flags are read once, when the request is sent. What a flag excludes is never delivered.
    """

    @property
    def wants_progress(self) -> bool:
        """Whether the request carries a progress token."""
        ...

    @property
    def wants_logs(self) -> bool:
        """Whether log messages are to be delivered; on a modern worker it is then alone among those that do."""
        ...

    @property
    def can_be_asked(self) -> bool:
        """Whether the server may ask the client behind this request something."""
        ...

    def progressed(self, params: Fields) -> None:
        """Progress was made; the token inside is ours."""
        ...

    def logged(self, params: Fields) -> None:
        """A log message of the server's, of any level."""
        ...

    def asked(self, question: "Question") -> None:
        """The server asks. Exactly one of `answer` and `refuse` is to follow, at any time."""
        ...


class Question:
    """One request of a server to the client. Answering is synchronous, counts once, and is harmless too late."""

    def __init__(self, method: str, params: Raw, say: Callable[[Raw | ErrorObject], None]) -> None:
        """`params` is raw, empty if there were none; `say` sends the reply if it is still awaited."""
        self.method = method
        self.params = params
        self._say: Callable[[Raw | ErrorObject], None] | None = say
        # Set by whoever holds the question; called once if the server takes it back or can hear no answer.
        self.on_withdrawn: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Question {self.method!r} {'open' if self.is_open else 'closed'}>"

    @property
    def is_open(self) -> bool:
        """Whether an answer would still reach the server."""
        return self._say is not None

    def answer(self, result: Raw) -> None:
        """Give the client's result, as it came."""
        self._reply(result)

    def refuse(self, error: ErrorObject) -> None:
        """Give an error in its place."""
        self._reply(error)

    def withdraw(self) -> None:
        """No answer is wanted any more. Idempotent."""
        if self._say is None:
            return
        self._say = None
        if self.on_withdrawn is not None:
            self.on_withdrawn()

    def _reply(self, reply: Raw | ErrorObject) -> None:
        say, self._say = self._say, None
        if say is not None:
            say(reply)
