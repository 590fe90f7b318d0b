"""Starting processes: what all worker sets of a runtime share, and whose turn it is."""

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import anyio
from msgspec import Raw

from mcphost.errors import McpHostError
from mcphost.telemetry.logs import logger
from mcphost.telemetry.metrics import Metrics
from mcphost.workers.hearing import OnNotified
from mcphost.workers.lifetime import background_tasks
from mcphost.workers.owners import Terms
from mcphost.workers.process import Launcher
from mcphost.workers.reports import Identity
from mcphost.workers.settings import ServerSettings
from mcphost.workers.spares import SpareLane, Spares
from mcphost.workers.worker import Worker

# A call that finds its server in back-off waits along if the wait is this short, else it is told to come again.
PATIENCE_SECONDS: Final = 2.0

TURN_SECONDS: Final = 2.0  # an interpreter and its imports are loaded by then


class Acted(Protocol):
    """Records what was done, and with which facts."""

    def __call__(self, kind: str, **facts: object) -> None:
        """Keep it; does not wait."""


def unrecorded(kind: str, **facts: object) -> None:
    """Stands where no audit is kept."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every worker set of a runtime shares."""

    launcher: Launcher
    metrics: Metrics
    client_info: Raw
    starts: anyio.Semaphore  # how many workers may be starting at once
    lane: SpareLane
    acted: Acted = unrecorded


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


@dataclass(frozen=True, slots=True)
class Origin:
    """What every process of a worker set is started from, and who hears what it says to nobody's request."""

    identity: Identity
    settings: ServerSettings
    around: Surroundings
    spares: Spares
    overheard: OnNotified

    async def start(self, terms: Terms, own: Callable[[Worker], None]) -> Worker:
        """A ready worker, from a spare where there is one; counted, and logged.

        `own` is called with it as soon as it is there, before anything else can be waited for.

        Raises:
            StartFailed: with the reason.
        """
        labels = self.identity.server, self.identity.tenant
        started_at = anyio.current_time()
        async with turn(self.around.starts):
            spare = self.spares.claim()
            try:
                worker = await Worker.start(
                    self.identity,
                    self.settings,
                    self.around.launcher,
                    terms=terms,
                    metrics=self.around.metrics,
                    prepared=spare,
                )
            except McpHostError as error:
                self.around.metrics.worker_started(*labels, error.reason)
                raise
            worker.on_notified = self.overheard
            own(worker)
        self.around.metrics.worker_started(*labels, "ready")
        logger().info(
            "worker_ready",
            server=labels[0],
            tenant=labels[1],
            era=worker.facts.era,
            pid=worker.pid,
            seconds=round(anyio.current_time() - started_at, 3),
            spare=spare is not None,
        )
        return worker
