"""Streamable HTTP for clients of both eras, as an ASGI application.

Each request passes the same ladder, first failure wins: Host and Origin, path, method, token, tenant, endpoint,
media types, size, envelope, session. The order keeps what is cheap and what says least first: nobody without a
token learns which servers exist, and no body is read for a request that is refused anyway.

Sources: 2025-11-25 and 2026-07-28, basic/transports.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import anyio

from mcphost import errors
from mcphost.broker import Broker, Caller, Client
from mcphost.decisions.guard import Guard
from mcphost.decisions.identity import Principal, Tokens
from mcphost.decisions.routing import Endpoint, endpoint_of
from mcphost.decisions.sessions import ID_BYTES, Session, Sessions
from mcphost.errors import BadHttp, Forbidden, McpHostError, NotFound
from mcphost.protocol import envelope, jsonrpc
from mcphost.protocol.asking import Declared
from mcphost.protocol.envelope import Headers, Inbound
from mcphost.telemetry.metrics import Metrics
from mcphost.transports.exchange import Exchange, Receive, Scope, Send, send_json

BODY_SECONDS: Final = 30.0  # a client that sends slower than this is cut off

_ROUTING_HEADERS: Final = frozenset(
    {b"authorization", b"host", b"origin", b"mcp-protocol-version", b"mcp-method", b"mcp-name", b"mcp-session-id",
     b"content-type", b"content-length"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Access:
    """Who may reach the front, and how much they may send.

    `anonymous` stands for everybody where the policy asks for no token.
    """

    tokens: Tokens
    guard: Guard
    anonymous: Principal | None
    max_body_bytes: int


@dataclass(frozen=True, slots=True)
class Clocks:
    """Time and randomness, passed in: wall seconds for dates, and the bytes behind session ids."""

    wall: Callable[[], float]
    random_bytes: Callable[[int], bytes]


class HttpFront:
    """The ASGI application for clients."""

    def __init__(
        self, broker: Broker, access: Access, sessions: Sessions, *, clocks: Clocks, metrics: Metrics
    ) -> None:
        self._broker = broker
        self._access = access
        self._sessions = sessions
        self._clocks = clocks
        self._metrics = metrics

    def __repr__(self) -> str:
        return f"<HttpFront {self._sessions!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return  # a WebSocket is refused by not being accepted
        try:
            await self._serve(scope, receive, send)
        except McpHostError as error:
            self._metrics.refused(error.reason)
            wire = errors.to_wire(error)
            await send_json(send, wire.status, jsonrpc.encode_error(error.request_id, wire), wire.headers)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(scope["headers"])
        self._access.guard.check(headers.get(b"host"), headers.get(b"origin"))
        endpoint = endpoint_of(scope["path"].removeprefix(scope.get("root_path", "")))
        if endpoint is None:
            raise NotFound("no such endpoint")
        if scope["method"] not in {"POST", "DELETE"}:
            # A GET would open a stream of unrelated messages, which is not offered (2025-11-25 allows 405).
            raise BadHttp(405, "use POST", headers=((b"allow", b"POST, DELETE"),))
        principal = self._principal(headers.get(b"authorization"))
        if endpoint.tenant is not None and endpoint.tenant != principal.tenant:
            raise Forbidden("the token is not of the tenant in the path")
        caller = Caller(principal, endpoint.server)
        if not self._broker.serves(caller):
            raise NotFound("no such endpoint")
        if scope["method"] == "DELETE":
            await self._delete(caller, endpoint, headers, send)
            return
        _check_media(headers)
        body = await self._body(headers, receive)
        inbound = envelope.read(body, _mcp_headers(headers))
        try:
            await self._post(caller, endpoint, inbound, headers, (receive, send))
        except McpHostError as error:
            error.request_id = inbound.id
            raise

    def _principal(self, authorization: str | None) -> Principal:
        if self._access.anonymous is not None:
            return self._access.anonymous
        return self._access.tokens.authenticate(authorization, now=self._clocks.wall())

    async def _body(self, headers: Mapping[bytes, str], receive: Receive) -> bytes:
        limit = self._access.max_body_bytes
        too_large = BadHttp(413, f"the body is larger than {limit} bytes")
        length = headers.get(b"content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length) > limit:
            raise too_large
        chunks: list[bytes] = []
        held = 0
        try:
            with anyio.fail_after(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise BadHttp(400, "the client went away")
                    chunk = message.get("body", b"")
                    held += len(chunk)
                    if held > limit:
                        raise too_large
                    chunks.append(chunk)
                    if not message.get("more_body"):
                        return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        except TimeoutError:
            raise BadHttp(408, f"the body did not arrive within {BODY_SECONDS:g} s") from None

    async def _post(
        self,
        caller: Caller,
        endpoint: Endpoint,
        inbound: Inbound,
        headers: Mapping[bytes, str],
        ends: tuple[Receive, Send],
    ) -> None:
        receive, send = ends
        if inbound.era == "modern":
            if inbound.message.kind == "notification":
                # None is defined for this binding; ids are the client's own, so none may cancel by one.
                await _send_empty(send, 202)
                return
            exchange = Exchange(send)
            client = _modern_client(inbound, exchange)
            await exchange.run(lambda: self._broker.answer(caller, inbound, client), receive)
            return
        if inbound.method == "initialize" and inbound.message.kind == "request":
            await self._initialize(caller, endpoint, inbound, send)
            return
        session = self._session(caller, endpoint, headers)
        if inbound.message.kind != "request":
            if inbound.method == "notifications/cancelled":
                _cancel(session, inbound)
            await _send_empty(send, 202)
            return
        await self._legacy_call(caller, session, inbound, send)

    async def _initialize(self, caller: Caller, endpoint: Endpoint, inbound: Inbound, send: Send) -> None:
        reply = await self._broker.answer(caller, inbound, Client("legacy"))
        extra = reply.headers
        if reply.version is not None:
            identifier = self._clocks.random_bytes(ID_BYTES).hex()
            self._sessions.open(
                identifier, caller.principal, endpoint, version=reply.version, now=anyio.current_time()
            )
            extra = (*extra, (b"mcp-session-id", identifier.encode()))
        await send_json(send, reply.status, reply.body, extra)

    def _session(self, caller: Caller, endpoint: Endpoint, headers: Mapping[bytes, str]) -> Session:
        identifier = headers.get(b"mcp-session-id")
        if identifier is None:
            raise BadHttp(400, "the header Mcp-Session-Id is required; initialize first")
        return self._sessions.use(identifier, caller.principal, endpoint, now=anyio.current_time())

    async def _delete(
        self, caller: Caller, endpoint: Endpoint, headers: Mapping[bytes, str], send: Send
    ) -> None:
        if headers.get(b"mcp-session-id") is None:
            raise BadHttp(405, "use POST", headers=((b"allow", b"POST"),))
        self._sessions.end(self._session(caller, endpoint, headers))
        await _send_empty(send, 200)

    def open_sessions(self, tenant: str) -> int:
        """Legacy sessions of a tenant that have not ended."""
        self._sessions.expire(anyio.current_time())
        return self._sessions.count(tenant)

    async def _legacy_call(self, caller: Caller, session: Session, inbound: Inbound, send: Send) -> None:
        """A disconnect is no cancellation in this era; `notifications/cancelled` is."""
        if inbound.id in session.cancel:
            raise BadHttp(400, "a request with this id is in flight in this session")
        exchange = Exchange(send)
        client = Client("legacy", notify=exchange.notify)
        session.cancel[inbound.id] = exchange.cancel
        try:
            await exchange.run(lambda: self._broker.answer(caller, inbound, client), None)
        finally:
            del session.cancel[inbound.id]


def _modern_client(inbound: Inbound, exchange: Exchange) -> Client:
    """A client of 2026-07-28 says in each request what it is."""
    capabilities = inbound.meta[envelope.META_CAPABILITIES]
    return Client(
        "modern",
        notify=exchange.notify,
        capabilities=capabilities,
        declared=Declared.read(capabilities),
        info=inbound.meta.get(envelope.META_CLIENT),
        level=jsonrpc.text(inbound.meta.get(envelope.META_LOG_LEVEL)),
    )


def _cancel(session: Session, inbound: Inbound) -> None:
    """Cancel the call that a notification names; an unknown id is ignored, as the specification asks."""
    cancel = session.cancel.get(bytes(inbound.params.get("requestId", b"")))
    if cancel is not None:
        cancel()


def _headers(raw: list[tuple[bytes, bytes]]) -> dict[bytes, str]:
    """Header values by lower-case name.

    Raises:
        BadHttp: a header that decides something occurs twice, so two readers could read it two ways.
    """
    headers: dict[bytes, str] = {}
    for name, value in raw:
        if name in headers and name in _ROUTING_HEADERS:
            raise BadHttp(400, f"the header {name.decode()} occurs twice")
        text = value.decode("latin-1").strip(" \t")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


def _mcp_headers(headers: Mapping[bytes, str]) -> Headers:
    return Headers(
        headers.get(b"mcp-protocol-version"),
        headers.get(b"mcp-method"),
        headers.get(b"mcp-name"),
        headers.get(b"mcp-session-id"),
    )


def _check_media(headers: Mapping[bytes, str]) -> None:
    media = headers.get(b"content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise BadHttp(415, "the Content-Type must be application/json")
    accepted = {part.partition(";")[0].strip().lower() for part in headers.get(b"accept", "*/*").split(",")}
    for wanted, group in (("application/json", "application/*"), ("text/event-stream", "text/*")):
        if not accepted & {wanted, group, "*/*"}:
            raise BadHttp(406, "the Accept header must list application/json and text/event-stream")


async def _send_empty(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing to do: what the front needs is started and stopped by the runtime that owns it."""
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
