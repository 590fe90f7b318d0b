"""What servers listed last, kept per worker set: their names, and which of a tool's arguments headers mirror.

A legacy server may list other things to clients that it can ask, so there is one for each form of those. A listing
belongs to the process that gave it, and is read again after the server has said that it changed. Of a process that is
gone it still tells which names the server had, and that is all that may be read from it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

import anyio

from mcphost.broker.patience import Patience
from mcphost.broker.request import Request
from mcphost.broker.roundtrip import capabilities_of
from mcphost.decisions.turns import Party
from mcphost.errors import CallTimeout, Overloaded
from mcphost.protocol import catalog, jsonrpc, paramheaders
from mcphost.protocol.asking import Declared
from mcphost.protocol.jsonrpc import Fields
from mcphost.protocol.listening import ListKind
from mcphost.protocol.methods import LISTS
from mcphost.protocol.paramheaders import InvalidAnnotation, Mirrored
from mcphost.workers.owners import ANYBODY, Need
from mcphost.workers.pool import Pool
from mcphost.workers.supervisor import WorkerSet
from mcphost.workers.worker import Worker

# A listing younger than this is not read again for what it does not hold: clients choose the names that are asked for.
RELIST_SECONDS: Final = 1.0

# Of one worker set: four lists, for clients of some kinds. There are more kinds than anybody has, and a hostile server
# could make each listing as large as a list may be.
MAX_LISTINGS: Final = 24


@dataclass(frozen=True, slots=True)
class Listing:
    """The names in one list of one process, in its order, and what headers mirror of the tools among them."""

    instance: str
    names: tuple[str, ...]
    mirrored: Mapping[str, tuple[Mirrored, ...]]
    changes: int
    read_at: float


@dataclass(slots=True, eq=False)
class _Known:
    """One list of one worker set. `changes` counts how often it was said to have changed."""

    listing: Listing | None = None
    changes: int = 0
    fetching: anyio.Lock = field(default_factory=anyio.Lock)


_Lists = dict[tuple[str, Declared], _Known]


class Listings:
    """The last listing of each worker set, method and kind of client.

    Bounded by the worker sets there are, and what one may list.
    """

    def __init__(self, pool: Pool, patience: Patience) -> None:
        self._pool = pool
        self._patience = patience
        self._known: WeakKeyDictionary[WorkerSet, _Lists] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<Listings of {len(self._known)} worker sets>"

    async def gather(self, request: Request, server: str, method: str) -> catalog.Gathered:
        """A list of a server, all pages, read now, within what `Patience` grants.

        Raises:
            McpHostError: the server is down, did not answer in time, or answered what is no list.
        """
        gathered, _ = await self._read(request, server, method)
        return gathered

    async def current(
        self,
        request: Request,
        server: str,
        method: str,
        suffices: Callable[[Listing], bool],
        *,
        seconds: float | None = None,
    ) -> Listing:
        """The listing of the process that runs now; read again where what is known does not suffice.

        Who waits for this server alone gives the seconds that it has; otherwise `Patience` does.

        Raises:
            McpHostError: as `gather`.
        """
        workers = self._pool.find(server, request.owner)
        known = self._of(workers, request, method)
        if (listing := _fresh(known, workers)) is not None and suffices(listing):
            return listing
        limit = self._limit(workers) if seconds is None else seconds
        try:
            # Waiting for those who read before counts, too: each of them may wait as long.
            with anyio.fail_after(limit):
                async with known.fetching:  # who waited here finds what the one before has read
                    listing = _fresh(known, workers)
                    if listing is not None and (suffices(listing) or _is_young(listing)):
                        return listing
                    # In nobody's line: tenants wait here for each other, so it must not wait behind one's calls.
                    _, listing = await self._read(request, server, method, limit, party=ANYBODY)
                    return listing
        except TimeoutError:
            self._patience.missed(workers)
            raise CallTimeout(limit) from None

    def _limit(self, workers: WorkerSet) -> float:
        return min(workers.settings.timeouts.call, self._patience.seconds(workers))

    def last(self, request: Request, server: str, method: str) -> Listing | None:
        """What was listed last, perhaps by a process that is gone."""
        try:
            workers = self._pool.find(server, request.owner)
        except Overloaded:
            return None
        return self._of(workers, request, method).listing

    async def _read(
        self,
        request: Request,
        server: str,
        method: str,
        seconds: float | None = None,
        *,
        party: Party | None = None,
    ) -> tuple[catalog.Gathered, Listing]:
        workers = self._pool.find(server, request.owner)
        known = self._of(workers, request, method)
        changes = known.changes
        if seconds is None:
            seconds = self._limit(workers)
        need = Need(request.client.declared, party=party or request.tenant.party)
        try:
            with anyio.fail_after(seconds):
                async with workers.share(need) as worker:
                    gathered, instance = await _gathered(request, worker, method), worker.instance
        except TimeoutError:
            self._patience.missed(workers)
            raise CallTimeout(seconds) from None
        self._patience.answered(workers)
        names = (jsonrpc.text(item.get(LISTS[method].key)) for item in gathered.items)
        known.listing = Listing(
            instance,
            tuple(name for name in names if name is not None),
            dict(filter(None, map(_mirrored, gathered.items))) if method == "tools/list" else {},
            changes,
            anyio.current_time(),
        )
        return gathered, known.listing

    def _of(self, workers: WorkerSet, request: Request, method: str) -> _Known:
        lists = self._known.get(workers)
        if lists is None:
            lists = self._known[workers] = {}
            workers.hub.watch_lists(_counter(lists))
        key = (method, request.client.declared)
        lists[key] = lists.pop(key) if key in lists else _Known()
        if len(lists) > MAX_LISTINGS:
            del lists[next(iter(lists))]  # the one that nobody looked at for longest
        return lists[key]


async def _gathered(request: Request, worker: Worker, method: str) -> catalog.Gathered:
    if LISTS[method].feature not in worker.facts.capabilities:
        return catalog.Gathered(LISTS[method])
    return await worker.list_all(method, capabilities=capabilities_of(request.client))


def _fresh(known: _Known, workers: WorkerSet) -> Listing | None:
    """The listing, if the process that gave it still runs and has not said since that it changed."""
    listing, main = known.listing, workers.worker
    if listing is None or listing.changes != known.changes:
        return None
    runs = workers.leases.knows(listing.instance) or (main is not None and listing.instance == main.instance)
    return listing if runs else None


def _is_young(listing: Listing) -> bool:
    return anyio.current_time() - listing.read_at < RELIST_SECONDS


def _mirrored(tool: Fields) -> tuple[str, tuple[Mirrored, ...]] | None:
    """A tool with the arguments that headers mirror; None for one without, or that is no tool over HTTP."""
    name = jsonrpc.text(tool.get("name"))
    try:
        found = paramheaders.mirrored(tool.get("inputSchema"))
    except InvalidAnnotation:
        return None
    return (name, found) if name is not None and found else None


def _counter(lists: _Lists) -> Callable[[ListKind], None]:
    """Counts a change of the lists of a kind. It knows no worker set, which it must not outlive."""

    def count(kind: ListKind) -> None:
        for (method, _), known in lists.items():
            if LISTS[method].feature == kind:
                known.changes += 1

    return count
