"""Calls that need a process to themselves, and the processes of a worker set that they get: in turn among tenants.

Each process has a task of the worker set's own group from its start to its end, so a call that is given up while it
waits leaves nothing behind. What a call leaves in its process is looked at before the next one gets it (`seats`).
"""

from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from random import random
from typing import Final

import anyio
import anyio.abc

from mcphost.decisions import seating
from mcphost.decisions.restart import Again, GiveUp, RestartBudget
from mcphost.decisions.turns import COME_AGAIN_SECONDS, Turns
from mcphost.errors import CallFailure, McpHostError, Overloaded, StartFailed, WorkerGone, WorkerUnavailable
from mcphost.telemetry.logs import logger
from mcphost.workers.ending import End
from mcphost.workers.owners import Need, Terms
from mcphost.workers.seats import SETTLE_SECONDS, Seat
from mcphost.workers.starting import PATIENCE_SECONDS, Origin
from mcphost.workers.worker import Worker

MAX_WAITING: Final = (
    256  # calls of one tenant that wait for a process to themselves; past that they are refused
)

MAIN: Final = 0  # the name of the seat that is the worker set's main process
ALONE: Final = "alone"  # the kind of processes that others may use, too, as long as they do not need it alone


class Leases:
    """The processes of one worker set that calls have to themselves. Its tasks run in the group given to `begin`."""

    def __init__(self, origin: Origin, main: Callable[[], Worker | None]) -> None:
        """`main` gives the worker set's main process, where it can take calls."""
        self._origin = origin
        self._main = main
        self._main_is_held = False
        self._seats: dict[int, Seat] = {}
        self._waiters: list[_Waiter] = []  # in the order they came
        self._turns = Turns()
        self._names = count(MAIN + 1)
        self._budget = RestartBudget(origin.settings.restart)
        self._resume_at = 0.0
        self._tasks: anyio.abc.TaskGroup | None = None
        # Called when somebody waits and only the end of a call will help: whoever can end one may.
        self.on_crowded: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Leases {len(self._seats)} processes, {len(self._waiters)} waiting>"

    def __len__(self) -> int:
        """Processes, those included that are starting or ending."""
        return len(self._seats)

    def begin(self, tasks: anyio.abc.TaskGroup) -> None:
        """Own processes from now on, for as long as the group runs."""
        self._tasks = tasks

    def close(self) -> None:
        """Start no more, and tell all who wait."""
        self._tasks = None
        self.refuse(WorkerUnavailable("the runtime is stopping"))

    def refuse(self, error: McpHostError) -> None:
        """Tell all who wait that there will be none."""
        for waiter in list(self._waiters):
            self._answer(waiter, error)

    def knows(self, instance: str) -> bool:
        """Whether one of the processes beside the main one has this name."""
        return bool(instance) and any(seat.is_instance(instance) for seat in self._seats.values())

    @property
    def is_crowded(self) -> bool:
        """Whether a call waits for a process, and every one that it could have serves another."""
        waiting = [each for each in self._waiters if not each.need.instance]
        if self._main_is_held and any(each.terms is None for each in waiting):
            return True  # only the main one will do
        serving = all(seat.is_serving for seat in self._seats.values())
        full = len(self._seats) >= self._origin.settings.leases
        return serving and full and any(each.terms is not None for each in waiting)

    def shown(self) -> list[dict[str, object]]:
        """The processes, for the operator."""
        return [
            {"pid": seat.worker.pid, "state": seat.state, "reserved": seat.reserved}
            for seat in self._seats.values()
            if seat.worker is not None
        ]

    @asynccontextmanager
    async def take(
        self, kind: Hashable, terms: Terms | None, need: Need, *, once: bool = False
    ) -> AsyncIterator[Worker]:
        """A process of a kind, alone, for as long as the block lasts.

        One that is started for it is opened on `terms`; without any there is only the main one. With `once` the process
        serves this call chain only.

        Raises:
            WorkerUnavailable: there will be none soon.
            StartFailed: the one that was started for this call did not get ready.
            WorkerGone: the one that is asked for is no more.
            Overloaded: too many wait already.
        """
        same = sum(each.need.party.tenant == need.party.tenant for each in self._waiters)
        if same >= MAX_WAITING:
            message = f"{same} calls wait for a process of this server"
            raise Overloaded(message, retry_after=COME_AGAIN_SECONDS)
        waiter = _Waiter(kind, terms, need, once)
        self._waiters.append(waiter)
        try:
            self.arrange()
            await waiter.answered.wait()
            if waiter.worker is None:
                raise waiter.refusal
            yield waiter.worker
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif waiter.seat is not None:
                waiter.seat.give_back()
            elif waiter.worker is not None and waiter.has_main:
                self._give_main_back(waiter.worker)

    @asynccontextmanager
    async def join(self, kind: Hashable, terms: Terms, need: Need) -> AsyncIterator[Worker | None]:
        """A process of a kind for a request that hears nothing, with others where that costs them nothing.

        None where there is none and none can be had at once: calls that need one to themselves come first.

        Raises:
            StartFailed, WorkerUnavailable, WorkerGone: as `take`.
        """
        host = next(
            (seat for seat in self._seats.values() if seat.takes_guests and _suits(seat, kind, need)), None
        )
        if host is not None:
            with host.visit() as worker:
                yield worker
        elif need.instance or self._can_be_had(kind):
            async with self.take(kind, terms, need) as worker:
                yield worker
        else:
            yield None

    def _can_be_had(self, kind: Hashable) -> bool:
        """Whether a process of a kind is free, or a place for one, and nobody waits."""
        if self._waiters:
            return False
        seats = self._seats.values()
        free = any(seat.is_free or (seat.state, seat.kind) == ("starting", kind) for seat in seats)
        return free or len(seats) < self._origin.settings.leases

    def arrange(self) -> None:
        """Seat those who can be seated, start and end what is to be; to be called whenever something changed."""
        self._admit_bound()
        turns = self._turns.order([each.need.party for each in self._waiters])
        waiters = [self._waiters[place] for place in turns]
        seats = [self._view_of_main(), *(seat.view() for seat in self._seats.values())]
        limit = self._origin.settings.leases if self._tasks is not None else 0
        plan = seating.arrange([self._wish(each) for each in waiters], seats, limit)
        for place in plan.gone:
            self._answer(waiters[place], WorkerGone())
        for place, name in plan.given.items():
            self._give(waiters[place], name)
        for name in plan.end:
            self._seats[name].end()
        for place in plan.start:
            self._begin_seat(waiters[place])
        if self.on_crowded is not None and self.is_crowded:
            self.on_crowded()

    def _admit_bound(self) -> None:
        """Let calls that only the main process can serve use it, where nobody can have it alone.

        It may still log for a call that was cancelled, so until that is answered they go without log messages.
        """
        main = self._main()
        if main is None or not main.unsettled or self._main_is_held:
            return
        for waiter in [each for each in self._waiters if each.need.instance == main.instance]:
            self._answer(waiter, main)

    def _view_of_main(self) -> seating.Seat:
        """The main process as one that calls may have alone; others use it meanwhile.

        One that may still log for a call that was cancelled is passed over.
        """
        worker = self._main()
        if worker is None or (worker.unsettled and not self._main_is_held):
            return seating.Seat(MAIN, ALONE, "ending", fixed=True)
        alone = self._origin.settings.scope == "session" or worker.facts.era == "modern"
        state: seating.SeatState = "busy" if self._main_is_held else "idle"
        return seating.Seat(MAIN, ALONE if alone else None, state, fixed=True)

    def _wish(self, waiter: "_Waiter") -> seating.Waiter:
        if not waiter.need.instance:
            return seating.Waiter(waiter.kind)
        main = self._main()
        if main is not None and main.instance == waiter.need.instance:
            return seating.Waiter(waiter.kind, MAIN)
        names = [seat.name for seat in self._seats.values() if seat.is_instance(waiter.need.instance)]
        return seating.Waiter(waiter.kind, names[0] if names else -1)

    def _give(self, waiter: "_Waiter", name: int) -> None:
        self._turns.served(waiter.need.party)
        if name == MAIN:
            self._main_is_held = waiter.has_main = True
            self._answer(waiter, self._main())
        else:
            waiter.seat = self._seats[name]
            self._answer(waiter, waiter.seat.take(once=waiter.once, logs=waiter.need.logs))

    def _answer(self, waiter: "_Waiter", answer: Worker | McpHostError | None) -> None:
        self._waiters.remove(waiter)
        if isinstance(answer, McpHostError):
            waiter.refusal = answer
        else:
            waiter.worker = answer
        waiter.answered.set()

    def _give_main_back(self, worker: Worker) -> None:
        if self._origin.settings.scope == "session" and worker.unsettled and self._tasks is not None:
            self._tasks.start_soon(self._settle_main, worker)
        else:
            self._main_is_held = False
            self.arrange()

    async def _settle_main(self, worker: Worker) -> None:
        """Wait a while for the answer to what was cancelled, then take it that there is none.

        Everybody who can be reached by what it says late has the same principal, and the process is their state.
        """
        with anyio.move_on_after(SETTLE_SECONDS):
            with suppress(CallFailure):
                await worker.wait_quiet()
        worker.settle()
        self._main_is_held = False
        self.arrange()

    def _begin_seat(self, waiter: "_Waiter") -> None:
        if waiter.terms is None or self._tasks is None:
            return  # only the main process will do
        wait = self._resume_at - anyio.current_time()
        if wait > PATIENCE_SECONDS:
            name = self._origin.identity.server
            why = f"processes of the server {name!r} ended; another is started in {wait:.1f} s"
            self._answer(waiter, WorkerUnavailable(why))
            return
        seat = Seat(next(self._names), waiter.kind, waiter.terms, self.arrange)
        self._seats[seat.name] = seat
        self._count(1)
        self._tasks.start_soon(self._occupy, seat, max(0.0, wait), name=f"lease of {self._origin.identity}")

    async def _occupy(self, seat: Seat, wait: float) -> None:
        try:
            end = await seat.run(self._origin, wait)
            if end is not None and not end.blameless:
                self._failed(end)
        except McpHostError as error:
            self._failed(End(str(error), failed=True, blameless=False))
            self._refuse_first(seat.kind, error)
        except Exception as error:  # noqa: BLE001 - the boundary of one process: its bug must not end the others
            logger().exception("lease_broke", **self._keys)
            self._refuse_first(seat.kind, StartFailed(f"internal error: {type(error).__name__}"))
        finally:
            del self._seats[seat.name]
            self._count(-1)
            self.arrange()

    def _refuse_first(self, kind: Hashable, error: McpHostError) -> None:
        """Tell the one whom the process was promised to."""
        waiter = next((each for each in self._waiters if each.kind == kind), None)
        if waiter is not None:
            self._answer(waiter, error)

    def _failed(self, end: End) -> None:
        """Count an end that nobody wanted. Too many close the way for a while, and not for good: calls cause them."""
        now = anyio.current_time()
        # Spreads starts; nothing secret depends on it.
        verdict = self._budget.ended(now=now, failed=end.failed, why=end.why, jitter=random())  # noqa: S311
        match verdict:
            case Again(wait):
                self._resume_at = now + wait
            case GiveUp(_):
                self._resume_at = now + self._origin.settings.restart.window
            case _:
                return
        logger().warning("lease_ended", **self._keys, why=end.why, restart_in=round(self._resume_at - now, 3))

    def _count(self, step: int) -> None:
        identity = self._origin.identity
        self._origin.around.metrics.leased_workers(identity.server, identity.tenant, step)

    @property
    def _keys(self) -> dict[str, object]:
        return {"server": self._origin.identity.server, "tenant": self._origin.identity.tenant}


def _suits(seat: Seat, kind: Hashable, need: Need) -> bool:
    return seat.is_instance(need.instance) if need.instance else seat.kind == kind


@dataclass(slots=True, eq=False)
class _Waiter:
    """A call that waits for a process, and what it got: a worker, with its seat unless it is the main one, or a refusal."""

    kind: Hashable
    terms: Terms | None
    need: Need
    once: bool
    answered: anyio.Event = field(default_factory=anyio.Event)
    worker: Worker | None = None
    seat: Seat | None = None
    has_main: bool = False
    refusal: McpHostError = field(default_factory=lambda: WorkerUnavailable("the server ended"))
