"""The name in the first message of a TLS connection (RFC 8446, section 4.1.2; RFC 6066, section 3). No I/O here.

`HelloReader.feed` takes the first bytes of a tunnel as they come, until the ClientHello is complete, and gives the name
it asks for. The message may be cut over records and reads in any way. What is not needed is skipped by its length, so
values that TLS reserves to keep implementations tolerant (GREASE, RFC 8701) pass; what could be read in two ways is
refused: an extension twice, more than one name, lengths that do not add up. Encrypted Client Hello (RFC 9849) is
refused, also where a client only pretends: a front may follow the hidden name, whatever the visible one says.
"""

from dataclasses import dataclass

from sandbox.egress.rules import address_of

# Hellos have some 500 bytes, 2 KiB with post-quantum key shares.
MAX_HELLO_BYTES = 16 * 1024
# Cut into very small records a hello has much more framing than content; nobody does that but to see what happens.
MAX_RAW_BYTES = 2 * MAX_HELLO_BYTES

_HANDSHAKE_RECORD, _CLIENT_HELLO = 22, 1
_MAX_RECORD_BYTES = 2**14
_SERVER_NAME, _ENCRYPTED_CLIENT_HELLO = 0, 0xFE0D
_HOST_NAME = 0
_RANDOM_BYTES, _MAX_SESSION_BYTES = 32, 32

# Alert record: fatal, unrecognized_name (RFC 6066, section 3), so that a client is told something of use.
UNRECOGNIZED_NAME = bytes.fromhex("15 0303 0002 02 70")


class HelloRefused(Exception):
    """These bytes do not begin TLS, or in a way that is not let through; the text says why."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """`name` is what the client asks for, lower case; None if it names nothing. `raw` is all that was fed.

    `after` is what of it came behind the hello.
    """

    name: str | None
    raw: bytes
    after: bytes


class HelloReader:
    """Reads one ClientHello. After it has given one, or refused, it must not be fed again."""

    def __init__(self) -> None:
        self._raw = bytearray()
        self._at = 0
        self._message = bytearray()

    def feed(self, data: bytes) -> ClientHello | None:
        """The hello once it is complete; None while it is not.

        Raises:
            HelloRefused: it will never be one that is let through.
        """
        self._raw += data
        while (record := self._next_record()) is not None:
            self._message += record
            wanted = self._wanted()
            if wanted is not None and len(self._message) >= wanted:
                if len(self._message) > wanted:
                    raise HelloRefused("something follows the ClientHello in its record")
                return ClientHello(
                    _name(bytes(self._message[4:])), bytes(self._raw), bytes(self._raw[self._at :])
                )
        return None

    def _next_record(self) -> bytes | None:
        """The content of the next record if all of it is here (RFC 8446, section 5.1)."""
        head = self._raw[self._at : self._at + 5]
        if (head and head[0] != _HANDSHAKE_RECORD) or (len(head) > 1 and head[1] != 3):  # noqa: PLR2004 - TLS is SSL 3
            raise HelloRefused("the connection does not begin with TLS")
        if len(head) < 5:  # noqa: PLR2004 - type, version, length
            return None
        length = int.from_bytes(head[3:], "big")
        if not 1 <= length <= _MAX_RECORD_BYTES:
            raise HelloRefused("a record of the ClientHello is empty or too long")
        end = self._at + 5 + length
        if end > MAX_RAW_BYTES:
            raise HelloRefused("the ClientHello is cut into too many records")
        if len(self._raw) < end:
            return None
        record = bytes(self._raw[self._at + 5 : end])
        self._at = end
        return record

    def _wanted(self) -> int | None:
        """How long the message is with its head; None while that is not known."""
        if self._message[:1] != bytes([_CLIENT_HELLO]):
            raise HelloRefused("the connection does not begin with a ClientHello")
        if len(self._message) < 4:  # noqa: PLR2004 - type, length
            return None
        length = int.from_bytes(self._message[1:4], "big")
        if length > MAX_HELLO_BYTES:
            raise HelloRefused(f"the ClientHello has more than {MAX_HELLO_BYTES} bytes")
        return 4 + length


def name_refusal(name: str | None, host: str) -> str | None:
    """Why a hello with `name` may not go to `host`, a host in its normal form; None if it may.

    For an address there is no name to send (RFC 6066, section 3), and none is accepted.
    """
    if address_of(host) is not None:
        return None if name is None else "a name was sent where an address had been asked for"
    if name is None:
        return "no name was sent (SNI)"
    return None if name == host else "another name was sent than had been asked for"


class _Cursor:
    """Takes a message apart from front to back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise HelloRefused("the lengths in the ClientHello do not add up")
        part = self._data[self._at : end]
        self._at = end
        return part

    def vector(self, width: int) -> bytes:
        """A length of `width` bytes and so many bytes."""
        return self.take(int.from_bytes(self.take(width), "big"))

    def ended(self) -> bool:
        return self._at == len(self._data)

    def finish(self) -> None:
        if not self.ended():
            raise HelloRefused("the lengths in the ClientHello do not add up")


def _name(body: bytes) -> str | None:
    cursor = _Cursor(body)
    if cursor.take(2)[0] != 3:  # noqa: PLR2004 - TLS is SSL 3
        raise HelloRefused("the ClientHello is of no version of TLS")
    cursor.take(_RANDOM_BYTES)
    if len(cursor.vector(1)) > _MAX_SESSION_BYTES:
        raise HelloRefused("the ClientHello has a session id that is too long")
    suites = cursor.vector(2)
    if not suites or len(suites) % 2 or not cursor.vector(1):
        raise HelloRefused("the ClientHello offers no cipher suite or no compression")
    if cursor.ended():
        return None
    extensions = _extensions(cursor.vector(2))
    cursor.finish()
    if _ENCRYPTED_CLIENT_HELLO in extensions:
        raise HelloRefused(
            "the ClientHello hides a name (ECH); switch Encrypted Client Hello off in the client"
        )
    if _SERVER_NAME not in extensions:
        return None
    return _host_name(extensions[_SERVER_NAME])


def _extensions(data: bytes) -> dict[int, bytes]:
    cursor = _Cursor(data)
    found: dict[int, bytes] = {}
    while not cursor.ended():
        kind = int.from_bytes(cursor.take(2), "big")
        if kind in found:
            raise HelloRefused("the ClientHello has an extension twice")
        found[kind] = cursor.vector(2)
    return found


def _host_name(data: bytes) -> str:
    outer = _Cursor(data)
    names = _Cursor(outer.vector(2))
    outer.finish()
    kind, name = names.take(1)[0], names.vector(2)
    names.finish()
    if kind != _HOST_NAME or not name or not name.isascii() or not all(0x21 <= byte <= 0x7E for byte in name):  # noqa: PLR2004 - visible ASCII
        raise HelloRefused("the ClientHello names something that is no host")
    return name.decode("ascii").lower()
