"""What a worker's line meant, as values: the events that `upstream` gives."""

from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from msgspec import Raw

from mcphost.protocol.jsonrpc import EMPTY_OBJECT, Fields, Message
from mcphost.protocol.versions import Era

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server said of itself when it was opened."""

    era: Era
    version: str
    capabilities: Fields = field(default_factory=dict)
    info: Raw = field(default_factory=lambda: EMPTY_OBJECT)
    instructions: str | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """The server can take requests."""

    facts: ServerFacts


@dataclass(frozen=True, slots=True)
class OpenFailed:
    """The server answered the handshake with errors only."""

    message: str


@dataclass(frozen=True, slots=True)
class Reprobed:
    """The server spoke against itself; `line` asks it once more."""

    line: bytes


@dataclass(frozen=True, slots=True)
class Answered(Generic[T]):
    """A request of ours was answered. `over` are the keys of its open questions, which `line` has refused."""

    entry: T
    message: Message
    over: tuple[bytes, ...] = ()
    line: bytes = b""


@dataclass(frozen=True, slots=True)
class AnsweredLate:
    """A request of ours that was cancelled was answered: the server says no more of it."""


@dataclass(frozen=True, slots=True)
class Progressed(Generic[T]):
    """A request of ours made progress; `params` as the server sent them."""

    entry: T
    params: Fields


@dataclass(frozen=True, slots=True)
class Logged(Generic[T]):
    """The server logged something while it worked on a request of ours."""

    entry: T
    params: Fields


@dataclass(frozen=True, slots=True)
class Asked(Generic[T]):
    """The server asks the client behind a request of ours. `key` is what the question is answered under."""

    entry: T
    key: bytes
    method: str
    params: Raw


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The server takes a question back."""

    key: bytes


@dataclass(frozen=True, slots=True)
class Pinged:
    """The server wanted to know whether we are there; `line` says so."""

    line: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """A question that reaches nobody; `line` says so to the server."""

    what: Literal["unowned-request", "unknown-request", "malformed-request", "too-many-requests"]
    method: str
    line: bytes


@dataclass(frozen=True, slots=True)
class Dropped:
    """A message that is no offence and reaches nobody."""

    what: Literal["unowned-log", "late-notification"]


@dataclass(frozen=True, slots=True)
class Notified:
    """A notification that belongs to no request but perhaps a subscription.

    `params` without the subscription's id, which is `subscription`: the id of a `subscriptions/listen` of ours.
    """

    method: str
    params: Fields = field(default_factory=dict)
    subscription: int | None = None


@dataclass(frozen=True, slots=True)
class Offence:
    """The server sent what it must not; the line was passed over."""

    what: Literal["not-json-rpc", "unknown-id", "unknown-token", "unknown-subscription", "repeated-id"]


Event = (
    Opened
    | OpenFailed
    | Reprobed
    | Answered[T]
    | AnsweredLate
    | Progressed[T]
    | Logged[T]
    | Asked[T]
    | Withdrawn
    | Pinged
    | Refused
    | Dropped
    | Notified
    | Offence
)
