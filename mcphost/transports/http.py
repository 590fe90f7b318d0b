"""Streamable HTTP for clients of both eras, as an ASGI application.

Each request passes the same ladder, first failure wins: Host and Origin, path, method, token, tenant, endpoint,
media types, size, envelope, session. The order keeps what is cheap and what says least first: nobody without a
token learns which servers exist, and no body is read for a request that is refused anyway.

Sources: 2025-11-25 and 2026-07-28, basic/transports.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

import anyio

from mcphost import errors
from mcphost.broker import Broker, Caller, Notify, Reply
from mcphost.decisions.guard import Guard
from mcphost.decisions.identity import Principal, Tokens
from mcphost.decisions.routing import Endpoint, endpoint_of
from mcphost.decisions.sessions import ID_BYTES, Session, Sessions
from mcphost.errors import BadHttp, Forbidden, McpHostError, NotFound
from mcphost.protocol import envelope, jsonrpc
from mcphost.protocol.envelope import Headers, Inbound
from mcphost.telemetry.metrics import Metrics
from mcphost.transports import sse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# An answer that takes longer is turned into a stream with keep-alives, so that no proxy gives up on it.
PATIENCE_SECONDS: Final = 15.0

BODY_SECONDS: Final = 30.0  # a client that sends slower than this is cut off

MAX_BACKLOG_BYTES: Final = (
    256 * 1024
)  # progress not yet sent; past that the newest is dropped, it may be lost

_JSON: Final = ((b"content-type", b"application/json"),)
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
            await _send_json(send, wire.status, jsonrpc.encode_error(error.request_id, wire), wire.headers)

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
            await _Exchange(send).run(lambda notify: self._broker.answer(caller, inbound, notify), receive)
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
        reply = await self._broker.answer(caller, inbound, _ignore)
        extra = reply.headers
        if reply.version is not None:
            identifier = self._clocks.random_bytes(ID_BYTES).hex()
            self._sessions.open(
                identifier, caller.principal, endpoint, version=reply.version, now=anyio.current_time()
            )
            extra = (*extra, (b"mcp-session-id", identifier.encode()))
        await _send_json(send, reply.status, reply.body, extra)

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
        exchange = _Exchange(send)
        session.cancel[inbound.id] = exchange.cancel
        try:
            await exchange.run(lambda notify: self._broker.answer(caller, inbound, notify), None)
        finally:
            del session.cancel[inbound.id]


class _Exchange:
    """One request's answer on its way out: JSON if nothing precedes it, else a stream of events."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._news = anyio.Event()
        self._streaming = False
        self._cancelled = False
        self._scope: anyio.CancelScope | None = None

    async def run(self, answer: Callable[[Notify], Awaitable[Reply]], receive: Receive | None) -> None:
        """Produce and send the answer. With `receive`, a client that goes away cancels the call."""
        reply: Reply | None = None
        async with anyio.create_task_group() as tasks:
            self._scope = tasks.cancel_scope
            if receive is not None:
                tasks.start_soon(self._watch, receive)
            tasks.start_soon(self._stream)
            if not self._cancelled:
                reply = await answer(self._notify)
            tasks.cancel_scope.cancel()
        if reply is None:
            await self._finish_cancelled()
        elif self._streaming:
            await self._drain()
            await self._write(sse.event(reply.body), more=False)
        else:
            await _send_json(self._send, reply.status, reply.body, reply.headers)

    def cancel(self) -> None:
        """Cancel the call; its client gets an empty stream, for a cancelled request has no answer."""
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    async def _finish_cancelled(self) -> None:
        if not self._streaming:
            await self._begin()
        await self._write(b"", more=False)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.cancel()

    def _notify(self, message: bytes) -> None:
        if self._backlog_bytes + len(message) <= MAX_BACKLOG_BYTES:
            self._backlog_bytes += len(message)
            self._backlog.append(message)
            self._news.set()

    async def _stream(self) -> None:
        while True:
            with anyio.move_on_after(PATIENCE_SECONDS):
                await self._news.wait()
            with anyio.CancelScope(shield=True):
                # An event half sent cannot be taken back. Bounded: the listener cuts off who does not read.
                if not self._streaming:
                    await self._begin()
                if self._backlog:
                    await self._drain()
                else:
                    await self._write(sse.KEEP_ALIVE)

    async def _begin(self) -> None:
        self._streaming = True
        await self._send({"type": "http.response.start", "status": 200, "headers": [*sse.HEADERS]})

    async def _drain(self) -> None:
        self._news = anyio.Event()
        while self._backlog:
            message = self._backlog.popleft()
            self._backlog_bytes -= len(message)
            await self._write(sse.event(message))

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


def _ignore(_: bytes) -> None:
    return None


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


async def _send_json(
    send: Send, status: int, body: bytes, extra: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*_JSON, length, *extra]})
    await send({"type": "http.response.body", "body": body})


async def _send_empty(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing to do: what the front needs is started and stopped by the runtime that owns it."""
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
