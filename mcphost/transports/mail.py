"""What a legacy session is told outside its requests: kept until its GET stream takes it.

Source: 2025-11-25, basic/transports, "Listening for Messages from the Server".
"""

from collections import deque
from typing import Final

import anyio
import anyio.lowlevel

from mcphost.protocol.jsonrpc import one_line
from mcphost.transports import sse
from mcphost.transports.asgi import Receive, Send, wait_disconnected
from mcphost.transports.lasting import Lasting

# Messages that wait for a GET stream, which many clients never open. Past that the oldest is dropped: what is carried
# here says that something changed, and the newest says so as well.
MAX_MESSAGES: Final = 64
MAX_BYTES: Final = 64 * 1024


class Mail:
    """The bounded messages of one session that wait to be sent. One reader at most."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self.news = anyio.Event()
        self.is_read = False
        self.is_closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: bytes) -> None:
        """Keep a message. The same one twice waits once: that a list changed is news only once."""
        message = one_line(message)
        if self.is_closed or len(message) > MAX_BYTES or message in self._waiting:
            return
        self._waiting.append(message)
        self._bytes += len(message)
        while self._bytes > MAX_BYTES or len(self._waiting) > MAX_MESSAGES:
            self._bytes -= len(self._waiting.popleft())
        self.news.set()

    def take(self) -> bytes | None:
        """The oldest message, or None if none waits; then `news` is set when one comes or the session ends."""
        if self._waiting:
            message = self._waiting.popleft()
            self._bytes -= len(message)
            return message
        if not self.is_closed:
            self.news = anyio.Event()
        return None

    def close(self) -> None:
        """The session is over: nothing more is kept."""
        self.is_closed = True
        self._waiting.clear()
        self._bytes = 0
        self.news.set()


async def send_mail(mail: Mail, ends: tuple[Receive, Send], lasting: Lasting) -> None:
    """Answer a GET with a stream of the mail, until its session ends, its client is gone, or `lasting` is over."""
    receive, send = ends
    events = sse.EventStream(send)
    await events.begin()
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            await wait_disconnected(receive)
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        async with lasting.until_over(tasks.cancel_scope.cancel):
            while not mail.is_closed:
                await _deliver(mail, events)
        tasks.cancel_scope.cancel()
    await events.end()


async def _deliver(mail: Mail, events: sse.EventStream) -> None:
    """Send what waits, then wait for more; a keep-alive if that takes long."""
    while (message := mail.take()) is not None:
        # An event half sent cannot be taken back. Bounded: the listener cuts off who does not read.
        with anyio.CancelScope(shield=True):
            await events.write(sse.event(message))
        await anyio.lowlevel.checkpoint()
    with anyio.move_on_after(sse.KEEP_ALIVE_SECONDS):
        await mail.news.wait()
        return
    with anyio.CancelScope(shield=True):
        await events.write(sse.KEEP_ALIVE)
