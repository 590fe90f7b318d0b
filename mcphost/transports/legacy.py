"""The face for clients of revisions up to 2025-11-25: `initialize`, sessions, questions, and the GET stream."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import anyio

from mcphost.broker import Broker, Caller
from mcphost.decisions.routing import Endpoint
from mcphost.decisions.sealing import Sealer
from mcphost.decisions.sessions import (
    NONCE_BYTES,
    Agreed,
    Now,
    Session,
    SessionLimits,
    Sessions,
    Terms,
)
from mcphost.errors import BadHttp
from mcphost.protocol.envelope import Inbound
from mcphost.transports.asgi import Receive, Send, send_empty, send_json
from mcphost.transports.channel import Channel, bounded_capabilities, bounded_info
from mcphost.transports.exchange import Exchange
from mcphost.transports.lasting import Lasting
from mcphost.transports.mail import send_mail

EXPIRY_SLACK_SECONDS: Final = (
    1.0  # so that sessions that become idle one after another are looked at together
)


@dataclass(frozen=True, slots=True)
class Clocks:
    """Time and randomness, passed in: wall seconds for dates, and the bytes behind ids."""

    wall: Callable[[], float]
    random_bytes: Callable[[int], bytes]

    def now(self) -> Now:
        """This moment."""
        return Now(anyio.current_time(), self.wall())


@dataclass(frozen=True, slots=True)
class Visit:
    """One authenticated legacy request: who, where, with which headers, and its two ends."""

    caller: Caller
    endpoint: Endpoint
    headers: Mapping[bytes, str]
    receive: Receive
    send: Send


class LegacyFace:
    """Answers legacy requests."""

    def __init__(self, broker: Broker, clocks: Clocks, sealer: Sealer, limits: SessionLimits) -> None:
        self._broker = broker
        self._clocks = clocks
        boot = clocks.random_bytes(NONCE_BYTES).hex()
        self._sessions: Sessions[Channel] = Sessions(limits, sealer, boot, self._attach)

    def __repr__(self) -> str:
        return f"<LegacyFace {self._sessions!r}>"

    def open_sessions(self, tenant: str) -> int:
        """Sessions of a tenant that have not ended."""
        self._sessions.expire(anyio.current_time())
        return self._sessions.count(tenant)

    async def expire(self) -> None:
        """End sessions as they become idle, for ever."""
        while True:
            await anyio.sleep(self._sessions.next_expiry(anyio.current_time()) + EXPIRY_SLACK_SECONDS)
            self._sessions.expire(anyio.current_time())

    def _attach(self, terms: Terms) -> Channel:
        """The channel of a session that another process of ours began."""
        return self._channel(terms.nonce, Agreed(terms.version, terms.capabilities, terms.info))

    def _channel(self, key: str, agreed: Agreed) -> Channel:
        return Channel(
            key,
            agreed.capabilities,
            agreed.info,
            random_bytes=self._clocks.random_bytes,
            on_end=self._broker.end_session,
        )

    async def post(self, visit: Visit, inbound: Inbound) -> None:
        """Answer one posted message."""
        if inbound.method == "initialize" and inbound.message.kind == "request":
            await self._initialize(visit, inbound)
            return
        session = self._session(visit)
        if inbound.message.kind == "request":
            await self._call(visit, session, inbound)
            return
        if not self._taken(session.attached, inbound):
            self._broker.charge(visit.caller)
        await send_empty(visit.send, 202)

    def _taken(self, channel: Channel, inbound: Inbound) -> bool:
        """Act on a notification or an answer. Whether it ended something that was open, which costs nothing."""
        if inbound.method == "notifications/cancelled":
            # An unknown id is ignored, as the specification asks.
            cancel = channel.calls.get(bytes(inbound.params.get("requestId", b"")))
            if cancel is not None:
                cancel()
            return cancel is not None
        # Other notifications mean nothing here. That roots changed is told to no server, for none was told that it
        # would be: whenever one wants to know them, it asks.
        return inbound.message.kind != "notification" and channel.questions.answer(inbound.message)

    async def _initialize(self, visit: Visit, inbound: Inbound) -> None:
        principal = visit.caller.principal
        self._sessions.check_room(principal.tenant, self._clocks.now())
        agreed = Agreed(
            "",
            bounded_capabilities(inbound.params.get("capabilities")),
            bounded_info(inbound.params.get("clientInfo")),
        )
        nonce = self._clocks.random_bytes(NONCE_BYTES).hex()
        channel = self._channel(nonce, agreed)
        session = None
        try:
            reply = await self._broker.answer(visit.caller, inbound, channel.client())
            if reply.version is not None:
                now = self._clocks.now()
                agreed = Agreed(reply.version, agreed.capabilities, agreed.info)
                terms = self._sessions.terms(principal, visit.endpoint, agreed, nonce, now)
                session = self._sessions.open(terms, channel, now)
        finally:
            if session is None:
                channel.end()
        named = () if session is None else ((b"mcp-session-id", session.id.encode()),)
        await send_json(visit.send, reply.status, reply.body, (*reply.headers, *named))

    def _session(self, visit: Visit) -> Session[Channel]:
        identifier = visit.headers.get(b"mcp-session-id")
        if identifier is None:
            raise BadHttp(400, "the header Mcp-Session-Id is required; initialize first")
        session = self._sessions.use(identifier, visit.caller.principal, visit.endpoint, self._clocks.now())
        version = visit.headers.get(b"mcp-protocol-version")
        if version is not None and version != session.terms.version:
            raise BadHttp(
                400, f"the session speaks {session.terms.version}, as was agreed on at its beginning"
            )
        return session

    async def delete(self, visit: Visit) -> None:
        """End the session."""
        self._sessions.end(self._session(visit))
        await send_empty(visit.send, 200)

    async def _call(self, visit: Visit, session: Session[Channel], inbound: Inbound) -> None:
        """A disconnect is no cancellation in this era; `notifications/cancelled` is."""
        channel = session.attached
        if inbound.id in channel.calls:
            raise BadHttp(400, "a request with this id is in flight in this session")
        exchange = Exchange(visit.send)
        client, asker = channel.client_on(exchange)
        channel.calls[inbound.id] = exchange.cancel
        try:
            await exchange.run(
                lambda: self._broker.answer(visit.caller, inbound, client), visit.receive, asker.abandon
            )
        finally:
            del channel.calls[inbound.id]
            self._sessions.touch(session, anyio.current_time())

    async def listen(self, visit: Visit, lasting: Lasting) -> None:
        """Send the session's mail for as long as its client reads it: a GET stream, one for each session.

        It ends with the session, with the token that opened it, and when the runtime drains.
        """
        session = self._session(visit)
        channel, mail = session.attached, session.attached.mail
        if mail.is_read:
            raise BadHttp(409, "this session has its stream of messages already")
        self._broker.charge(visit.caller)
        self._broker.begin_session(visit.caller, channel.client())
        mail.is_read = True
        try:
            await send_mail(mail, (visit.receive, visit.send), lasting)
        finally:
            mail.is_read = False
            self._sessions.touch(session, anyio.current_time())
