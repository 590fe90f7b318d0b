"""What was heard of one server and is not told yet: each thing once, told at once and then at most every 100 ms."""

from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import anyio.lowlevel

from mcphost.protocol.listening import Heard

COALESCE_SECONDS: Final = 0.1  # what changes in bursts is told once; short enough for a person who waits

MAX_NEWS: Final = 4096  # different things; a server that tells of more at once tells of everything
MAX_NEWS_BYTES: Final = 1024 * 1024  # they are small, but a task's news may bring its result along


class News:
    """Holds what was heard, by what it tells of. Past its bounds it holds nothing but that much has changed."""

    def __init__(self, tell: Callable[[Heard], None], tell_everything: Callable[[], Awaitable[None]]) -> None:
        """`tell` is given each thing heard; `tell_everything` is called where more was heard than is held.

        Between two things others have their turn: many may listen, and a server chooses how much it tells them.
        """
        self._tell = tell
        self._tell_everything = tell_everything
        self._held: dict[tuple[str, str], Heard] = {}
        self._bytes = 0
        self._too_much = False
        self._rung = anyio.Event()

    def __repr__(self) -> str:
        return f"<News {len(self._held)} held>"

    def add(self, heard: Heard) -> bool:
        """Hold it until it is told, in place of an earlier one that told of the same. False if it was too much."""
        self._held[heard.key] = heard
        self._bytes += sum(memoryview(value).nbytes for value in heard.params.values())
        self._rung.set()
        if len(self._held) <= MAX_NEWS and self._bytes <= MAX_NEWS_BYTES:
            return True
        self._too_much = True
        self._forget()
        return False

    async def tell(self) -> None:
        """Tell what is heard, until cancelled."""
        while True:
            await self._rung.wait()
            self._rung = anyio.Event()
            held, too_much = list(self._held.values()), self._too_much
            self._too_much = False
            self._forget()
            if too_much:
                await self._tell_everything()
            for heard in held:
                self._tell(heard)
                await anyio.lowlevel.checkpoint()
            await anyio.sleep(COALESCE_SECONDS)

    def _forget(self) -> None:
        self._held.clear()
        self._bytes = 0
