"""One request's response on its way to a client: JSON if nothing precedes the answer, else a stream of events.

Whether it becomes a stream is left open until the first message comes before the answer, or until it takes long, so
that an error can still have its HTTP status.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from mcphost.broker import Reply
from mcphost.transports import sse
from mcphost.transports.asgi import Receive, Send, send_json, wait_disconnected

# Messages that wait to be sent before the answer. Past that the newest is dropped, for progress and logs may be lost;
# on a lossless exchange the stream ends, for whoever relies on hearing all must know that it does not.
MAX_BACKLOG_BYTES: Final = 256 * 1024

# Such an answer has to have its status, so what still waits before it is dropped if nothing was sent yet.
ERROR_STATUS: Final = 400


class Exchange:
    """One request's answer on its way out, and the messages before it."""

    def __init__(self, send: Send, *, lossless: bool = False) -> None:
        self._send = send
        self._events = sse.EventStream(send)
        self._lossless = lossless
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._news = anyio.Event()
        self._room = anyio.Event()
        self._cancelled = False
        self._scope: anyio.CancelScope | None = None
        self.is_gone = False

    async def wait_room(self) -> None:
        """Wait while the client leaves so much unread that no more is kept for it; not for one that is gone."""
        while self._backlog_bytes > MAX_BACKLOG_BYTES and not self.is_gone:
            await self._room.wait()

    async def run(
        self, answer: Callable[[], Awaitable[Reply]], receive: Receive, on_gone: Callable[[], None]
    ) -> None:
        """Produce and send the answer. `on_gone` is called when the client closes the connection before.

        Whether that cancels the request is the caller's to say. To a client that is gone nothing more is sent.
        """
        reply: Reply | None = None
        async with anyio.create_task_group() as tasks:
            self._scope = tasks.cancel_scope
            tasks.start_soon(self._watch, receive, on_gone)
            tasks.start_soon(self._stream)
            if not self._cancelled:
                reply = await answer()
            tasks.cancel_scope.cancel()
        if self.is_gone:
            return
        if (
            reply is not None
            and not self._events.has_begun
            and (not self._backlog or reply.status >= ERROR_STATUS)
        ):
            await send_json(self._send, reply.status, reply.body, reply.headers)
            return
        await self._events.begin()
        await self._drain()
        # A cancelled request has no answer, so its stream just ends.
        await self._events.end(b"" if reply is None else sse.event(reply.body))

    def cancel(self) -> None:
        """Cancel the request. What waits to be sent is dropped; what its cancellation puts there is sent."""
        self._cancelled = True
        self._backlog.clear()
        self._backlog_bytes = 0
        if self._scope is not None:
            self._scope.cancel()

    def notify(self, message: bytes) -> None:
        """Put a notification before the answer; see `MAX_BACKLOG_BYTES` for too many."""
        if self._cancelled:
            return
        if self._backlog_bytes + len(message) <= MAX_BACKLOG_BYTES:
            self.put(message)
        elif self._lossless:
            self.cancel()

    def put(self, message: bytes) -> None:
        """Put a message before the answer that must not be lost; the caller bounds how many there are."""
        if not self.is_gone:
            self._backlog_bytes += len(message)
            self._backlog.append(message)
            self._news.set()

    async def _watch(self, receive: Receive, on_gone: Callable[[], None]) -> None:
        await wait_disconnected(receive)
        self.is_gone = True
        self._backlog.clear()
        self._backlog_bytes = 0
        self._room.set()
        on_gone()

    async def _stream(self) -> None:
        while True:
            with anyio.move_on_after(sse.KEEP_ALIVE_SECONDS):
                await self._news.wait()
            with anyio.CancelScope(shield=True):
                # An event half sent cannot be taken back. Bounded: the listener cuts off who does not read.
                await self._events.begin()
                if self._backlog:
                    await self._drain()
                else:
                    await self._events.write(sse.KEEP_ALIVE)

    async def _drain(self) -> None:
        self._news = anyio.Event()
        while self._backlog:
            message = self._backlog.popleft()
            self._backlog_bytes -= len(message)
            self._room.set()
            self._room = anyio.Event()
            await self._events.write(sse.event(message))
