"""Having one worker tell what it is to tell: one listen for everything, or one subscription for each resource.

Both are a `Wire`: it is given what is wanted, and says what is granted and which notifications are its own.
"""

from typing import Final, Protocol

import anyio
import anyio.abc
from msgspec import Raw

from mcphost.errors import METHOD_NOT_FOUND, McpHostError
from mcphost.protocol import jsonrpc, listening
from mcphost.protocol.events import ServerFacts
from mcphost.protocol.jsonrpc import Fields, Message
from mcphost.protocol.listening import NO_INTEREST, Interest
from mcphost.protocol.methods import LISTEN, SUBSCRIBE, UNSUBSCRIBE
from mcphost.workers.connection import Build
from mcphost.workers.hearing import Hearer, OnNotified

ACK_SECONDS: Final = 5.0  # an acknowledgement costs a server nothing; one that takes longer is not listening
SUBSCRIBE_SECONDS: Final = 10.0  # a server may look at the resource first
SUBSCRIBE_ALL_SECONDS: Final = 20.0  # for all that is new at once: others wait for their turn meanwhile
MAX_AT_ONCE: Final = 8  # subscriptions being made; a legacy server has to be asked for each by itself


class Peer(Protocol):
    """What is needed of a worker."""

    facts: ServerFacts
    on_notified: OnNotified | None

    async def request(self, method: str, build: Build, hearer: Hearer | None = None) -> Message:
        """Send one request and wait for its answer; raises `McpHostError` where there is none."""
        ...


class Wire(Protocol):
    """How one worker is asked to tell."""

    @property
    def granted(self) -> Interest:
        """What the worker tells from now on, as far as is known."""
        ...

    async def ask(self, wanted: Interest) -> bool:
        """Have the worker tell what is wanted and nothing more. False if it may be asked again later."""
        ...

    def carries(self, listen_id: int | None) -> bool:
        """Whether a notification with this listen id is one that was asked for and not a copy of another."""
        ...

    def acknowledged(self, params: Fields, listen_id: int | None) -> None:
        """The worker acknowledged a listen."""
        ...


def wire_to(
    worker: Peer, tasks: anyio.abc.TaskGroup, client_info: Raw, on_ended: "OnEnded", refused: set[str]
) -> Wire:
    """The wire to a worker of its era. `refused` holds what the server refused before, and is kept up to date."""
    if worker.facts.era == "modern":
        return ListenWire(worker, tasks, client_info, on_ended, refused)
    return SubscribeWire(worker)


class OnEnded(Protocol):
    """Is told that the worker ended by itself what it had granted."""

    def __call__(self) -> None:
        """Called from a task; may not block."""


class _Listen:
    """One `subscriptions/listen` of ours. `settled` once it was acknowledged or came to its end."""

    def __init__(self, asked: Interest) -> None:
        self.id: int | None = None
        self.asked = asked
        self.granted = NO_INTEREST
        self.refused = False
        self.settled = anyio.Event()
        self.scope = anyio.CancelScope()


class ListenWire:
    """One `subscriptions/listen` on a modern worker (2026-07-28, basic/patterns/subscriptions).

    A filter cannot be changed, so another listen takes its place: it is opened first, and the old one is cancelled
    once the new one was acknowledged. From the acknowledgement on only the new one counts, for a server that sends it
    sends on it; so nothing is lost in between and nothing comes twice.
    """

    def __init__(
        self,
        worker: Peer,
        tasks: anyio.abc.TaskGroup,
        client_info: Raw,
        on_ended: OnEnded,
        refused: set[str],
    ) -> None:
        """`refused` is who made it's: names that are left out, also with the next worker, as long as they are wanted."""
        self._worker = worker
        self._tasks = tasks
        self._client_info = client_info
        self._on_ended = on_ended
        self._refused = refused
        self._was_refused = False
        self._current: _Listen | None = None
        self._next: _Listen | None = None
        self._unknown = False  # the server has no such method, which it has told for all its life

    def __repr__(self) -> str:
        return f"<ListenWire {self._current.id if self._current else None}>"

    @property
    def granted(self) -> Interest:
        """See `Wire`."""
        return NO_INTEREST if self._current is None else self._current.granted

    async def ask(self, wanted: Interest) -> bool:
        """See `Wire`.

        A server refuses a listen as a whole. What is newly named in one that it refused is left out from then on, so
        that one client's name of nothing does not keep the others from being heard.
        """
        self._refused &= wanted.named
        listen = wanted.without(self._refused)
        known = NO_INTEREST if self._current is None else self._current.asked
        if await self._take(listen):
            return True
        if not self._was_refused or not listen.named - known.named:
            return False
        self._refused |= listen.named - known.named
        return await self._take(listen.without(self._refused))

    async def _take(self, wanted: Interest) -> bool:
        """Put one listen in the place of the other; False if the old one stays."""
        old = self._current
        if self._unknown or wanted == (NO_INTEREST if old is None else old.asked):
            return True
        if wanted:
            fresh = self._next = _Listen(wanted)
            self._tasks.start_soon(self._hold, fresh)
            with anyio.move_on_after(ACK_SECONDS):
                await fresh.settled.wait()
            self._next = None
            if self._current is not fresh:
                self._was_refused = fresh.refused
                fresh.scope.cancel()
                return self._unknown
        else:
            self._current = None
        if old is not None:
            old.scope.cancel()
        return True

    def carries(self, listen_id: int | None) -> bool:
        """See `Wire`."""
        return self._current is not None and listen_id == self._current.id

    def acknowledged(self, params: Fields, listen_id: int | None) -> None:
        """See `Wire`. Takes effect at once: the next line may be a notification on the new listen."""
        fresh = self._next
        if fresh is not None and listen_id == fresh.id:
            fresh.granted = listening.read_granted(params, fresh.asked)
            self._current = fresh
            fresh.settled.set()

    async def _hold(self, listen: _Listen) -> None:
        """The request, for as long as it lasts."""

        def build(identifier: int) -> Fields:
            listen.id = identifier
            return listening.request_params(listen.asked, self._client_info)

        with listen.scope:
            try:
                answer = await self._worker.request(LISTEN, build)
            except McpHostError:
                pass  # the worker is gone or does not read; whoever owns it sees to that
            else:
                self._ended(listen, answer)
            listen.settled.set()

    def _ended(self, listen: _Listen, answer: Message) -> None:
        """The server ended it; one that does not know it at all says so here."""
        listen.refused = answer.kind == "error"
        self._unknown = listen.refused and jsonrpc.error_object(answer.body).code == METHOD_NOT_FOUND
        if listen is self._current:
            self._current = None
            self._on_ended()


class SubscribeWire:
    """`resources/subscribe` for each URI on a legacy worker (2025-11-25, server/resources, "Subscriptions").

    Changed lists are told unasked in that era.
    """

    def __init__(self, worker: Peer) -> None:
        self._worker = worker
        self._kinds = NO_INTEREST
        self._subscribed: set[str] = set()
        self._refused: set[str] = set()

    def __repr__(self) -> str:
        return f"<SubscribeWire {len(self._subscribed)} subscribed>"

    @property
    def granted(self) -> Interest:
        """See `Wire`."""
        return self._kinds | Interest(uris=frozenset(self._subscribed))

    async def ask(self, wanted: Interest) -> bool:
        """See `Wire`. What the server refused is not asked for again until it was unwanted in between."""
        self._kinds = listening.of_kinds(wanted.kinds)
        self._refused &= wanted.uris
        missing = wanted.uris - self._subscribed - self._refused
        limiter = anyio.Semaphore(MAX_AT_ONCE)
        with anyio.move_on_after(SUBSCRIBE_ALL_SECONDS):
            async with anyio.create_task_group() as tasks:
                for uri in sorted(self._subscribed - wanted.uris):
                    tasks.start_soon(self._unsubscribe, uri, limiter)
                for uri in sorted(missing):
                    tasks.start_soon(self._subscribe, uri, limiter)
        return True

    def carries(self, listen_id: int | None) -> bool:
        """See `Wire`."""
        return listen_id is None

    def acknowledged(self, params: Fields, listen_id: int | None) -> None:
        """See `Wire`. There is no such thing in this era."""

    async def _subscribe(self, uri: str, limiter: anyio.Semaphore) -> None:
        # Before it is sent: an update may follow the answer at once.
        self._subscribed.add(uri)
        agreed = False
        try:
            async with limiter:
                agreed = await self._asked(SUBSCRIBE, uri)
        finally:
            if not agreed:
                self._subscribed.discard(uri)
                self._refused.add(uri)

    async def _unsubscribe(self, uri: str, limiter: anyio.Semaphore) -> None:
        self._subscribed.discard(uri)
        async with limiter:
            await self._asked(UNSUBSCRIBE, uri)

    async def _asked(self, method: str, uri: str) -> bool:
        """Whether the server answered with a result in time."""
        with anyio.move_on_after(SUBSCRIBE_SECONDS):
            try:
                answer = await self._worker.request(method, lambda _: {"uri": jsonrpc.raw(uri)})
            except McpHostError:
                return False  # the worker is gone or does not read; whoever owns it sees to that
            return answer.kind == "result"
        return False
