"""The one HTTP request that a worker may make of the proxy: CONNECT (RFC 9110, section 9.3.6). No I/O here.

`ConnectReader.feed` takes bytes as they come and gives the request once its head is complete. What follows the head is
never read as HTTP again, it belongs to the tunnel, so there is no second request to hide. Strictness is cheap here,
since the only honest senders are HTTP libraries: lines end in CR LF, there is nothing but visible text in them, a head
that also announces a body is refused, as is one whose Host is missing or repeated (RFC 9112, section 3.2).

Plain HTTP through the proxy (`GET http://host/`) is not carried, because nothing would hold it to the name: 405.
"""

import re
from dataclasses import dataclass

from sandbox.egress.rules import normal_host
from sandbox.errors import SpecInvalid

# A CONNECT of the usual libraries has some 200 bytes.
MAX_HEAD_BYTES = 8192
MAX_FIELDS = 64

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([\x21-\x7e]+) HTTP/(1\.[01])")
_FIELD = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e\x80-\xff]?(?:[\t\x20-\x7e\x80-\xff]*))"
)
_TARGET = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/?#]+):([0-9]{1,5})")
_MAX_PORT = 65535
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})

REASONS = {
    200: "Connection established",
    400: "Bad Request",
    403: "Forbidden",
    405: "Method Not Allowed",
    502: "Bad Gateway",
    504: "Gateway Timeout",
}


class ConnectRefused(Exception):
    """The request is answered with `status` and `reason`, and the connection closed."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """Where the worker wants to go; `host` is in its normal form, `rest` the first bytes of the tunnel, if any."""

    host: str
    port: int
    rest: bytes


class ConnectReader:
    """Reads one request. After it has given one, or refused, it must not be fed again."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> ConnectRequest | None:
        """The request once its head is complete; None while it is not.

        Raises:
            ConnectRefused: it will never be one, or is not one of those carried.
        """
        searched = max(len(self._held) - 3, 0)
        self._held += data
        end = self._held.find(b"\r\n\r\n", searched, MAX_HEAD_BYTES)
        if end < 0:
            self._check_so_far()
            return None
        return _read(bytes(self._held[:end]), bytes(self._held[end + 4 :]))

    def _check_so_far(self) -> None:
        """Refuse early what cannot become a request, so that a TLS client that took us for its server is told."""
        if len(self._held) >= MAX_HEAD_BYTES:
            raise ConnectRefused(400, f"the request's head has more than {MAX_HEAD_BYTES} bytes")
        if not 0x21 <= self._held[:1].ljust(1, b"C")[0] <= 0x7E:  # noqa: PLR2004 - visible ASCII
            raise ConnectRefused(400, "this is an HTTP proxy: send CONNECT host:port first")


def answer(status: int, reason: str = "") -> bytes:
    """The proxy's answer; for 200 the tunnel follows, for anything else the end of the connection."""
    line = f"HTTP/1.1 {status} {REASONS[status]}\r\n"
    if status == 200:  # noqa: PLR2004
        return f"{line}\r\n".encode()
    allow = "Allow: CONNECT\r\n" if status == 405 else ""  # noqa: PLR2004
    body = f"{reason}\n".encode("ascii", "backslashreplace")
    head = (
        f"{line}{allow}Content-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _read(head: bytes, rest: bytes) -> ConnectRequest:
    line, *fields = head.split(b"\r\n")
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise ConnectRefused(400, "the request line is not that of HTTP/1.1")
    method, target, version = found.groups()
    _check_fields(fields, needs_host=version == b"1.1")
    if method != b"CONNECT":
        raise ConnectRefused(405, "only CONNECT is carried, for TLS; plain HTTP is not, use https")
    host, port = _target(target.decode("ascii"))
    return ConnectRequest(host, port, rest)


def _check_fields(fields: list[bytes], *, needs_host: bool) -> None:
    if len(fields) > MAX_FIELDS:
        raise ConnectRefused(400, f"the request has more than {MAX_FIELDS} fields")
    names = []
    for field in fields:
        found = _FIELD.fullmatch(field)
        if found is None:
            raise ConnectRefused(400, "a field of the request is malformed")
        names.append(found[1].lower())
    if _FRAMING & set(names):
        raise ConnectRefused(400, "a CONNECT has no body")
    if names.count(b"host") > 1 or (needs_host and b"host" not in names):
        raise ConnectRefused(400, "there must be one Host field")


def _target(target: str) -> tuple[str, int]:
    found = _TARGET.fullmatch(target)
    if found is None or not 1 <= int(found[2]) <= _MAX_PORT:
        raise ConnectRefused(400, "CONNECT needs host:port")
    try:
        return normal_host(found[1]), int(found[2])
    except SpecInvalid as error:
        raise ConnectRefused(400, f"the host {error.message}") from None
