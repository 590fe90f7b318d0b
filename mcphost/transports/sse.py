"""Server-sent events, the little of them that Streamable HTTP needs (HTML Living Standard, section 9.2)."""

from typing import Final

from mcphost.protocol.jsonrpc import one_line

HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)

KEEP_ALIVE: Final = b":\r\n\r\n"


def event(message: bytes) -> bytes:
    """One JSON-RPC message as an event. JSON holds line breaks only between tokens, where they mean nothing."""
    return b"event: message\r\ndata: %b\r\n\r\n" % one_line(message)
