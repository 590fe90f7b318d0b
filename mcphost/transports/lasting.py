"""When a stream that has no end of its own is over: with the token that opened it, or when the runtime drains."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio


@dataclass(frozen=True, slots=True)
class Lasting:
    """`seconds` until the client's token expires (None for never), and the event that the runtime drains."""

    seconds: float | None
    draining: anyio.Event

    @asynccontextmanager
    async def until_over(self, end: Callable[[], None]) -> AsyncIterator[None]:
        """Call `end` when a stream must be over, if it is still inside the block then."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._wait, end)
            yield
            tasks.cancel_scope.cancel()

    async def _wait(self, end: Callable[[], None]) -> None:
        with anyio.move_on_after(self.seconds):
            await self.draining.wait()
        end()
