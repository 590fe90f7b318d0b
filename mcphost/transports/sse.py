"""Server-sent events, the little of them that Streamable HTTP needs (HTML Living Standard, section 9.2)."""

from typing import Final

from mcphost.protocol.jsonrpc import one_line
from mcphost.transports.asgi import Send

HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)

KEEP_ALIVE: Final = b":\r\n\r\n"

# A stream on which nothing was sent for so long gets a comment, so that no proxy gives up on it.
KEEP_ALIVE_SECONDS: Final = 15.0


def event(message: bytes) -> bytes:
    """One JSON-RPC message as an event. JSON holds line breaks only between tokens, where they mean nothing."""
    return b"event: message\r\ndata: %b\r\n\r\n" % one_line(message)


class EventStream:
    """A response that is a stream of events. What was begun cannot be taken back: shield each write."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def begin(self) -> None:
        """Send the head, once."""
        if not self.has_begun:
            self.has_begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": [*HEADERS]})

    async def write(self, data: bytes) -> None:
        """Send an event or a keep-alive."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Send the last event, if there is one, and no more."""
        await self._send({"type": "http.response.body", "body": data, "more_body": False})
