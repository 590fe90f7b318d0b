"""Letting web pages of listed origins read what they are answered (Fetch Standard, section 3.3, "CORS protocol").

Nothing here decides whether a page may call: the guard does. Without these headers a browser would not let the page of
another origin send a token, or read an answer. Pages of this machine that nobody listed get none of them: they could
call a runtime that asks for no token.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from mcphost.transports.asgi import HeaderList, Send

# Names of fields and the commas between them (RFC 9110, section 5.1). Any may be asked for: `Mcp-Param-*` has no end.
_FIELD_NAMES: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,2048}")
_READABLE: Final = b"mcp-session-id, retry-after, www-authenticate"
_METHODS: Final = b"GET, POST, DELETE"
_MAX_AGE: Final = b"600"  # seconds for which a browser asks no more


def is_preflight(method: str, headers: Mapping[bytes, str]) -> bool:
    """Whether a browser asks what a page may send."""
    return method == "OPTIONS" and b"access-control-request-method" in headers


async def send_preflight(send: Send, headers: Mapping[bytes, str]) -> None:
    """Answer that a page may send what it asked for. It says nothing of any endpoint, for no token comes with it."""
    allowed: list[tuple[bytes, bytes]] = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-max-age", _MAX_AGE),
    ]
    wanted = headers.get(b"access-control-request-headers", "")
    if _FIELD_NAMES.fullmatch(wanted):
        allowed.append((b"access-control-allow-headers", wanted.encode()))
    await send({"type": "http.response.start", "status": 204, "headers": allowed})
    await send({"type": "http.response.body", "body": b""})


def readable_by(origin: str, send: Send) -> Send:
    """The same way out, with what lets a page of this origin read the response."""
    extra: HeaderList = (
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", _READABLE),
        (b"vary", b"origin"),
    )

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return sending
