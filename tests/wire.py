"""HTTP/1.1 written byte by byte, for requests that no well-behaved client library would send."""

import re
from contextlib import suppress
from dataclasses import dataclass

import anyio
from anyio.abc import SocketStream

READ_SECONDS = 30.0
Headers = list[tuple[bytes, bytes]]


@dataclass
class Response:
    """What came back; `status` 0 where the connection was closed without an answer."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


CLOSED = Response(0, {}, b"")


class RawHttp:
    """One connection to the product, opened anew whenever it was closed."""

    def __init__(self, port: int, host: bytes = b"127.0.0.1") -> None:
        self._port = port
        self._host = host + b":" + str(port).encode()
        self._stream: SocketStream | None = None
        self._held = b""

    async def post(self, path: str, headers: Headers, body: bytes) -> Response:
        """A POST with a right length, whatever else is wrong."""
        length = (b"Content-Length", str(len(body)).encode())
        return await self.send(b"POST " + path.encode(), [(b"Host", self._host), *headers, length], body)

    async def send(self, line: bytes, headers: Headers, body: bytes) -> Response:
        """Any request; `line` is the method and the path."""
        head = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        return await self.exchange(line + b" HTTP/1.1\r\n" + head + b"\r\n" + body)

    async def exchange(self, data: bytes) -> Response:
        """Any bytes, and the response to them. A connection that was closed before is opened again, once."""
        with anyio.fail_after(READ_SECONDS):
            for _ in range(2):
                fresh = self._stream is None
                if self._stream is None:
                    self._stream = await anyio.connect_tcp("127.0.0.1", self._port)
                try:
                    await self._stream.send(data)
                    return await self._response()
                except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    await self.aclose()
                    if fresh:
                        break
        return CLOSED

    async def aclose(self) -> None:
        """Close the connection. Idempotent."""
        stream, self._stream, self._held = self._stream, None, b""
        if stream is not None:
            with suppress(OSError):
                await stream.aclose()

    async def _response(self) -> Response:
        head = await self._until(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        status = int(first.split(b" ")[1])
        if status == 100:
            return await self._response()
        headers = {
            name.lower().strip(): value.strip()
            for name, _, value in (line.partition(b":") for line in lines if line)
        }
        if headers.get(b"transfer-encoding") == b"chunked":
            body = await self._chunks()
        else:
            body = await self._exactly(int(headers.get(b"content-length", b"0")))
        if headers.get(b"connection") == b"close" or re.match(rb"HTTP/1\.0", first):
            await self.aclose()
        return Response(status, headers, body)

    async def _chunks(self) -> bytes:
        pieces = []
        while size := int((await self._until(b"\r\n")).strip(), 16):
            pieces.append(await self._exactly(size))
            await self._exactly(2)
        await self._until(b"\r\n")
        return b"".join(pieces)

    async def _until(self, end: bytes) -> bytes:
        while end not in self._held:
            self._held += await self._receive()
        found, _, self._held = self._held.partition(end)
        return found

    async def _exactly(self, size: int) -> bytes:
        while len(self._held) < size:
            self._held += await self._receive()
        found, self._held = self._held[:size], self._held[size:]
        return found

    async def _receive(self) -> bytes:
        assert self._stream is not None
        return await self._stream.receive()
