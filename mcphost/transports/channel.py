"""What the front keeps for one legacy session while it is open."""

from collections.abc import Callable
from typing import Final

from msgspec import Raw

from mcphost.broker.client import Client, LegacySession
from mcphost.decisions.sessions import MAX_CAPABILITIES_BYTES, MAX_INFO_BYTES
from mcphost.protocol import jsonrpc
from mcphost.protocol.asking import Declared
from mcphost.transports.exchange import Exchange
from mcphost.transports.mail import Mail
from mcphost.transports.questions import Asker, Questions

_NOTHING_TOLD: Final = Raw(b"null")


class Channel:
    """A session's calls, its open questions, and its mail.

    `key` names the session to the broker. `calls` holds, by the client's raw request id, how to cancel each one.
    """

    def __init__(
        self,
        key: str,
        capabilities: Raw,
        info: Raw,
        *,
        random_bytes: Callable[[int], bytes],
        on_end: Callable[[LegacySession], None],
    ) -> None:
        self.capabilities = capabilities
        self.declared = Declared.read(capabilities)
        self.info = None if bytes(info) == b"null" else info
        self.calls: dict[bytes, Callable[[], None]] = {}
        self.questions = Questions(random_bytes)
        self.mail = Mail()
        self.session = LegacySession(key, self.mail.put)
        self._on_end = on_end

    @property
    def is_busy(self) -> bool:
        """Whether a call is under way or the client listens, so that the session is not idle."""
        return bool(self.calls) or self.mail.is_read

    def end(self) -> None:
        """The session is over: cancel its calls, end its streams, tell the broker."""
        for cancel in list(self.calls.values()):
            cancel()
        self.mail.close()
        self._on_end(self.session)

    def client(self) -> Client:
        """The session's client, where it neither hears nor is asked anything before the answer."""
        return Client(
            "legacy",
            capabilities=self.capabilities,
            declared=self.declared,
            info=self.info,
            session=self.session,
        )

    def client_on(self, exchange: Exchange) -> tuple[Client, Asker]:
        """The session's client on one request's stream, and what asks it there."""
        asker = Asker(self.questions, exchange)
        client = self.client()
        client.notify = exchange.notify
        client.ask = asker.ask
        return client, asker


def bounded_capabilities(raw: Raw | None) -> Raw:
    """A client's capabilities as they are kept: as written, or only what can be asked of it where that is too much."""
    if raw is None or not bytes(raw).startswith(b"{"):
        return jsonrpc.EMPTY_OBJECT
    compact = _compact(raw)
    return compact if len(bytes(compact)) <= MAX_CAPABILITIES_BYTES else Declared.read(raw).raw


def bounded_info(raw: Raw | None) -> Raw:
    """What a client tells of itself as it is kept: whole, or its name and version, or null."""
    if raw is None or not bytes(raw).startswith(b"{"):
        return _NOTHING_TOLD
    try:
        members = jsonrpc.fields(raw)
    except jsonrpc.Malformed:
        return _NOTHING_TOLD
    named = {key: members[key] for key in ("name", "version") if key in members}
    for kept in (members, named):
        compact = jsonrpc.raw(kept)
        if len(bytes(compact)) <= MAX_INFO_BYTES:
            return _compact(compact)
    return _NOTHING_TOLD


def _compact(raw: Raw) -> Raw:
    return Raw(jsonrpc.one_line(bytes(raw)))
