"""The client behind a request, as far as the broker may talk to it before the request is answered."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NoReturn

import anyio
from msgspec import Raw

from mcphost.errors import CannotAsk
from mcphost.protocol.asking import NOTHING, Declared
from mcphost.protocol.jsonrpc import EMPTY_OBJECT, Message
from mcphost.protocol.versions import Era

Notify = Callable[[bytes], None]
Ask = Callable[[str, Raw], Awaitable[Message]]


@dataclass(slots=True, eq=False)
class LegacySession:
    """What the broker keeps for a legacy session. `key` names it, for workers of `scope: session`.

    `send` takes a message that belongs to no request: to the session's GET stream, or to a bounded backlog as long as
    none is open, of which the oldest are dropped first. A message that already waits there is not kept twice.
    """

    key: str
    send: Callable[[bytes], None]
    log_level: str | None = None
    watch: object | None = None


async def refuse_to_ask(method: str, params: Raw) -> NoReturn:
    """Stands where nobody can be asked: a caller without a stream, or of an era that is asked by results."""
    raise CannotAsk(f"this client cannot be sent {method[:100]}")


def ignore(_: bytes) -> None:
    """Stands where nobody listens before the answer."""


@dataclass(slots=True, eq=False)
class Client:
    """One request's client: what it declared, and the stream that its answer will go to.

    `capabilities` and `info` are as the client wrote them (`info` None where it told nothing of itself). `notify`
    puts a notification before the answer. `ask` sends a request of ours on the same stream and waits for its answer
    within the session; only legacy clients can be asked so (2025-11-25, basic/transports, "Sending Messages"). It raises
    `CannotAsk`, at once where the stream is gone. Cancelling it takes the question back.

    `ending` is set when a request that lasts (`subscriptions/listen`) is to be answered, since its client's token
    expires or the runtime drains. Such a request hears everything: where it reads too slowly, it is cancelled instead.
    """

    era: Era
    notify: Notify = ignore
    ask: Ask = refuse_to_ask
    capabilities: Raw = field(default_factory=lambda: EMPTY_OBJECT)
    declared: Declared = NOTHING
    info: Raw | None = None
    level: str | None = None
    session: LegacySession | None = None
    ending: anyio.Event = field(default_factory=anyio.Event)

    @property
    def log_level(self) -> str | None:
        """The least severe log messages that it wants: of its session, or of this request; None for none asked."""
        return self.session.log_level if self.session is not None else self.level
