"""One modern client's stream of `subscriptions/listen`: what it listens to, under which names, and what it is told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from mcphost.broker.endpoints import names_of
from mcphost.broker.request import Request
from mcphost.decisions.permissions import Permissions
from mcphost.errors import UpstreamProtocolError
from mcphost.protocol import jsonrpc, listening
from mcphost.protocol.jsonrpc import Fields
from mcphost.protocol.listening import NO_INTEREST, Heard, Interest
from mcphost.protocol.naming import Names
from mcphost.protocol.tasks import shown_members
from mcphost.workers.lifetime import background_tasks
from mcphost.workers.news import News
from mcphost.workers.subscription import Subscription


class Stream:
    """Feeds one client. Whoever made it closes it."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._names = names_of(request)
        self._parts: dict[str, Subscription] = {}
        self._settled: set[str] = set()
        # By server and its own URI, as the client wrote a resource; by server and its own id, the client's id of a task.
        self.spelled: dict[tuple[str, str], str] = {}
        self.tasks: dict[tuple[str, str], str] = {}
        self._kinds: Interest | None = None  # once acknowledged
        self._news = News(self._tell, self._tell_of_lists)

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

    @asynccontextmanager
    async def telling(self, acknowledged: Interest) -> AsyncIterator[None]:
        """For as long as the block lasts the client is told, and only of what was acknowledged."""
        self._kinds = listening.of_kinds(acknowledged.kinds)
        for subscription in self._parts.values():
            granted = subscription.granted
            subscription.change(self._kinds | Interest(uris=granted.uris, tasks=granted.tasks))
        async with background_tasks() as tasks:
            tasks.start_soon(self._news.tell)
            yield

    def deliver(self, server: str, heard: Heard) -> None:
        """Tell the client, unless it was not acknowledged yet or may not know.

        Its endpoint has one list of each kind, so the changes of several servers' at about the same time are told once.
        """
        if self._kinds is None:
            return
        if heard.kind is not None and self._request.caller.server is None:
            self._news.add(listening.list_changed(heard.kind))
            return
        params = self._told(server, heard)
        if params is not None:
            self._tell(Heard(heard.method, params))

    def _tell(self, heard: Heard) -> None:
        self._request.client.notify(listening.tagged(heard.method, heard.params, self._request.inbound.id))

    def _told(self, server: str, heard: Heard) -> Fields | None:
        if heard.task:
            return self._told_of_task(server, heard)
        if not heard.uris:
            return heard.params
        spelled = self.spelled.get((server, heard.uris[0]))
        return updated_params(self._request.permissions, self._names, server, heard, spelled)

    def _told_of_task(self, server: str, heard: Heard) -> Fields | None:
        identifier = self.tasks.get((server, heard.task))
        if identifier is None:
            return None
        try:
            return shown_members(heard.params, identifier, self._names, server)
        except UpstreamProtocolError:
            return None  # what the server says of it is none; who asks for the task is told so

    async def _tell_of_lists(self) -> None:
        for kind in sorted((self._kinds or NO_INTEREST).kinds):
            self._tell(listening.list_changed(kind))

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
    permissions: Permissions, names: Names, server: str, heard: Heard, spelled: str | None = None
) -> Fields | None:
    """What is told of an updated resource under an endpoint's names; None if the client may not see it.

    `spelled` is how the client wrote that name itself.
    """
    own = heard.uris[0]
    if not permissions.allows(server, own):
        return None
    if names.bare:
        return heard.params
    return {**heard.params, "uri": jsonrpc.raw(spelled or names.expose(server, "uri", own))}
