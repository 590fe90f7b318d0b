"""The pipes to one worker, with their protocol state: calls go out as lines, answers wake who waits.

This is one of the fenced modules that use the event loop itself rather than anyio: a call costs one future and
no task, and the lines of one turn of the loop leave in one write, where an event, a timeout and a task group
would each be paid by every call. `benchmarks` shows what a call costs. The fence goes when anyio offers callbacks.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mcphost.decisions.ratelimit import Rate, RateLimiter
from mcphost.errors import Overloaded, WorkerDied
from mcphost.protocol import upstream
from mcphost.protocol.framing import LineReader, LineTooLong
from mcphost.protocol.jsonrpc import Fields, Message
from mcphost.protocol.upstream import Upstream
from mcphost.workers.hearing import Hearer
from mcphost.workers.process import Process

# A worker that leaves so much unread on its stdin is not taking calls.
MAX_UNSENT_BYTES: Final = 32 * 1024 * 1024

# Offences (no JSON-RPC, answers nobody asked for) are forgiven at the pace of a server that prints to stdout
# by mistake; messages that are merely useless to us (log lines, questions) at the pace of a busy one. Past
# these it is a flood, which would cost other tenants the loop's time.
OFFENCES: Final = Rate(per_second=10.0, burst=200)
USELESS: Final = Rate(per_second=2000.0, burst=20_000)
PROGRESS: Final = Rate(per_second=20_000.0, burst=200_000)  # that a call asked for
COUNTED_BYTES: Final = 4096  # a message counts once more for each such piece of it

STDERR_LINES: Final = 50
STDERR_LINE_BYTES: Final = 2000

# What is read of a worker's stderr; one that writes faster is left waiting for its own pipe.
STDERR_BYTES_PER_SECOND: Final = 256 * 1024
STDERR_SHORT_PAUSE_SECONDS: Final = 0.05  # a burst of a few lines is read on without a pause

Build = Callable[[int], Fields]


@dataclass(slots=True, eq=False)
class InFlight:
    """One call on the wire."""

    answer: "asyncio.Future[Message]"
    hearer: Hearer | None


class Connection:
    """One worker's stdin, stdout and stderr. Owns the three descriptors once `open` has been called."""

    def __init__(
        self,
        machine: Upstream[InFlight],
        *,
        message_bytes: int,
        on_event: Callable[[upstream.Event[InFlight]], None],
        on_stderr: Callable[[bytes], None],
        on_lost: Callable[[str], None],
    ) -> None:
        """`on_event` gets what belongs to no call in flight; `on_lost` the reason the pipes are of no more use."""
        self._machine = machine
        self._lines = LineReader(message_bytes)
        self._on_event = on_event
        self._on_stderr = on_stderr
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._offences = RateLimiter(OFFENCES)
        self._useless = RateLimiter(USELESS)
        self._progress = RateLimiter(PROGRESS)
        self._unsent: list[bytes] = []
        self._writer: asyncio.WriteTransport | None = None
        self._readers: list[asyncio.ReadTransport] = []
        self._lost: str | None = None
        self.stderr_tail: deque[str] = deque(maxlen=STDERR_LINES)

    def __repr__(self) -> str:
        return f"<Connection {self._lost or 'open'}, {self._machine!r}>"

    @property
    def in_flight(self) -> int:
        """Calls on the wire."""
        return len(self._machine)

    async def open(self, process: Process) -> None:
        """Take over a process's pipes and send the handshake."""
        files = [os.fdopen(process.stdin, "wb", 0), os.fdopen(process.stdout, "rb", 0)]
        files.append(os.fdopen(process.stderr, "rb", 0))
        try:
            self._writer, _ = await self._loop.connect_write_pipe(lambda: _Stdin(self._stdin_lost), files[0])
            for make, file in ((lambda: _Pipe(self._read, self._ended), files[1]),
                               (lambda: _Stderr(self._told), files[2])):  # fmt: skip
                transport, _ = await self._loop.connect_read_pipe(make, file)
                self._readers.append(transport)
        except BaseException:
            self.close()
            for file in files:
                file.close()
            raise
        self._send(self._machine.open())

    async def request(self, method: str, build: Build, hearer: Hearer | None = None) -> Message:
        """Send one request and wait for its answer: a result or a server's own error.

        `build` makes the params from the request's id, which is its progress token and its subscription id too.
        There is no deadline here: the caller's scope is one. On cancellation the server is told to cancel.

        Raises:
            WorkerDied: the connection was lost meanwhile.
            Overloaded: the worker does not read its stdin.
        """
        if self._lost is not None or self._writer is None:
            raise WorkerDied(self._lost or "the worker is not connected")
        if self._writer.get_write_buffer_size() > MAX_UNSENT_BYTES:
            raise Overloaded("the server does not read its requests", retry_after=1.0)
        identifier = self._machine.reserve()
        entry = InFlight(self._loop.create_future(), hearer)
        self._send(self._machine.request(identifier, method, build(identifier), entry))
        try:
            return await entry.answer
        except asyncio.CancelledError:
            self._send(self._machine.cancel(identifier, "the client cancelled or the deadline passed"))
            raise

    def close_stdin(self) -> None:
        """Tell the worker that no more will come; most end by themselves."""
        self.lose("the worker is being stopped")
        if self._writer is not None:
            self._writer.close()

    def close(self) -> None:
        """Close all pipes at once; calls in flight fail."""
        self.lose("the worker was stopped")
        if self._writer is not None:
            self._writer.abort()
        for reader in self._readers:
            reader.close()

    def lose(self, why: str) -> None:
        """The connection is of no more use: fail what is in flight. Idempotent."""
        if self._lost is not None:
            return
        self._lost = why
        for reader in self._readers[:1]:  # stdout: what it still says means nothing, and may be a flood
            reader.close()
        for entry in self._machine.drain():
            if not entry.answer.done():
                entry.answer.set_exception(WorkerDied(f"{why} while the call was in flight"))
        self._on_lost(why)

    def _send(self, lines: bytes) -> None:
        if not lines or self._lost is not None:
            return
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(lines)

    def _flush(self) -> None:
        if self._writer is not None and self._lost is None:
            self._writer.write(self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent))
        self._unsent.clear()

    def _reply(self, line: bytes) -> None:
        """Answer a question of the worker's; one that asks and does not read the answers is of no use."""
        if self._writer is not None and self._writer.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self.lose("the server does not read the answers to its own requests")
        self._send(line)

    def _read(self, data: bytes) -> None:
        blank = self._lines.blank_lines
        try:
            for line in self._lines.feed(data):
                if self._lost is not None:
                    return
                self._receive(line)
        except LineTooLong:
            self.lose("the server sent a message beyond its limit")
        if self._lines.blank_lines > blank:
            self._charge(self._useless, self._lines.blank_lines - blank, "blank lines")

    def _receive(self, line: bytes) -> None:
        event = self._machine.receive(line)
        cost = 1 + len(line) // COUNTED_BYTES
        match event:
            case None:
                return
            case upstream.Answered(entry, message):
                if not entry.answer.done():
                    entry.answer.set_result(message)
                return
            case upstream.Progressed(entry, params) if (
                entry.hearer is not None and entry.hearer.wants_progress
            ):
                self._charge(self._progress, cost, "progress")
                entry.hearer.progressed(params)
                return
            case upstream.Opened():
                self._send(self._machine.confirm())
            case upstream.Asked(_, reply):
                self._reply(reply)
            case _:
                pass
        if isinstance(event, upstream.Offence):
            self._charge(self._offences, cost, "messages that are no MCP")
        else:
            self._charge(self._useless, cost, "messages that no call asked for")
        self._on_event(event)

    def _charge(self, limiter: RateLimiter, cost: int, what: str) -> None:
        if limiter.wait_for(self._loop.time(), cost=cost):
            self.lose(f"the server flooded us with {what}")

    def _told(self, data: bytes) -> None:
        pause = len(data) / STDERR_BYTES_PER_SECOND
        if pause > STDERR_SHORT_PAUSE_SECONDS:
            self._readers[1].pause_reading()
            self._loop.call_later(pause, self._resume_stderr)
        for line in data[-STDERR_LINES * STDERR_LINE_BYTES :].splitlines()[-STDERR_LINES:]:
            self.stderr_tail.append(line[:STDERR_LINE_BYTES].decode(errors="replace"))
        self._on_stderr(data)

    def _resume_stderr(self) -> None:
        if not self._readers[1].is_closing():
            self._readers[1].resume_reading()

    def _stdin_lost(self) -> None:
        self._writer = None
        self.lose("the server closed its input")

    def _ended(self) -> None:
        self.lose("the server closed its output")


class _Pipe(asyncio.Protocol):
    """Reads one pipe into a callback."""

    def __init__(self, read: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._read = read
        self._ended = ended

    def data_received(self, data: bytes) -> None:
        self._read(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended()


class _Stderr(_Pipe):
    def __init__(self, read: Callable[[bytes], None]) -> None:
        super().__init__(read, lambda: None)


class _Stdin(asyncio.Protocol):
    """The writing end; its loss is the worker's, since nothing can be asked any more."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()
