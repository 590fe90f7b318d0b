"""Streamable HTTP for clients of both eras, as an ASGI application.

Each request passes the same ladder, first failure wins: Host and Origin, path, method, token, tenant, endpoint,
media types, size, envelope, session. The order keeps what is cheap and what says least first: nobody without a
token learns which servers exist, and no body is read for a request that is refused anyway.

Sources: 2025-11-25 and 2026-07-28, basic/transports.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import anyio

from mcphost import errors
from mcphost.broker import Broker, Caller
from mcphost.decisions.guard import Guard
from mcphost.decisions.identity import Credential, Tokens
from mcphost.decisions.routing import EVERYTHING, endpoint_of
from mcphost.errors import BadHttp, Forbidden, McpHostError, NotFound
from mcphost.protocol import envelope, jsonrpc, versions
from mcphost.telemetry.audit import Audit
from mcphost.telemetry.metrics import Metrics
from mcphost.transports.asgi import Receive, Scope, Send, send_json
from mcphost.transports.headers import check_listening, check_posted, mcp_headers, read_headers
from mcphost.transports.lasting import Lasting
from mcphost.transports.legacy import Clocks, LegacyFace, Visit
from mcphost.transports.modern import ModernFace
from mcphost.transports.pages import is_preflight, readable_by, send_preflight

MAX_LENGTH_DIGITS: Final = 18  # of a Content-Length; none that is longer is worth converting

BODY_SECONDS: Final = 30.0  # a client that sends slower than this is cut off

# What each era's face answers; a GET opens a legacy session's stream of messages.
_LEGACY_METHODS: Final = (b"allow", b"GET, POST, DELETE")
_MODERN_METHODS: Final = (b"allow", b"POST")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may reach the front, and how much they may send.

    `anonymous` stands for everybody where the policy asks for no token.
    """

    tokens: Tokens
    guard: Guard
    anonymous: Credential | None
    max_body_bytes: int
    audit: Audit | None = None


_PRINCIPAL: Final = "mcphost.principal"  # in a connection's scope: who it turned out to be from


class HttpFront:
    """The ASGI application for clients."""

    def __init__(
        self, broker: Broker, access: Access, legacy: LegacyFace, *, clocks: Clocks, metrics: Metrics
    ) -> None:
        self._broker = broker
        self._access = access
        self._legacy = legacy
        self._modern = ModernFace(broker)
        self._clocks = clocks
        self._metrics = metrics
        self._draining = anyio.Event()

    def __repr__(self) -> str:
        return f"<HttpFront {self._legacy!r}>"

    def drain(self) -> None:
        """End the streams that have no end of their own, so that nobody waits for them."""
        self._draining.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return  # a WebSocket is refused by not being accepted
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        if len(origins) == 1 and self._access.guard.lists(origins[0]):
            send = readable_by(origins[0], send)
        try:
            await self._serve(scope, receive, send)
        except McpHostError as error:
            self._metrics.refused(error.reason)
            if self._access.audit is not None:
                self._access.audit.refused(**_refusal(scope, error))
            wire = errors.to_wire(error)
            await send_json(send, wire.status, jsonrpc.encode_error(error.request_id, wire), wire.headers)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = read_headers(scope["headers"])
        self._access.guard.check(headers.get(b"host"), headers.get(b"origin"))
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        endpoint = endpoint_of(path, self._broker.routes)
        if endpoint is None:
            raise NotFound("no such endpoint")
        method = scope["method"]
        if is_preflight(method, headers) and self._access.guard.lists(headers.get(b"origin", "")):
            await send_preflight(send, headers)
            return
        _check_method(method, headers)
        credential = self._credential(headers.get(b"authorization"))
        principal = scope[_PRINCIPAL] = credential.principal
        if endpoint.tenant is not None and endpoint.tenant != principal.tenant:
            raise Forbidden("the token is not of the tenant in the path")
        caller = Caller(principal, endpoint.server, self._broker.routes.get(endpoint.route, EVERYTHING))
        if not self._broker.serves(caller):
            raise NotFound("no such endpoint")
        visit = Visit(caller, endpoint, headers, receive, send)
        match method:
            case "GET":
                check_listening(headers)
                await self._legacy.listen(visit, self._lasting(credential))
            case "DELETE":
                await self._legacy.delete(visit)
            case _:
                await self._post(visit, credential)

    async def _post(self, visit: Visit, credential: Credential) -> None:
        check_posted(visit.headers)
        body = await self._body(visit.headers, visit.receive)
        inbound = envelope.read(body, mcp_headers(visit.headers))
        try:
            if inbound.era == "modern":
                await self._modern.post(
                    visit.caller, inbound, (visit.receive, visit.send), self._lasting(credential)
                )
            else:
                await self._legacy.post(visit, inbound)
        except McpHostError as error:
            error.request_id = inbound.id
            raise

    def _credential(self, authorization: str | None) -> Credential:
        if self._access.anonymous is not None:
            return self._access.anonymous
        return self._access.tokens.credential(authorization, now=self._clocks.wall())

    def _lasting(self, credential: Credential) -> Lasting:
        expires = credential.expires_at
        return Lasting(None if expires is None else expires - self._clocks.wall(), self._draining)

    async def _body(self, headers: Mapping[bytes, str], receive: Receive) -> bytes:
        limit = self._access.max_body_bytes
        too_large = BadHttp(413, f"the body is larger than {limit} bytes")
        length = headers.get(b"content-length", "0")
        if (
            not (length.isascii() and length.isdigit())
            or len(length) > MAX_LENGTH_DIGITS
            or int(length) > limit
        ):
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


def _refusal(scope: Scope, error: McpHostError) -> dict[str, object]:
    """What the audit keeps of a request that became no call."""
    principal = scope.get(_PRINCIPAL)
    client = scope.get("client") or ("",)
    return {
        "tenant": principal.tenant if principal else "",
        "token": principal.token_id if principal else "",
        "client": str(client[0]),
        "endpoint": scope["path"],
        "method": scope["method"],
        "decision": "refuse",
        "outcome": error.reason,
        "status": errors.to_wire(error).status,
    }


def _check_method(method: str, headers: Mapping[bytes, str]) -> None:
    """Refuse methods that the era's face does not have.

    Raises:
        BadHttp: 405 with those it has.
        DownstreamProtocolError: the revision is not spoken.
    """
    if method == "POST":
        return
    version = headers.get(b"mcp-protocol-version")
    allowed = _MODERN_METHODS if version == versions.MODERN else _LEGACY_METHODS
    if method not in {"GET", "DELETE"} or allowed == _MODERN_METHODS:
        raise BadHttp(405, f"use {allowed[1].decode()}", headers=(allowed,))
    if version is not None and not versions.is_spoken(version):
        raise envelope.unsupported(version)


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing to do: what the front needs is started and stopped by the runtime that owns it."""
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
