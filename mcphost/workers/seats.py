"""One process that serves one call chain at a time, from its start to its end.

starting ──ready──> idle <────quiet──── busy
    │                │ └─────taken───────^│
    └──> ending <────┴────────────────────┘
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio

from mcphost.decisions import seating
from mcphost.decisions.seating import SeatState
from mcphost.errors import CallFailure
from mcphost.workers.ending import End, end_lost
from mcphost.workers.lifetime import background_tasks
from mcphost.workers.owners import Terms
from mcphost.workers.settings import ServerSettings
from mcphost.workers.starting import Origin
from mcphost.workers.worker import Worker

# What a server may take to answer what was cancelled. One that does not, as it may, is ended.
SETTLE_SECONDS: Final = 1.0


class Seat:
    """One process and who has it. Run by `run`; everything else is synchronous."""

    def __init__(self, name: int, kind: Hashable, terms: Terms, arrange: Callable[[], None]) -> None:
        """`arrange` is called whenever it has become free."""
        self.name = name
        self.kind = kind
        self._terms = terms
        self._arrange = arrange
        self._changed = anyio.Event()
        self._returned = False
        self._once = False
        self._logs = False  # whether who has it wants log messages
        self._guests = 0
        self.state: SeatState = "starting"
        self.worker: Worker | None = None

    def __repr__(self) -> str:
        return f"<Seat {self.name} {self.state}>"

    @property
    def reserved(self) -> bool:
        """Whether it waits for the next round of the call chain that it serves, and is for nobody else."""
        return self._once and self.state == "idle"

    @property
    def is_serving(self) -> bool:
        """Whether a call chain has it that is not over."""
        return self.state == "busy" and not self._returned

    def view(self) -> seating.Seat:
        """What is decided about."""
        return seating.Seat(self.name, self.kind, self.state, reserved=self.reserved)

    def is_instance(self, instance: str) -> bool:
        """Whether its process has this name."""
        return self.worker is not None and self.worker.instance == instance

    def take(self, *, once: bool, logs: bool) -> Worker:
        """Have it. With `once` nobody else will, and it ends with the call chain."""
        assert self.worker is not None  # noqa: S101 - only an idle one is taken
        self._once = once
        self._logs = logs
        self._returned = False
        self._enter("busy")
        return self.worker

    def give_back(self) -> None:
        """It is the caller's no longer."""
        self._returned = True
        self._wake()

    @property
    def is_free(self) -> bool:
        """Whether it is nobody's, or will be as soon as it is quiet."""
        return self.state == "idle" or (self.state == "busy" and self._returned and not self._guests)

    @property
    def takes_guests(self) -> bool:
        """Whether somebody has it whom a request of another's beside costs nothing.

        A legacy server's log message could then belong to either, and would reach neither.
        """
        if self.worker is None or self.state != "busy" or self._returned or self._once:
            return False
        return not self._logs or self.worker.facts.era == "modern"

    @contextmanager
    def visit(self) -> Iterator[Worker]:
        """Use it beside who has it, for requests that hear nothing. The next does not get it before the block ends."""
        assert self.worker is not None  # noqa: S101 - only a busy one takes guests
        self._guests += 1
        try:
            yield self.worker
        finally:
            self._guests -= 1
            self._wake()

    def end(self) -> None:
        """It is wanted no longer; for one that is idle."""
        self._enter("ending")

    async def run(self, origin: Origin, wait: float) -> End | None:
        """After `wait` seconds start, then serve until nobody wants it or it is lost; leaves nothing.

        Gives how it was lost, None where it was not.

        Raises:
            StartFailed: with the reason.
        """
        clean, end = False, None
        try:
            await anyio.sleep(wait)
            worker = await origin.start(self._terms, self._own)
            async with background_tasks() as watchers:
                watchers.start_soon(self._watch, worker)
                clean = await self._serve(worker, origin.settings)
        finally:
            self._enter("ending")
            if self.worker is not None:
                with anyio.CancelScope(shield=True):  # every wait inside is bounded
                    end = await _end(self.worker, clean=clean)
        return end

    def _own(self, worker: Worker) -> None:
        self.worker = worker

    async def _serve(self, worker: Worker, settings: ServerSettings) -> bool:
        """One call chain after the other; whether the last one left nothing behind."""
        while True:
            self._enter("idle")
            self._arrange()
            with anyio.move_on_after(settings.idle.awaited if self._once else settings.idle.lease):
                await self._wait_while(lambda: self.state == "idle")
            if self.state != "busy":
                return True
            await self._wait_while(lambda: not self._returned or self._guests > 0)
            if not await self._is_clean(worker):
                return False
            if self._once and not worker.awaited:
                return True
            worker.awaited = False

    async def _is_clean(self, worker: Worker) -> bool:
        """Whether the server can say nothing more of what it was asked. Bounded."""
        if not worker.usable or worker.in_flight or worker.asked_unbidden:
            return False
        with anyio.move_on_after(SETTLE_SECONDS):
            try:
                await worker.wait_quiet()
            except CallFailure:
                return False
            return not worker.asked_unbidden
        return False

    async def _watch(self, worker: Worker) -> None:
        """One that is lost, or asks for nobody, while it is idle is nobody's call's failure, and of no use."""
        await worker.wait_unfit()
        if self.state == "idle":
            self._enter("ending")

    async def _wait_while(self, holds: Callable[[], bool]) -> None:
        while holds():
            await self._changed.wait()

    def _enter(self, state: SeatState) -> None:
        self.state = state
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


async def _end(worker: Worker, *, clean: bool) -> End | None:
    if not worker.usable:
        return await end_lost(worker, await worker.wait_lost())
    if clean:
        await worker.stop()
    else:
        await worker.kill("killed")
    return None
