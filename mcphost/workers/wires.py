"""A connected TCP socket, awaited: bounded reads, writes that wait for room, either direction ended by itself."""

import socket
from contextlib import suppress
from typing import Final

import anyio
import anyio.lowlevel

# One piece in memory for each direction of a tunnel; larger ones make bulk transfers no faster over real networks.
PIECE_BYTES: Final = 64 * 1024
# What a client that was refused may still have sent; it is read so that the kernel does not throw our answer away
# with it (RFC 9112, section 9.6).
LINGER_BYTES: Final = 64 * 1024
# What the kernel may hold in one direction of one end; it takes twice as much with its own bookkeeping (socket(7)). Left
# to itself it would go up to several megabytes (tcp(7), tcp_rmem, tcp_wmem), none of which counts for the worker.
KERNEL_BYTES: Final = 128 * 1024
# The direction that workers mostly wait for, over the longer way: 10 MB/s at 50 ms.
INCOMING_KERNEL_BYTES: Final = 512 * 1024


def bound_buffers(one: socket.socket, *, incoming: int = KERNEL_BYTES) -> None:
    """Bound what the kernel holds for a socket; before it connects, or the window is no longer agreed on."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, incoming)


class Wire:
    """Owns the socket it is given, which must be non-blocking."""

    def __init__(self, owned: socket.socket) -> None:
        self._socket = owned

    def __repr__(self) -> str:
        return f"<Wire {self._socket.fileno()}>"

    async def receive(self) -> bytes:
        """The next bytes, at most `PIECE_BYTES`; empty at the end. Raises `OSError` when the connection broke."""
        # A sender that is always faster than us must not keep the loop from everybody else.
        await anyio.lowlevel.checkpoint()
        while True:
            try:
                return self._socket.recv(PIECE_BYTES)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)

    async def send(self, data: bytes) -> None:
        """Hand over all of `data`, waiting for room. Raises `OSError` when the connection broke."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)

    def end(self) -> None:
        """Say that nothing more will be sent; receiving goes on."""
        with suppress(OSError):  # the other side may be gone by now
            self._socket.shutdown(socket.SHUT_WR)

    async def linger(self) -> None:
        """End, and read what still comes until the other side has ended, too. The caller bounds the time."""
        self.end()
        left = LINGER_BYTES
        with suppress(OSError):
            while left > 0 and (data := await self.receive()):
                left -= len(data)

    def close(self) -> None:
        """Let go of the connection. Idempotent."""
        self._socket.close()
