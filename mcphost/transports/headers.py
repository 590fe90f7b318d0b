"""The headers of one HTTP request: read once, refused where two readers could read them two ways."""

from collections.abc import Mapping
from typing import Final

from mcphost.errors import HEADER_MISMATCH, BadHttp, DownstreamProtocolError
from mcphost.protocol.envelope import Headers

_DECISIVE: Final = frozenset(
    {b"authorization", b"host", b"origin", b"mcp-protocol-version", b"mcp-session-id", b"content-type", b"content-length"}
)  # fmt: skip
_MIRRORED: Final = frozenset({b"mcp-method", b"mcp-name"})
_PARAM: Final = b"mcp-param-"


def read_headers(raw: list[tuple[bytes, bytes]]) -> dict[bytes, str]:
    """Header values by lower-case name.

    Raises:
        BadHttp: a header that decides something occurs twice.
        DownstreamProtocolError: one that mirrors the body does (2026-07-28, "Server Validation").
    """
    headers: dict[bytes, str] = {}
    for given, value in raw:
        name = given.lower()
        text = value.decode("latin-1").strip(" \t")
        if name not in headers:
            headers[name] = text
        elif name in _DECISIVE:
            raise BadHttp(400, f"the header {name.decode()} occurs twice")
        elif name in _MIRRORED or name.startswith(_PARAM):
            raise DownstreamProtocolError(
                HEADER_MISMATCH, f"the header {name.decode('latin-1')} occurs twice"
            )
        else:
            headers[name] = f"{headers[name]}, {text}"
    return headers


def mcp_headers(headers: Mapping[bytes, str]) -> Headers:
    """Those that MCP gives a meaning to."""
    return Headers(
        headers.get(b"mcp-protocol-version"),
        headers.get(b"mcp-method"),
        headers.get(b"mcp-name"),
        headers.get(b"mcp-session-id"),
        {
            name[len(_PARAM) :].decode("latin-1"): value
            for name, value in headers.items()
            if name.startswith(_PARAM)
        },
    )


def check_posted(headers: Mapping[bytes, str]) -> None:
    """The media types of a POST.

    Raises:
        BadHttp: 415 for a body of another type, 406 for a client that could not read either kind of answer.
    """
    media = headers.get(b"content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise BadHttp(415, "the Content-Type must be application/json")
    accepted = _accepted(headers)
    if not (_takes(accepted, "application/json") and _takes(accepted, "text/event-stream")):
        raise BadHttp(406, "the Accept header must list application/json and text/event-stream")


def check_listening(headers: Mapping[bytes, str]) -> None:
    """The media type of a GET.

    Raises:
        BadHttp: 406 for a client that could not read a stream.
    """
    if not _takes(_accepted(headers), "text/event-stream"):
        raise BadHttp(406, "the Accept header must list text/event-stream")


def _accepted(headers: Mapping[bytes, str]) -> set[str]:
    """The media ranges of `Accept`, without those of weight 0 (RFC 9110, section 12.4.2)."""
    ranges = set()
    for part in headers.get(b"accept", "*/*").split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        if weight.rstrip("0") not in {"", "0."} and weight != "0":
            ranges.add(media)
    return ranges


def _takes(accepted: set[str], media: str) -> bool:
    return not accepted.isdisjoint({media, media.partition("/")[0] + "/*", "*/*"})
