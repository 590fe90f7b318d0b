"""What servers listed last: the names, kept per worker set, for requests that a name alone does not route.

A listing belongs to the process that gave it. Of a process that is gone it still tells which names the server had,
and that is all that may be read from it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import anyio

from mcphost.broker.patience import Patience
from mcphost.errors import CallTimeout
from mcphost.protocol import catalog, jsonrpc
from mcphost.protocol.methods import LISTS
from mcphost.workers.owners import Need
from mcphost.workers.supervisor import WorkerSet
from mcphost.workers.worker import Worker


@dataclass(frozen=True, slots=True)
class Listing:
    """The names in one list of one process, in its order."""

    instance: str
    names: tuple[str, ...]


@dataclass(slots=True, eq=False)
class _Known:
    listing: Listing | None = None
    fetching: anyio.Lock = field(default_factory=anyio.Lock)


class Listings:
    """The last listing of each worker set and method. Bounded by the worker sets there are and what one may list."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._known: WeakKeyDictionary[WorkerSet, dict[str, _Known]] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<Listings of {len(self._known)} worker sets>"

    async def gather(self, workers: WorkerSet, method: str) -> catalog.Gathered:
        """A list of a server, all pages, read now, within what `Patience` grants.

        Raises:
            McpHostError: the server is down, did not answer in time, or answered what is no list.
        """
        gathered, _ = await self._read(workers, method)
        return gathered

    async def current(self, workers: WorkerSet, method: str, suffices: Callable[[Listing], bool]) -> Listing:
        """The listing of the process that runs now; read again where what is known does not suffice.

        Raises:
            McpHostError: as `gather`.
        """
        known = self._of(workers, method)
        async with known.fetching:  # who waited here finds what the one before has read
            listing, running = known.listing, workers.worker
            fresh = listing is not None and running is not None and listing.instance == running.instance
            if listing is not None and fresh and suffices(listing):
                return listing
            _, listing = await self._read(workers, method)
            return listing

    def last(self, workers: WorkerSet, method: str) -> Listing | None:
        """What was listed last, perhaps by a process that is gone."""
        return self._of(workers, method).listing

    async def _read(self, workers: WorkerSet, method: str) -> tuple[catalog.Gathered, Listing]:
        seconds = min(workers.settings.timeouts.call, self._patience.seconds(workers))
        try:
            with anyio.fail_after(seconds):
                async with workers.lease(Need()) as worker:
                    gathered, instance = await _gathered(worker, method), worker.instance
        except TimeoutError:
            self._patience.missed(workers)
            raise CallTimeout(seconds) from None
        self._patience.answered(workers)
        names = (jsonrpc.text(item.get(LISTS[method].key)) for item in gathered.items)
        listing = Listing(instance, tuple(name for name in names if name is not None))
        self._of(workers, method).listing = listing
        return gathered, listing

    def _of(self, workers: WorkerSet, method: str) -> _Known:
        return self._known.setdefault(workers, {}).setdefault(method, _Known())


async def _gathered(worker: Worker, method: str) -> catalog.Gathered:
    if LISTS[method].feature not in worker.facts.capabilities:
        return catalog.Gathered(LISTS[method])
    return await worker.list_all(method)
