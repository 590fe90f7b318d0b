"""Legacy clients that are told of changes: of lists unasked, of resources after `resources/subscribe`.

2025-11-25, server/tools, server/prompts and server/resources, "List Changed Notification" and "Subscriptions". What is
told goes to the session, not to a request. A session's watch begins with the session and ends with it.
"""

from functools import partial
from typing import Final

import anyio
from msgspec import Raw

from mcphost import errors
from mcphost.broker.call import Target
from mcphost.broker.client import LegacySession
from mcphost.broker.endpoints import check_offered, names_of, servers_of, shown_lists
from mcphost.broker.request import Around, Request
from mcphost.broker.stream import updated_params
from mcphost.broker.targets import Targets
from mcphost.decisions.permissions import Permissions
from mcphost.errors import CallTimeout, DownstreamProtocolError, Overloaded, WorkerUnavailable
from mcphost.protocol import jsonrpc, listening
from mcphost.protocol.bridge import RESOURCE_NOT_FOUND
from mcphost.protocol.listening import ALL_LISTS, Heard, Interest
from mcphost.protocol.methods import SUBSCRIBE, UNSUBSCRIBE
from mcphost.protocol.naming import Names
from mcphost.workers.subscription import Subscription

MAX_SUBSCRIBED: Final = listening.MAX_NAMED  # resources of one session, as many as a modern client may name

SETTLE_SECONDS: Final = (
    2.0  # asking takes a server moments; a handshake is not to wait for one that is slow in this
)

_FULL_SECONDS: Final = 60.0


class Watch:
    """What one session is told of: its subscriptions, by server, and the servers where it has none."""

    def __init__(self, servers: list[str]) -> None:
        self.parts: dict[str, Subscription] = {}
        self.missing = dict.fromkeys(servers)

    def __repr__(self) -> str:
        return f"<Watch of {', '.join(self.parts)}>"

    @property
    def subscribed(self) -> int:
        """How many resources."""
        return sum(len(part.interest.uris) for part in self.parts.values())

    def forget(self, server: str) -> None:
        """A server is there no more; perhaps it will be again."""
        self.parts.pop(server, None)
        self.missing[server] = None

    def close(self) -> None:
        """Be told no more."""
        for part in self.parts.values():
            part.close()
        self.parts.clear()
        self.missing.clear()


class Watching:
    """Begins and ends watches, and answers `resources/subscribe` and `resources/unsubscribe`."""

    def __init__(self, around: Around, targets: Targets) -> None:
        self._pool = around.pool
        self._targets = targets

    def begin(self, request: Request) -> None:
        """Have the session of a request told when lists change, of those servers too that were gone meanwhile.

        Does nothing where it is told already, or without a session.
        """
        session = request.client.session
        if session is None:
            return
        if session.watch is None:
            session.watch = Watch(servers_of(self._pool, request))
        if isinstance(session.watch, Watch):
            for server in list(session.watch.missing):
                self._part(session.watch, request, server)

    async def begin_with(self, request: Request) -> None:
        """The same for a session that begins: no change from now on is missed, and none from before is news.

        Servers that are not there are not waited for: all that they have is news when they come.
        """
        self.begin(request)
        watch = request.client.session.watch if request.client.session is not None else None
        if not isinstance(watch, Watch):
            return
        with anyio.move_on_after(SETTLE_SECONDS):
            async with anyio.create_task_group() as tasks:
                for server, part in watch.parts.items():
                    if self._pool.find(server, request.owner).hub.has_worker:
                        part.hold()
                        tasks.start_soon(part.settled)

    def end(self, session: LegacySession) -> None:
        """The session is over."""
        if isinstance(session.watch, Watch):
            session.watch.close()

    async def answer(self, request: Request) -> Raw:
        """Subscribe to a resource, or end that: an empty result once the server was told.

        Raises:
            DownstreamProtocolError: no such resource for this tenant, or its server offers no subscriptions.
            Overloaded: the session has as many subscriptions as it may.
            CallTimeout: the server was not asked in time.
        """
        uri = jsonrpc.text(request.inbound.params.get("uri"))
        if uri is None or len(uri) > listening.MAX_NAME_CHARACTERS:
            raise DownstreamProtocolError(errors.INVALID_PARAMS, "params.uri must be a string of some length")
        check_offered(request, "resources")
        target = await self._target(request, uri)
        server, own = request.record.server, request.record.name = target.server, target.name
        workers = self._pool.find(server, request.owner)
        seconds = workers.settings.timeouts.call
        try:
            with anyio.fail_after(seconds):
                worker = await workers.ready()
                if not listening.supported(Interest(uris=frozenset({own})), worker.facts.capabilities):
                    raise DownstreamProtocolError(
                        errors.METHOD_NOT_FOUND, "the server offers no subscriptions"
                    )
                part = self._subscription(request, server)
                if request.inbound.method == UNSUBSCRIBE:
                    await _unsubscribe(part, own)
                else:
                    await _subscribe(part, own, uri)
        except TimeoutError:
            raise CallTimeout(seconds) from None
        return jsonrpc.EMPTY_OBJECT

    async def _target(self, request: Request, uri: str) -> Target:
        try:
            target = await self._targets.find(request, "uri", uri, "resources/list")
        except DownstreamProtocolError:
            raise _no_such(uri) from None
        if not request.permissions.allows(target.server, target.name):
            raise _no_such(uri)
        return target

    def _subscription(self, request: Request, server: str) -> Subscription:
        """The session's part at a server, with room for one more resource if that is what the request wants."""
        self.begin(request)
        session = request.client.session
        watch = session.watch if session is not None else None
        if not isinstance(watch, Watch):
            raise DownstreamProtocolError(errors.METHOD_NOT_FOUND, "subscriptions need a session")
        if request.inbound.method == SUBSCRIBE and watch.subscribed >= MAX_SUBSCRIBED:
            message = f"the session has {MAX_SUBSCRIBED} subscriptions, the most it may have"
            raise Overloaded(message, retry_after=_FULL_SECONDS)
        if server not in watch.parts:
            raise WorkerUnavailable(f"the server {server!r} is gone")
        return watch.parts[server]

    def _part(self, watch: Watch, request: Request, server: str) -> None:
        """Have the session told by a server, if that is possible now."""
        try:
            hub = self._pool.find(server, request.owner).hub
            if hub.closed:
                return
            deliver = partial(
                _deliver, request.permissions, names_of(request), request.client.session, server
            )
            interest = listening.of_kinds(shown_lists(request, ALL_LISTS.kinds))
            part = hub.subscribe(interest, deliver, party=request.tenant.name, wakes=False)
        except Overloaded:
            return
        part.on_gone = partial(watch.forget, server)
        watch.parts[server] = part
        del watch.missing[server]


async def _subscribe(part: Subscription, own: str, uri: str) -> None:
    before = part.interest
    part.change(before | Interest(uris=frozenset({own})))
    try:
        granted = await part.settled()
    except BaseException:
        if own not in before.uris:
            _forget(part, own)
        raise
    if own not in granted.uris:
        _forget(part, own)
        raise _no_such(uri)


async def _unsubscribe(part: Subscription, own: str) -> None:
    _forget(part, own)
    await part.settled()


def _forget(part: Subscription, own: str) -> None:
    part.change(listening.of_kinds(part.interest.kinds, part.interest.uris - {own}))


def _deliver(
    permissions: Permissions, names: Names, session: LegacySession | None, server: str, heard: Heard
) -> None:
    params = updated_params(permissions, names, server, heard) if heard.uris else heard.params
    if session is not None and params is not None:
        session.send(listening.untagged(heard.method, params))


def _no_such(uri: str) -> DownstreamProtocolError:
    """The same whether it does not exist, is another tenant's, or the server refuses it."""
    return DownstreamProtocolError(RESOURCE_NOT_FOUND, "resource not found", data={"uri": uri})
