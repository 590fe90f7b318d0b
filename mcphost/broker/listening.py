"""Modern clients that listen: one stream each, fed by the hubs of the servers behind its endpoint.

2026-07-28, basic/patterns/subscriptions. What a stream is told of is settled by its acknowledgement: what was asked
for, may be seen by the tenant, and is served. It lasts until the client closes it, or `Client.ending` is set, or no
server of its endpoint is left; in the latter two cases it ends with a result. A stream whose client reads too slowly
is cut off by the transport, for there is no replay.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

import anyio
from msgspec import Raw

from mcphost.broker.call import Target
from mcphost.broker.endpoints import servers_of, shown_lists, together
from mcphost.broker.faces import HANDSHAKE_SLACK_SECONDS
from mcphost.broker.patience import Patience
from mcphost.broker.request import Around, Request
from mcphost.broker.stream import Stream
from mcphost.broker.targets import Targets
from mcphost.broker.tasks import Tasks, check_declared
from mcphost.decisions.identity import Principal
from mcphost.errors import McpHostError, Overloaded, WorkerUnavailable
from mcphost.protocol import listening
from mcphost.protocol.listening import Interest

# Each holds a connection, and a backlog while its client does not read. A client needs one or a few.
MAX_STREAMS_PER_PRINCIPAL: Final = 100

# Where names say no server each resource may have to be looked for; what is not found by then is not acknowledged.
TARGETS_SECONDS: Final = 10.0

_BUSY_SECONDS: Final = 10.0


class Listening:
    """Answers `subscriptions/listen`."""

    def __init__(self, around: Around, targets: Targets, tasks: Tasks, patience: Patience) -> None:
        self._around = around
        self._targets = targets
        self._tasks = tasks
        self._patience = patience
        self._streams: Counter[Principal] = Counter()

    def __repr__(self) -> str:
        return f"<Listening {self._streams.total()} streams>"

    async def answer(self, request: Request) -> Raw:
        """Tell the client what it asked for; returns when the stream is to end, with the result that ends it.

        Raises:
            DownstreamProtocolError: the filter is none.
            Overloaded: the principal has as many streams as it may, or the servers as many subscriptions.
            WorkerUnavailable: there is no worker of the endpoint's only server.
        """
        wanted = listening.read_filter(request.inbound.params)
        if wanted.tasks:
            check_declared(request)
        with self._place(request.caller.principal):
            stream = Stream(request)
            try:
                acknowledged = await self._open(stream, request, wanted)
                request.client.notify(listening.acknowledgement(request.inbound.id, acknowledged))
                async with stream.telling(acknowledged):
                    await request.client.ending.wait()
                return listening.completion(request.inbound.id, self._around.info)
            finally:
                stream.close()

    @contextmanager
    def _place(self, principal: Principal) -> Iterator[None]:
        if self._streams[principal] >= MAX_STREAMS_PER_PRINCIPAL:
            message = f"{MAX_STREAMS_PER_PRINCIPAL} streams listen with this token, the most that may"
            raise Overloaded(message, retry_after=_BUSY_SECONDS)
        self._streams[principal] += 1
        try:
            yield
        finally:
            self._streams[principal] -= 1
            if not self._streams[principal]:
                del self._streams[principal]

    async def _open(self, stream: Stream, request: Request, wanted: Interest) -> Interest:
        """Subscribe at the servers, and wait until each was asked. Gives what is served, under the endpoint's names."""
        pool, single = self._around.pool, request.caller.server
        parts = await self._split(stream, request, wanted)
        for server, interest in parts.items():
            try:
                hub = pool.find(server, request.owner).hub
            except Overloaded:
                if single is not None:
                    raise
                continue
            if not hub.closed:
                deliver = partial(stream.deliver, server)
                stream.add(server, hub.subscribe(interest, deliver, party=request.tenant.name))

        if single in parts:
            await self._wait_for_one(stream, request, single)
        else:
            await together(partial(self._wait_for_part, stream, request), stream.servers)
        return stream.served()

    async def _wait_for_one(self, stream: Stream, request: Request, server: str) -> None:
        workers = self._around.pool.find(server, request.owner)
        with anyio.move_on_after(workers.settings.timeouts.start + HANDSHAKE_SLACK_SECONDS):
            await workers.ready()
            await stream.settled(server)
            return
        raise WorkerUnavailable(f"the server {server!r} did not get ready in time")

    async def _wait_for_part(self, stream: Stream, request: Request, server: str) -> None:
        """One that is down is left out, and told of when it comes."""
        workers = self._around.pool.find(server, request.owner)
        with anyio.move_on_after(self._patience.seconds(workers)), suppress(WorkerUnavailable):
            await workers.ready()
            self._patience.answered(workers)
            await stream.settled(server)
            return
        self._patience.missed(workers)

    async def _split(self, stream: Stream, request: Request, wanted: Interest) -> dict[str, Interest]:
        """What is wanted of each server. What the tenant may not see, or the route does not show, is wanted of none."""
        kinds = shown_lists(request, wanted.kinds)
        uris: dict[str, set[str]] = {server: set() for server in servers_of(self._around.pool, request)}
        with anyio.move_on_after(TARGETS_SECONDS):
            for uri in sorted(wanted.uris) if shown_lists(request, ["resources"]) else ():
                target = await self._target(request, uri)
                if target is not None:
                    uris[target.server].add(target.name)
                    stream.spelled[target.server, target.name] = uri
        tasks = self._watched(stream, request, wanted)
        interests = {
            server: listening.of_kinds(kinds, frozenset(own), frozenset(tasks.get(server, ())))
            for server, own in uris.items()
        }
        return {server: interest for server, interest in interests.items() if interest}

    async def _target(self, request: Request, uri: str) -> Target | None:
        """The resource of a URI; None if there is none for this tenant, or the server that could tell is down."""
        try:
            target = await self._targets.find(request, "uri", uri, "resources/list")
        except McpHostError:
            return None
        return target if request.permissions.allows(target.server, target.name) else None

    def _watched(self, stream: Stream, request: Request, wanted: Interest) -> dict[str, set[str]]:
        """The tasks to watch at each server. One in a process beside the main one has to be asked about."""
        tasks: dict[str, set[str]] = {}
        for identifier in wanted.tasks:
            place = self._tasks.find(request, identifier)
            worker = place and self._around.pool.find(place.server, request.owner).worker
            if place and worker and worker.instance == place.instance:
                tasks.setdefault(place.server, set()).add(place.task)
                stream.tasks[place.server, place.task] = identifier
        return tasks
