"""The second ClientHello, which a server may ask for (RFC 8446, section 4.1.4), is held to the same name. No I/O here.

A server that cannot use the client's key share answers the first ClientHello with a HelloRetryRequest, and the client
sends another one in the clear. It must not change the name, but servers are known to take the one that came last. So
the client's records are walked, not held, until it is certain that no other hello can follow: the server has answered
with a real ServerHello, or the client has gone on to a later message of TLS 1.2, or the second hello has been seen.
"""

from sandbox.egress.tls_hello import HelloReader, HelloRefused, name_refusal

_HEAD_BYTES = 5
_HANDSHAKE, _CLIENT_HELLO, _SERVER_HELLO = 22, 1, 2
# Change cipher spec, alert, handshake, application data, heartbeat (IANA, TLS ContentType).
_CONTENT_TYPES = range(20, 25)
_MAX_RECORD_BYTES = 2**14 + 2048  # RFC 5246, section 6.2.3: of TLS 1.2, encrypted
# SHA-256 of "HelloRetryRequest" (RFC 8446, section 4.1.3).
_RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
# Record head, message head, version: what stands before the random of a ServerHello.
_BEFORE_RANDOM = _HEAD_BYTES + 4 + 2


class RetryWatch:
    """Watches one tunnel from right after its first ClientHello, for as long as `watching` is true."""

    def __init__(self, host: str) -> None:
        """`host` is the name that was asked for, in its normal form."""
        self.watching = True
        self._host = host
        self._head = bytearray()
        self._left = 0
        self._kind = 0
        self._hello: HelloReader | None = None
        self._hello_begun = False
        self._answer: bytearray | None = bytearray()

    def from_server(self, data: bytes) -> None:
        """Take what the server sent next."""
        if self._answer is None:
            return
        self._answer += data[: _BEFORE_RANDOM + len(_RETRY_RANDOM) - len(self._answer)]
        if len(self._answer) < _BEFORE_RANDOM + len(_RETRY_RANDOM):
            return
        first, self._answer = bytes(self._answer), None
        is_server_hello = first[0] == _HANDSHAKE and first[_HEAD_BYTES] == _SERVER_HELLO
        is_whole = int.from_bytes(first[3:_HEAD_BYTES], "big") >= len(first) - _HEAD_BYTES
        if is_server_hello and is_whole and first[_BEFORE_RANDOM:] != _RETRY_RANDOM:
            self.watching = False

    def from_client(self, data: bytes) -> None:
        """Take what the client sent next, before it goes on.

        Raises:
            HelloRefused: it begins TLS again for another name, or is no TLS.
        """
        at = 0
        while self.watching and at < len(data):
            if self._left:
                part = data[at : at + self._left]
                self._content(part)
            else:
                part = data[at : at + _HEAD_BYTES - len(self._head)]
                self._head += part
                if len(self._head) == _HEAD_BYTES:
                    self._open_record()
            at += len(part)

    def _open_record(self) -> None:
        head, self._head = bytes(self._head), bytearray()
        self._kind, self._left = head[0], int.from_bytes(head[3:], "big")
        if self._kind not in _CONTENT_TYPES or head[1] != 3 or self._left > _MAX_RECORD_BYTES:  # noqa: PLR2004
            raise HelloRefused("the connection does not go on with TLS")
        if self._kind == _HANDSHAKE:
            if self._hello is None:
                self._hello = HelloReader()
            self._feed(head)

    def _content(self, part: bytes) -> None:
        self._left -= len(part)
        if self._kind != _HANDSHAKE:
            return
        if not self._hello_begun and part[0] != _CLIENT_HELLO:
            self.watching = False  # TLS 1.2 has gone on to the client's keys
            return
        self._hello_begun = True
        self._feed(part)

    def _feed(self, data: bytes) -> None:
        if self._hello is None or (hello := self._hello.feed(data)) is None:
            return
        self.watching = False
        if why := name_refusal(hello.name, self._host):
            raise HelloRefused(f"in a second ClientHello {why}")
