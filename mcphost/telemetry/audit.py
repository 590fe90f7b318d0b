"""The writer of the audit: a bounded queue and a thread, so that no disk holds up the event loop.

A call asks for room before it begins and gives its record when it has ended, so what was promised always fits. All
that waits is written at once, and the disk is told to hold it (fdatasync) once in `SYNC_SECONDS`, and at the end.
"""

import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Final, Literal

import anyio
import anyio.to_thread
import msgspec

from mcphost.decisions.ratelimit import Rate, RateLimiter
from mcphost.errors import AuditUnavailable, StartRefused
from mcphost.telemetry.auditfile import AuditFile
from mcphost.telemetry.logs import logger, printable
from mcphost.telemetry.metrics import Metrics

MAX_WAITING: Final = 10_000  # records that wait or are promised; at some 600 bytes each about 6 MiB
MAX_WAITING_BYTES: Final = 32 * 1024 * 1024  # the same, where records hold arguments
ACT_ROOM: Final = 1_000  # for what has happened anyway and cannot be refused, when calls have filled the rest
BATCH: Final = 512  # records in one write
SYNC_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.25  # until the next try where the disk refuses
CLOSE_SECONDS: Final = 5.0  # for what is left at the end

# Whoever has no token can make us write, so this is bounded; what is left out is counted in the next record.
REFUSALS: Final = Rate(per_second=10.0, burst=100)

MAX_TEXT_CHARACTERS: Final = 500  # of what others say: names, paths, reasons


class CallRecord(msgspec.Struct, omit_defaults=True, tag_field="kind", tag="call"):
    """One call, as the audit keeps it. Empty members are left out."""

    time: datetime
    request: str
    tenant: str
    token: str
    endpoint: str
    era: str
    method: str
    decision: Literal["allow", "deny", "refuse"]
    outcome: str
    seconds: float
    bytes_in: int
    bytes_out: int
    server: str = ""
    name: str = ""
    rule: list[str] = []
    trace: str = ""
    arguments_sha256: str = ""
    arguments: object = None


@asynccontextmanager
async def recording(
    path: str, metrics: Metrics, wall: Callable[[], float], *, required: bool, about: Mapping[str, object]
) -> AsyncIterator["Audit"]:
    """The audit at `path` for as long as the block lasts, its first record `about` this run, its last that it stops.

    Raises:
        StartRefused: the file is not to be trusted, or cannot be written.
    """
    file = await anyio.to_thread.run_sync(AuditFile.open, path, wall)
    audit = Audit(file, metrics, wall, required=required)
    await anyio.to_thread.run_sync(partial(audit.begin, **about))
    try:
        yield audit
    finally:
        with anyio.CancelScope(shield=True):  # bounded by CLOSE_SECONDS
            await anyio.to_thread.run_sync(audit.close)


class Audit:
    """Where calls, acts and refusals are recorded. Used from the event loop's thread only."""

    def __init__(
        self, file: AuditFile, metrics: Metrics, wall: Callable[[], float], *, required: bool = True
    ) -> None:
        """`wall` gives seconds since the epoch. With `required` nothing begins that could not be recorded."""
        self._file = file
        self._metrics = metrics
        self._wall = wall
        self._required = required
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._taken = 0  # records promised or handed over; changed by the loop's thread alone
        self._taken_bytes = 0
        self._written = 0  # changed by the writer alone
        self._written_bytes = 0
        self._trouble = ""
        self._over = threading.Event()
        self._refusals = RateLimiter(REFUSALS)
        self._unrecorded = 0
        self._dropping = False
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def __repr__(self) -> str:
        return f"<Audit {self._taken - self._written} waiting{', ' if self._trouble else ''}{self._trouble}>"

    def begin(self, **facts: object) -> None:
        """Write the first record of this run, and start the writer. Waits for the disk.

        Raises:
            StartRefused: the disk refuses, and calls would have to be refused.
        """
        self._taken = 1
        content = self._act("runtime-started", facts)
        try:
            if self._file.append([content]):
                self._file.sync()
                self._written = 1
        except OSError as error:
            self._file.trouble = error
        trouble = self._file.trouble
        if trouble is not None and self._required:
            self._file.close()
            why = trouble.strerror or trouble
            raise StartRefused(f"audit.file: {self._file.path} cannot be written: {why}; make room for it")
        if trouble is not None:
            self._troubled(trouble)
        if not self._written:
            self._put(content)
        self._thread.start()

    def close(self) -> None:
        """Write what is left, for a bounded time. Waits for the disk."""
        self.act("runtime-stopped")
        self._queue.put(None)
        self._thread.join(CLOSE_SECONDS)
        self._over.set()
        if left := self._taken - self._written:
            logger().error("audit_records_lost", count=left, error=self._trouble)
        if not self._thread.is_alive():
            self._file.close()

    # --- what is recorded -------------------------------------------------------------------------

    def promise(self) -> bool:
        """Make room for the record of a call that is about to begin; False if there is none and none is needed.

        Raises:
            AuditUnavailable: there is none, and without a record no call may begin.
        """
        if self._has_room(MAX_WAITING) and not (self._trouble and self._required):
            self._taken += 1
            return True
        if self._required:
            raise AuditUnavailable
        self._drop("call")
        return False

    def call(self, record: CallRecord) -> None:
        """Keep the record of a call that room was made for."""
        self._put(msgspec.json.encode(record))

    def act(self, kind: str, **facts: object) -> None:
        """Keep what the runtime, its operator or a worker has done. Empty facts are left out."""
        if self._has_room(MAX_WAITING + ACT_ROOM):
            self._taken += 1
            self._put(self._act(kind, facts))
        else:
            self._drop(kind)

    def refused(self, **facts: object) -> None:
        """Keep that a request was refused before it became a call; not all of them where they are many."""
        if self._refusals.wait_for(time.monotonic()) or not self._has_room(MAX_WAITING):
            self._unrecorded += 1
            self._metrics.audit_dropped("refusal")
            return
        unrecorded, self._unrecorded = self._unrecorded, 0
        self._taken += 1
        self._put(self._act("refusal", {**facts, "unrecorded": unrecorded}))

    def now(self) -> datetime:
        """The wall time that records carry."""
        return datetime.fromtimestamp(self._wall(), UTC)

    def _act(self, kind: str, facts: dict[str, object]) -> bytes:
        kept = {
            key: printable(value[:MAX_TEXT_CHARACTERS]) if isinstance(value, str) else value
            for key, value in facts.items()
            if value
        }
        return msgspec.json.encode({"kind": kind, "time": self.now(), **kept})

    def _has_room(self, most: int) -> bool:
        waiting_bytes = self._taken_bytes - self._written_bytes
        return self._taken - self._written < most and waiting_bytes < MAX_WAITING_BYTES

    def _put(self, content: bytes) -> None:
        self._taken_bytes += len(content)
        self._queue.put(content)

    def _drop(self, kind: str) -> None:
        self._metrics.audit_dropped("call" if kind == "call" else "act")
        if not self._dropping:
            self._dropping = True
            logger().error("audit_dropped", kind=kind, error=self._trouble or "too many records wait")

    # --- the writer's thread ----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - the boundary of the thread: without it no call may begin
            logger().exception("audit_broke")
            self._trouble = f"internal error: {type(error).__name__}"

    def _work(self) -> None:
        batch: list[bytes] = []
        ending = False
        synced = time.monotonic()
        while not self._over.is_set() and not (ending and not batch):
            ending = self._gather(batch, synced) or ending
            self._write(batch)
            if ending or time.monotonic() - synced >= SYNC_SECONDS:
                self._sync()
                synced = time.monotonic()

    def _gather(self, batch: list[bytes], synced: float) -> bool:
        """Fill the batch with what waits; wait a moment if nothing does. Whether that was all there will be."""
        try:
            while len(batch) < BATCH:
                if batch:
                    item = self._queue.get_nowait()
                else:
                    item = self._queue.get(timeout=max(0.0, synced + SYNC_SECONDS - time.monotonic()))
                if item is None:
                    return True
                batch.append(item)
        except queue.Empty:
            pass
        return False

    def _write(self, batch: list[bytes]) -> None:
        if not batch:
            return
        whole = self._file.append(batch)
        self._written_bytes += sum(map(len, batch[:whole]))
        self._written += whole
        del batch[:whole]
        if batch:
            self._troubled(self._file.trouble)
            self._over.wait(RETRY_SECONDS)
        elif self._trouble:
            self._trouble, self._dropping = "", False
            logger().warning("audit_goes_on")

    def _sync(self) -> None:
        try:
            self._file.sync()
        except OSError as error:
            self._troubled(error)

    def _troubled(self, error: OSError | None) -> None:
        before, self._trouble = self._trouble, str(error and (error.strerror or error)) or "unknown"
        if not before:
            logger().error("audit_unavailable", error=self._trouble)
