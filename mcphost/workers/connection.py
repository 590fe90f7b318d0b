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
from functools import partial
from typing import Final

from msgspec import Raw

from mcphost.decisions.ratelimit import Rate, RateLimiter
from mcphost.errors import Overloaded, WorkerDied
from mcphost.protocol import events
from mcphost.protocol.attribution import DEAF, Hears
from mcphost.protocol.framing import LineReader, LineTooLong
from mcphost.protocol.jsonrpc import ErrorObject, Fields, Message
from mcphost.protocol.upstream import Upstream
from mcphost.workers.hearing import Hearer, Question
from mcphost.workers.process import Process

# A worker that leaves so much unread on its stdin is not taking calls.
MAX_UNSENT_BYTES: Final = 32 * 1024 * 1024

# Offences (no JSON-RPC, answers nobody asked for) are forgiven at the pace of a server that prints to stdout
# by mistake; messages that are merely useless to us (log lines nobody wants), and questions, at the pace of a busy one. Past
# these it is a flood, which would cost other tenants the loop's time.
OFFENCES: Final = Rate(per_second=10.0, burst=200)
USELESS: Final = Rate(per_second=2000.0, burst=20_000)
HEARD: Final = Rate(per_second=20_000.0, burst=200_000)  # progress and log messages that a call asked for
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
    wants_progress: bool


class Connection:
    """One worker's stdin, stdout and stderr. Owns the three descriptors once `open` has been called."""

    def __init__(
        self,
        machine: Upstream[InFlight],
        *,
        message_bytes: int,
        on_event: Callable[[events.Event[InFlight]], None],
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
        self._heard = RateLimiter(HEARD)
        self._questions: dict[bytes, Question] = {}  # those that the machine holds open, by its keys
        self._unsent: list[bytes] = []
        self._writer: asyncio.WriteTransport | None = None
        self._readers: list[asyncio.ReadTransport] = []
        self._lost: str | None = None
        self.stderr_tail: deque[str] = deque(maxlen=STDERR_LINES)

    def __repr__(self) -> str:
        return f"<Connection {self._lost or 'open'}, {self._machine!r}>"

    @property
    def in_flight(self) -> int:
        """Calls on the wire; what we listen on is none."""
        return len(self._machine) - self._machine.listens

    @property
    def unsettled(self) -> bool:
        """Whether the server may still say something of a call that was cancelled."""
        return self._machine.unsettled

    def settle(self) -> None:
        """Take it that the server says no more of what was cancelled."""
        self._machine.settle()

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
        entry = InFlight(self._loop.create_future(), hearer, hearer is not None and hearer.wants_progress)
        hears = DEAF if hearer is None else Hears(hearer.wants_logs, hearer.can_be_asked)
        self._send(self._machine.request(identifier, method, build(identifier), entry, hears))
        try:
            return await entry.answer
        except asyncio.CancelledError:
            lines, over = self._machine.cancel(identifier, "the client cancelled or the deadline passed")
            self._send(lines)
            self._withdraw(over)
            raise

    def close_stdin(self) -> None:
        """Tell the worker that no more will come; most end by themselves."""
        self.lose("the worker is being stopped")
        if self._writer is not None:
            self._writer.close()

    def close(self) -> None:
        """Close all pipes at once; calls in flight fail."""
        self.lose("the worker was stopped")
        if self._writer is not None and not _is_as_good_as_closed(self._writer):
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
        self._withdraw(tuple(self._questions))
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
            case events.Answered():
                self._answered(event)
                return
            case events.AnsweredLate():
                self._on_event(event)
                return
            case events.Progressed(entry, params) if entry.wants_progress and entry.hearer is not None:
                self._charge(self._heard, cost, "progress")
                entry.hearer.progressed(params)
                return
            case events.Logged(entry, params) if entry.hearer is not None:
                self._charge(self._heard, cost, "log messages")
                entry.hearer.logged(params)
                return
            case events.Offence():
                self._charge(self._offences, cost, "messages that are no MCP")
            case events.Asked():
                self._charge(self._useless, cost, "requests of its own")
            case _:
                self._charge(self._useless, cost, "messages that no call asked for")
        if self._lost is None:
            self._follow(event)
        self._on_event(event)

    def _follow(self, event: events.Event[InFlight]) -> None:
        """What we owe the worker after an event that is neither an answer nor something to hear."""
        match event:
            case events.Opened():
                self._send(self._machine.confirm())
            case events.Reprobed(line):
                self._send(line)
            case events.Refused(_, _, line) | events.Pinged(line):
                self._reply(line)
            case events.Asked(entry, key, method, params) if entry.hearer is not None:
                self._questions[key] = Question(method, params, partial(self._answer, key))
                entry.hearer.asked(self._questions[key])
            case events.Withdrawn(key):
                self._withdraw((key,))
            case _:
                pass

    def _answered(self, event: events.Answered[InFlight]) -> None:
        answer = event.entry.answer
        if not answer.done():
            answer.set_result(event.message)
        self._send(event.line)
        self._withdraw(event.over)

    def _answer(self, key: bytes, reply: Raw | ErrorObject) -> None:
        """Pass on what a question was answered with."""
        del self._questions[key]
        self._reply(self._machine.answer(key, reply))

    def _withdraw(self, keys: tuple[bytes, ...]) -> None:
        for key in keys:
            self._questions.pop(key).withdraw()

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


def _is_as_good_as_closed(writer: asyncio.WriteTransport) -> bool:
    """Whether it is closing and has nothing to write: asyncio's would be lost twice if it were aborted now."""
    return writer.is_closing() and not writer.get_write_buffer_size()


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
