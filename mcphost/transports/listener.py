"""The runtime's own HTTP listener: uvicorn with bounds on what one connection may hold, and for how long.

This module is fenced: it subclasses uvicorn's protocol class, which lives on the event loop itself. uvicorn's
httptools front bounds neither the size of a request's head nor the time it may take, keeps trailers as headers,
and waits for ever for a body that was refused or for a client that does not read; so one connection without a
token could hold any memory, or stay for ever. It goes when uvicorn does all of that.
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
LINGER_SECONDS: Final = 5.0  # for the rest of a body that was refused
WRITE_SECONDS: Final = 60.0  # a client that takes no byte of its answer for so long is cut off
MAX_CONNECTIONS: Final = 4096
KEEP_ALIVE_SECONDS: Final = 75
BACKLOG: Final = 1024

_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a bound on what a connection may hold and on how long it may do nothing.

    One timer runs whenever the client owes something: a request's head, the next request, or reading an answer.
    """

    _head_bytes = 0
    _in_head = True
    _in_message = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._expect(HEAD_SECONDS)

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
        self._in_head = self._in_message = True
        self._expect(HEAD_SECONDS)
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers, which come behind a chunked body, are dropped.

        They would grow without bound, and a token or host among them would come after it was judged (RFC 9110,
        section 6.5.1).
        """
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A request's head is complete."""
        self._in_head = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request is complete, its body included."""
        self._in_message = False
        super().on_message_complete()
        if self.cycle.response_complete:
            self._in_head = True
            self._expect(KEEP_ALIVE_SECONDS)

    def on_response_complete(self) -> None:
        """A request was answered."""
        super().on_response_complete()
        if not self.cycle.response_complete:
            return  # the next of several pipelined requests is being answered
        if self._in_message and not self._in_head:
            # Refused before its body was read. The rest is read and dropped for a while: closing at once would reset
            # the connection, and a client that is still sending would never see the answer (RFC 9112, section 9.6).
            self._expect(LINGER_SECONDS)
        else:
            self._in_head = True
            self._expect(KEEP_ALIVE_SECONDS)

    def pause_writing(self) -> None:
        """The client does not read what it asked for."""
        super().pause_writing()
        self._expect(WRITE_SECONDS)

    def resume_writing(self) -> None:
        """The client reads again."""
        self._stop_timer()
        super().resume_writing()

    def _expect(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and not self.flow.write_paused:
            return  # the next request's head can wait until this one is answered
        self.transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


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
    bound = socket.create_server((host, port), family=family, backlog=BACKLOG)
    # An answer leaves in two writes, and the second must not wait for the first one's acknowledgement. Connections
    # inherit it; uvloop sets it by itself, asyncio does not.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound
