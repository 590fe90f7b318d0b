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
from mcphost.broker.endpoints import names_of, servers_of, shown_lists, together
from mcphost.broker.faces import HANDSHAKE_SLACK_SECONDS
from mcphost.broker.patience import Patience
from mcphost.broker.request import Around, Request, Tenant
from mcphost.broker.targets import Targets
from mcphost.broker.tasks import Tasks, check_declared
from mcphost.decisions.identity import Principal
from mcphost.errors import McpHostError, Overloaded, UpstreamProtocolError, WorkerUnavailable
from mcphost.protocol import jsonrpc, listening
from mcphost.protocol.jsonrpc import Fields
from mcphost.protocol.listening import NO_INTEREST, Heard, Interest
from mcphost.protocol.naming import Names
from mcphost.protocol.tasks import shown_members
from mcphost.workers.subscription import Subscription

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
            stream = _Stream(request)
            try:
                acknowledged = await self._open(stream, request, wanted)
                request.client.notify(listening.acknowledgement(request.inbound.id, acknowledged))
                stream.begin(acknowledged)
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

    async def _open(self, stream: "_Stream", request: Request, wanted: Interest) -> Interest:
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

    async def _wait_for_one(self, stream: "_Stream", request: Request, server: str) -> None:
        workers = self._around.pool.find(server, request.owner)
        with anyio.move_on_after(workers.settings.timeouts.start + HANDSHAKE_SLACK_SECONDS):
            await workers.ready()
            await stream.settled(server)
            return
        raise WorkerUnavailable(f"the server {server!r} did not get ready in time")

    async def _wait_for_part(self, stream: "_Stream", request: Request, server: str) -> None:
        """One that is down is left out, and told of when it comes."""
        workers = self._around.pool.find(server, request.owner)
        with anyio.move_on_after(self._patience.seconds(workers)), suppress(WorkerUnavailable):
            await workers.ready()
            self._patience.answered(workers)
            await stream.settled(server)
            return
        self._patience.missed(workers)

    async def _split(self, stream: "_Stream", request: Request, wanted: Interest) -> dict[str, Interest]:
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
        return target if request.tenant.permissions.allows(target.server, target.name) else None

    def _watched(self, stream: "_Stream", request: Request, wanted: Interest) -> dict[str, set[str]]:
        """The tasks to watch at each server. One in a process beside the main one has to be asked about."""
        tasks: dict[str, set[str]] = {}
        for identifier in wanted.tasks:
            place = self._tasks.find(request, identifier)
            worker = place and self._around.pool.find(place.server, request.owner).worker
            if place and worker and worker.instance == place.instance:
                tasks.setdefault(place.server, set()).add(place.task)
                stream.tasks[place.server, place.task] = identifier
        return tasks


class _Stream:
    """One client's stream: what it listens to, and under which names."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._names = names_of(request)
        self._parts: dict[str, Subscription] = {}
        self._settled: set[str] = set()
        # By server and its own URI, as the client wrote a resource; by server and its own id, the client's id of a task.
        self.spelled: dict[tuple[str, str], str] = {}
        self.tasks: dict[tuple[str, str], str] = {}
        self._kinds: Interest | None = None  # once acknowledged

    def add(self, server: str, subscription: Subscription) -> None:
        """Listen to a server, too."""
        self._parts[server] = subscription
        subscription.on_gone = partial(self._gone, server)

    @property
    def servers(self) -> list[str]:
        """Those that are listened to."""
        return list(self._parts)

    async def settled(self, server: str) -> None:
        """Wait until a server was asked."""
        if server in self._parts:
            await self._parts[server].settled()
            self._settled.add(server)

    def served(self) -> Interest:
        """What the servers grant, under the endpoint's names."""
        granted = {server: self._parts[server].granted for server in self._settled & self._parts.keys()}
        kinds = listening.union(granted.values()).kinds
        uris = {self.spelled[server, uri] for server, part in granted.items() for uri in part.uris}
        tasks = {self.tasks[server, task] for server, part in granted.items() for task in part.tasks}
        return listening.of_kinds(kinds, frozenset(uris), frozenset(tasks))

    def begin(self, acknowledged: Interest) -> None:
        """From now on the client is told, and only of what was acknowledged."""
        self._kinds = listening.of_kinds(acknowledged.kinds)
        for subscription in self._parts.values():
            granted = subscription.granted
            subscription.change(self._kinds | Interest(uris=granted.uris, tasks=granted.tasks))

    def deliver(self, server: str, heard: Heard) -> None:
        """Tell the client, unless it was not acknowledged yet or may not know."""
        params = self._told(server, heard)
        if self._kinds is not None and params is not None:
            self._request.client.notify(listening.tagged(heard.method, params, self._request.inbound.id))

    def _told(self, server: str, heard: Heard) -> Fields | None:
        if heard.task:
            return self._told_of_task(server, heard)
        if not heard.uris:
            return heard.params
        spelled = self.spelled.get((server, heard.uris[0]))
        return updated_params(self._request.tenant, self._names, server, heard, spelled)

    def _told_of_task(self, server: str, heard: Heard) -> Fields | None:
        identifier = self.tasks.get((server, heard.task))
        if identifier is None:
            return None
        try:
            return shown_members(heard.params, identifier, self._names, server)
        except UpstreamProtocolError:
            return None  # what the server says of it is none; who asks for the task is told so

    def close(self) -> None:
        """Listen no more."""
        parts, self._parts = self._parts, {}
        for subscription in parts.values():
            subscription.close()

    def _gone(self, server: str) -> None:
        """A server is there no more, and its part of the lists neither; the last one takes the stream with it."""
        self._parts.pop(server, None)
        if not self._parts:
            self._request.client.ending.set()
        for kind in sorted((self._kinds or NO_INTEREST).kinds):
            self.deliver(server, listening.list_changed(kind))


def updated_params(
    tenant: Tenant, names: Names, server: str, heard: Heard, spelled: str | None = None
) -> Fields | None:
    """What is told of an updated resource under an endpoint's names; None if the tenant may not see it.

    `spelled` is how the client wrote that name itself.
    """
    own = heard.uris[0]
    if not tenant.permissions.allows(server, own):
        return None
    if names.bare:
        return heard.params
    return {**heard.params, "uri": jsonrpc.raw(spelled or names.expose(server, "uri", own))}
