"""Starting processes: what all worker sets of a runtime share, and whose turn it is."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio
from msgspec import Raw

from mcphost.telemetry.metrics import Metrics
from mcphost.workers.lifetime import background_tasks
from mcphost.workers.process import Launcher
from mcphost.workers.spares import SpareLane

# A call that finds its server in back-off waits along if the wait is this short, else it is told to come again.
PATIENCE_SECONDS: Final = 2.0

TURN_SECONDS: Final = 2.0  # an interpreter and its imports are loaded by then


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every worker set of a runtime shares."""

    launcher: Launcher
    metrics: Metrics
    client_info: Raw
    starts: anyio.Semaphore  # how many workers may be starting at once
    lane: SpareLane


@asynccontextmanager
async def turn(starts: anyio.Semaphore) -> AsyncIterator[None]:
    """A place among the starts under way, given back at the end or after `TURN_SECONDS`, whichever is first.

    The bound is there for the sake of the processors; a server that hangs uses none and must not keep others,
    perhaps of other tenants, from starting.
    """
    await starts.acquire()
    with ExitStack() as place:
        place.callback(starts.release)

        async def give_back() -> None:
            await anyio.sleep(TURN_SECONDS)
            place.close()

        async with background_tasks() as tasks:
            tasks.start_soon(give_back)
            yield
