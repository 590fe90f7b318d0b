"""The runtime's own HTTP listener: uvicorn with a bound on request heads.

This module is fenced: it subclasses uvicorn's protocol class, which lives on the event loop itself. uvicorn's
httptools front bounds neither the size of a request's head nor the time it may take, so one connection could
hold any memory, or stay open for ever without a request (slowloris). It goes when uvicorn does both.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any, Final

import anyio
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 64 * 1024  # as h11's default, h11/_connection.py
HEAD_SECONDS: Final = 30.0
MAX_CONNECTIONS: Final = 4096
KEEP_ALIVE_SECONDS: Final = 75
BACKLOG: Final = 1024

_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which closes a connection whose request head is too large or too slow."""

    _head_bytes = 0
    _in_head = True
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes arrived."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        # Judged after the parser saw the bytes: what it took as a body is no head.
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins."""
        if not self._in_head:
            self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A request's head is complete."""
        self._in_head = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        self._in_head = True
        self._stop_timer()
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Listener:
    """One listening socket and the application behind it."""

    def __init__(self, app: Any, bound: socket.socket, *, drain_seconds: float) -> None:
        config = uvicorn.Config(
            app,
            http=BoundedHttpProtocol,
            interface="asgi3",
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(drain_seconds)),
        )
        self._server = _Server(config)
        self._socket = bound
        self._stopped = anyio.Event()

    @property
    def port(self) -> int:
        """The TCP port, also where the kernel chose it."""
        return int(self._socket.getsockname()[1])

    async def serve(self) -> None:
        """Serve until `stop` and then until the requests under way are answered or the drain time is over."""
        try:
            await self._server.serve([self._socket])
        finally:
            self._socket.close()
            self._stopped.set()

    def stop(self) -> None:
        """Take no more connections; `serve` returns when the rest is done."""
        self._server.should_exit = True

    async def wait_stopped(self) -> None:
        """Wait until `serve` has ended."""
        await self._stopped.wait()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the runtime's."""
        yield


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        OSError: it cannot; the text names the address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)
