"""One response on its way to a client: JSON if nothing precedes the answer, else a stream of events."""

from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import anyio

from mcphost.broker import Reply
from mcphost.transports import sse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# An answer that takes longer is turned into a stream with keep-alives, so that no proxy gives up on it.
PATIENCE_SECONDS: Final = 15.0

MAX_BACKLOG_BYTES: Final = (
    256 * 1024
)  # progress not yet sent; past that the newest is dropped, it may be lost

_JSON: Final = ((b"content-type", b"application/json"),)


async def send_json(
    send: Send, status: int, body: bytes, extra: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    """Send a whole response of JSON."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*_JSON, length, *extra]})
    await send({"type": "http.response.body", "body": body})


class Exchange:
    """One request's answer on its way out: JSON if nothing precedes it, else a stream of events."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._news = anyio.Event()
        self._streaming = False
        self._cancelled = False
        self._scope: anyio.CancelScope | None = None

    async def run(self, answer: Callable[[], Awaitable[Reply]], receive: Receive | None) -> None:
        """Produce and send the answer. With `receive`, a client that goes away cancels the call."""
        reply: Reply | None = None
        async with anyio.create_task_group() as tasks:
            self._scope = tasks.cancel_scope
            if receive is not None:
                tasks.start_soon(self._watch, receive)
            tasks.start_soon(self._stream)
            if not self._cancelled:
                reply = await answer()
            tasks.cancel_scope.cancel()
        if reply is None:
            await self._finish_cancelled()
        elif self._streaming:
            await self._drain()
            await self._write(sse.event(reply.body), more=False)
        else:
            await send_json(self._send, reply.status, reply.body, reply.headers)

    def cancel(self) -> None:
        """Cancel the call; its client gets an empty stream, for a cancelled request has no answer."""
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    async def _finish_cancelled(self) -> None:
        if not self._streaming:
            await self._begin()
        await self._write(b"", more=False)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.cancel()

    def notify(self, message: bytes) -> None:
        """Put a notification before the answer; dropped if too much waits, since those may be lost."""
        if self._backlog_bytes + len(message) <= MAX_BACKLOG_BYTES:
            self._backlog_bytes += len(message)
            self._backlog.append(message)
            self._news.set()

    async def _stream(self) -> None:
        while True:
            with anyio.move_on_after(PATIENCE_SECONDS):
                await self._news.wait()
            with anyio.CancelScope(shield=True):
                # An event half sent cannot be taken back. Bounded: the listener cuts off who does not read.
                if not self._streaming:
                    await self._begin()
                if self._backlog:
                    await self._drain()
                else:
                    await self._write(sse.KEEP_ALIVE)

    async def _begin(self) -> None:
        self._streaming = True
        await self._send({"type": "http.response.start", "status": 200, "headers": [*sse.HEADERS]})

    async def _drain(self) -> None:
        self._news = anyio.Event()
        while self._backlog:
            message = self._backlog.popleft()
            self._backlog_bytes -= len(message)
            await self._write(sse.event(message))

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
