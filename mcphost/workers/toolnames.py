"""Keeping up with the names of a worker's tools, which the operator's pages and the metrics show."""

from collections.abc import Callable
from typing import Final

import anyio

from mcphost.errors import McpHostError
from mcphost.protocol.listening import ListKind
from mcphost.telemetry.logs import logger, printable
from mcphost.workers.worker import Worker

REST_SECONDS: Final = 5.0  # between two looks: a server may say as often as it likes that its tools changed
LOOK_SECONDS: Final = 30.0


class ToolNames:
    """Looks at a worker's tools again when they changed. A worker that starts has been looked at already."""

    def __init__(self, worker: Callable[[], Worker | None]) -> None:
        """`worker` gives the one that there is."""
        self._worker = worker
        self._known: Worker | None = None
        self._stale = anyio.Event()

    def changed(self, kind: ListKind) -> None:
        """A list changed, or a worker is new and all its lists are."""
        worker = self._worker()
        if kind == "tools" and worker is not None:
            if worker is self._known:
                self._stale.set()
            self._known = worker

    async def follow(self) -> None:
        """Keep the names right, until cancelled."""
        while True:
            await self._stale.wait()
            self._stale = anyio.Event()
            if (worker := self._worker()) is not None:
                await _look(worker)
            await anyio.sleep(REST_SECONDS)


async def _look(worker: Worker) -> None:
    try:
        with anyio.move_on_after(LOOK_SECONDS):
            await worker.learn_tools()
    except McpHostError as error:
        names = {"server": worker.identity.server, "tenant": worker.identity.tenant}
        logger().warning("tools_not_listed", **names, why=printable(str(error)))
