"""How many calls one worker may have under way; the others wait in the order in which they came."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import anyio

from mcphost.errors import Overloaded

MAX_WAITING: Final = 1024  # calls that wait for a slot of one worker; past that they are refused


class Slots:
    """The places of one worker."""

    def __init__(self, limit: int) -> None:
        self._places = anyio.Semaphore(limit)
        self._waiting = 0

    def __repr__(self) -> str:
        return f"<Slots {self._places.value} free, {self._waiting} waiting>"

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """A place for as long as the block lasts.

        Raises:
            Overloaded: too many wait already.
        """
        if self._waiting >= MAX_WAITING:
            raise Overloaded(f"{self._waiting} calls wait for this server", retry_after=1.0)
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._places.release()


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
