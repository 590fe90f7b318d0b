"""Judging one posted message: which era it is, and whether its headers agree with its body.

One ladder for the modern era, first failure wins (2026-07-28, basic/transports/streamable-http, "Server
Validation", and basic/index, "_meta"): the metadata a request must carry, then the headers that mirror the
body, then the version. The order matters to clients that probe: a request without metadata is told so
before it is told anything about versions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from mcphost.errors import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    UNSUPPORTED_PROTOCOL_VERSION,
    DownstreamProtocolError,
)
from mcphost.protocol import jsonrpc, versions
from mcphost.protocol.headertext import BadHeaderText, decoded
from mcphost.protocol.methods import NAMED
from mcphost.protocol.shape import check_shape
from mcphost.protocol.versions import Era

META_VERSION = "io.modelcontextprotocol/protocolVersion"
META_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
META_CLIENT = "io.modelcontextprotocol/clientInfo"
META_LOG_LEVEL = "io.modelcontextprotocol/logLevel"
META_SERVER = "io.modelcontextprotocol/serverInfo"
META_PREFIX = "io.modelcontextprotocol/"

# The member of `params` that `Mcp-Name` mirrors. For tasks the extension says so (SEP-2663, "Streamable HTTP").
MIRRORED: Final[Mapping[str, str]] = {
    **{method: each.key for method, each in NAMED.items()},
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}


@dataclass(frozen=True, slots=True)
class Headers:
    """The MCP headers of one HTTP request, None where absent.

    `params` holds the values of `Mcp-Param-{Name}` as they were sent, by the lower-case name behind the prefix. Whoever
    knows the tool's schema compares them with its arguments.
    """

    version: str | None = None
    method: str | None = None
    name: str | None = None
    session: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)


NO_HEADERS: Final = Headers()


@dataclass(frozen=True, slots=True)
class Inbound:
    """One client message, judged. `params` and `meta` are cut apart once, here, and never again."""

    era: Era
    message: jsonrpc.Message
    params: jsonrpc.Fields
    meta: jsonrpc.Fields
    headers: Headers = NO_HEADERS

    @property
    def method(self) -> str:
        """The JSON-RPC method; empty for a response."""
        return self.message.method

    @property
    def id(self) -> bytes:
        """The client's own id as raw JSON; empty for a notification."""
        return self.message.id


def read(body: bytes, headers: Headers) -> Inbound:
    """Read and judge one POST body.

    Raises:
        DownstreamProtocolError: with the code and text that the client is to be told. Its attribute
            `request_id` holds the raw id where one could be read.
    """
    try:
        check_shape(body)
        message = jsonrpc.decode(body)
    except jsonrpc.Malformed as error:
        raise DownstreamProtocolError(error.code, str(error)) from None
    try:
        return _judge(message, headers)
    except jsonrpc.Malformed as error:
        raise _refused(message, error.code, str(error)) from None


def _judge(message: jsonrpc.Message, headers: Headers) -> Inbound:
    era = versions.era_of_header(headers.version)
    if message.kind in {"result", "error"}:
        if era == "modern":
            raise DownstreamProtocolError(INVALID_REQUEST, "a client must not post responses")
        return Inbound(era, message, {}, {})
    params = jsonrpc.fields(message.body)
    meta = jsonrpc.fields(params["_meta"], "params._meta") if "_meta" in params else {}
    inbound = Inbound(era, message, params, meta, headers)
    if (
        message.kind == "notification"
        and headers.version is not None
        and not versions.is_spoken(headers.version)
    ):
        raise unsupported(headers.version)
    if message.kind == "request":
        if era == "modern":
            _judge_modern(inbound, headers)
        elif headers.version is None and META_VERSION in meta:
            raise _refused(message, HEADER_MISMATCH, "the header MCP-Protocol-Version is required")
    return inbound


def _judge_modern(inbound: Inbound, headers: Headers) -> None:
    version = jsonrpc.text(inbound.meta.get(META_VERSION))
    if version is None:
        raise _refused(inbound.message, INVALID_PARAMS, f'params._meta must hold "{META_VERSION}"')
    capabilities = inbound.meta.get(META_CAPABILITIES)
    if capabilities is None or not bytes(capabilities).startswith(b"{"):
        raise _refused(inbound.message, INVALID_PARAMS, f'params._meta must hold "{META_CAPABILITIES}"')
    _compare(inbound, "MCP-Protocol-Version", headers.version, version)
    _compare(inbound, "Mcp-Method", headers.method, inbound.method)
    key = MIRRORED.get(inbound.method)
    if key is not None:
        _compare(inbound, "Mcp-Name", _decoded(inbound, headers.name), jsonrpc.text(inbound.params.get(key)))
    if version != versions.MODERN:
        raise unsupported(version, inbound.id)


def unsupported(version: str, request_id: bytes = b"") -> DownstreamProtocolError:
    """The refusal of a revision that is not spoken, which names those that are."""
    error = DownstreamProtocolError(
        UNSUPPORTED_PROTOCOL_VERSION,
        "unsupported protocol version",
        data={"supported": list(versions.SUPPORTED), "requested": version},
    )
    error.request_id = request_id
    return error


def _compare(inbound: Inbound, header: str, value: str | None, expected: str | None) -> None:
    if value is None:
        raise _refused(inbound.message, HEADER_MISMATCH, f"the header {header} is required")
    if value != expected:
        raise _refused(inbound.message, HEADER_MISMATCH, f"the header {header} does not match the body")


def _decoded(inbound: Inbound, value: str | None) -> str | None:
    try:
        return None if value is None else decoded(value)
    except BadHeaderText as error:
        raise _refused(inbound.message, HEADER_MISMATCH, f"the header Mcp-Name {error}") from None


def _refused(
    message: jsonrpc.Message, code: int, text: str, data: dict[str, object] | None = None
) -> DownstreamProtocolError:
    error = DownstreamProtocolError(code, text, data=data)
    error.request_id = message.id
    return error
