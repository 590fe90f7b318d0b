"""The few words of ASGI that the front speaks, and whole responses."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HeaderList = tuple[tuple[bytes, bytes], ...]

_JSON: Final = (b"content-type", b"application/json")


async def send_json(send: Send, status: int, body: bytes, extra: HeaderList = ()) -> None:
    """Send a whole response of JSON."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [_JSON, length, *extra]})
    await send({"type": "http.response.body", "body": body})


async def send_empty(send: Send, status: int) -> None:
    """Send a response without a body."""
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def wait_disconnected(receive: Receive) -> None:
    """Return when the client is gone. What it still sends of a body is dropped."""
    while (await receive())["type"] != "http.disconnect":
        pass
