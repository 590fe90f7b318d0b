"""How many calls one worker may have under way; the others wait for their turns, fairly among tenants."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import anyio

from mcphost.decisions.turns import COME_AGAIN_SECONDS, FairSlots, Ticket
from mcphost.errors import Overloaded
from mcphost.workers.owners import Need

MAX_WAITING: Final = (
    1024  # calls of one tenant that wait for a slot of one worker; past that they are refused
)


class Slots:
    """The places of one worker."""

    def __init__(self, limit: int, seconds: float) -> None:
        """Nobody waits for longer than `seconds`."""
        self._slots = FairSlots(limit, MAX_WAITING)
        self._seconds = seconds
        self._called: dict[Ticket, anyio.Event] = {}

    def __repr__(self) -> str:
        return f"<Slots {self._slots.free} free, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """Calls that wait for a place."""
        return self._slots.waiting

    @asynccontextmanager
    async def take(self, need: Need) -> AsyncIterator[None]:
        """A place for as long as the block lasts, when it is the turn of the need's party.

        Raises:
            Overloaded: too many wait already, or this one has waited too long.
        """
        ticket = self._slots.join(need.party)
        try:
            if not ticket.served:
                await self._wait(ticket, need)
            yield
        finally:
            following = self._slots.leave(ticket)
            if following is not None:
                self._called.pop(following).set()

    async def _wait(self, ticket: Ticket, need: Need) -> None:
        called = self._called[ticket] = anyio.Event()
        try:
            with need.queueing(), anyio.move_on_after(self._seconds):
                await called.wait()
        finally:
            self._called.pop(ticket, None)
        if not ticket.served:
            message = f"the server was busy for {self._seconds:g} s; the call was not delivered"
            raise Overloaded(message, retry_after=COME_AGAIN_SECONDS)


class Presence:
    """Who uses something that is kept only as long as somebody does."""

    def __init__(self) -> None:
        self._users = 0
        self._changed = anyio.Event()

    def __repr__(self) -> str:
        return f"<Presence {self._users} users>"

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Be one of the users for as long as the block lasts."""
        self._users += 1
        self._changed.set()
        try:
            yield
        finally:
            self._users -= 1
            self._changed.set()

    async def wait_idle(self, seconds: float) -> None:
        """Wait until there was no user for so long."""
        while True:
            self._changed = anyio.Event()
            if self._users:
                await self._changed.wait()
                continue
            with anyio.move_on_after(seconds):
                await self._changed.wait()
                continue
            return
