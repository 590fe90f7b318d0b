"""Who is told what one server says unasked: many listeners, one worker at a time, asked once for all of them.

    worker ──line──> heard ──> news, at most every 100 ms ──> those who are interested

Listeners come and go, and so do workers. Whenever either changes, `run` asks the worker that there is for the union
of all interests. After a gap (another worker, or a listen that the server ended) what changed meanwhile is unknown, so
everybody is told that everything they watch may have changed.
"""

from collections.abc import Callable, Mapping
from typing import Final

import anyio
import anyio.abc
import anyio.lowlevel
from msgspec import Raw

from mcphost.errors import Overloaded
from mcphost.protocol import listening
from mcphost.protocol.jsonrpc import Fields
from mcphost.protocol.listening import ALL_LISTS, NO_INTEREST, Heard, Interest, ListKind
from mcphost.telemetry.logs import logger
from mcphost.workers.lifetime import background_tasks
from mcphost.workers.listens import Peer, Wire, wire_to
from mcphost.workers.news import News
from mcphost.workers.subscription import Deliver, Subscription

# Over all listeners of one party: they go into one request, and into the server's memory. A server that serves several
# tenants has so many for each, so that none takes what is another's.
MAX_URIS: Final = 1024
STEADY_SECONDS: Final = 60.0  # what lasted so long ends for a new reason, and is tried again at once


class Hub:
    """The listeners of one worker set. `attach` and `detach` follow its worker; `run` does the asking."""

    def __init__(
        self, name: str, *, want: Callable[[], None], odd: Callable[[str], None], client_info: Raw
    ) -> None:
        """`want` has a worker started if there is none; `odd` counts a message that was passed over."""
        self._name = name
        self._want = want
        self._odd = odd
        self._client_info = client_info
        self._subscriptions: dict[Subscription, None] = {}  # in the order of their coming
        self._unsettled: dict[Subscription, None] = {}
        self._watchers: list[Callable[[ListKind], None]] = []
        self._stirred = anyio.Event()
        self._news = News(self._tell, self._tell_everything)
        self._wire: Wire | None = None
        self._worker: Peer | None = None
        self._refused: set[str] = set()  # names that a listen was refused for; bounded by what is wanted
        self._gap = True
        self._failures = 0
        self._since = 0.0
        self._not_before = 0.0
        self._tasks: anyio.abc.TaskGroup | None = None
        self.closed = False

    def __repr__(self) -> str:
        return f"<Hub of {self._name}, {len(self._subscriptions)} listeners>"

    @property
    def is_wanted(self) -> bool:
        """Whether a listener needs a worker to be there."""
        return any(each.wakes or each.interest.uris for each in self._subscriptions)

    @property
    def has_worker(self) -> bool:
        """Whether there is a worker to ask."""
        return self._worker is not None

    # --- listeners ------------------------------------------------------------------------------------

    def subscribe(
        self, interest: Interest, deliver: Deliver, *, party: str = "", wakes: bool = True
    ) -> Subscription:
        """Begin to listen. `deliver` is called on the loop and may neither block nor raise.

        A listener that `wakes` has a worker started that is not there; one that does not hears of those that others
        want. `party` is whose bound on resources it counts against. One to a closed hub never hears anything.

        Raises:
            Overloaded: the party has as many resources as it may.
        """
        self._admit(interest, party)
        if self._wire is None:
            interest = interest.of_no_tasks()
        subscription = Subscription(self, interest, deliver, party=party, wakes=wakes)
        if not self.closed:
            self._subscriptions[subscription] = self._unsettled[subscription] = None
            self._stirred.set()
        return subscription

    def change(self, subscription: Subscription, interest: Interest) -> None:
        """See `Subscription.change`."""
        # Whoever asks may not know yet that the process of its tasks is gone, and with it they from its interest.
        interest = listening.of_kinds(
            interest.kinds, interest.uris, interest.tasks & subscription.interest.tasks
        )
        if subscription in self._subscriptions and interest != subscription.interest:
            self._admit(interest, subscription.party)
            subscription.interest = interest
            subscription.unsettle()
            self._unsettled[subscription] = None
            self._stirred.set()

    def drop(self, subscription: Subscription) -> None:
        """See `Subscription.close`."""
        self._unsettled.pop(subscription, None)
        if self._subscriptions.pop(subscription, subscription) is None:
            self._stirred.set()

    def watch_lists(self, changed: Callable[[ListKind], None]) -> None:
        """Have `changed` called whenever a list of this server's may be another than before, for ever."""
        self._watchers.append(changed)

    def _admit(self, interest: Interest, party: str) -> None:
        if not interest.uris:
            return
        others = (each.interest for each in self._subscriptions if each.party == party)
        if len(listening.union([interest, *others]).uris) > MAX_URIS:
            message = f"{MAX_URIS} resources of this server are subscribed to, the most that may be"
            raise Overloaded(message, retry_after=60.0)

    def _union(self) -> Interest:
        """What is to be asked of the server: of its lists always everything, for they are read here as well."""
        return listening.union(
            [ALL_LISTS, *(each.interest for each in self._subscriptions if each.interest.named)]
        )

    # --- workers --------------------------------------------------------------------------------------

    def attach(self, worker: Peer) -> None:
        """A worker is ready. What it said before this is made up for: all that it has may have changed."""
        if self._tasks is None or self.closed:
            return
        self._worker = worker
        self._wire = wire_to(worker, self._tasks, self._client_info, self._listen_ended, self._refused)
        self._gap = True
        self._since, self._not_before = anyio.current_time(), 0.0
        worker.on_notified = self._notified
        self._stirred.set()

    def detach(self) -> None:
        """The worker is lost, and the tasks in it; those of the next may have the same ids. Idempotent."""
        if self._wire is not None:
            self._worker = self._wire = None
            for each in self._subscriptions:
                each.interest = each.interest.of_no_tasks()
            self._rest()

    def close(self) -> None:
        """There will be no worker any more: every listener is told that its server is gone. Idempotent."""
        self.closed = True
        self._worker = self._wire = None
        gone, self._subscriptions = list(self._subscriptions), {}
        self._unsettled.clear()
        for each in gone:
            if each.on_gone is not None:
                each.on_gone()

    async def run(self) -> None:
        """Keep the worker asked for what its listeners want, until cancelled."""
        async with background_tasks() as tasks:
            self._tasks = tasks
            try:
                tasks.start_soon(self._news.tell)
                while True:
                    await self._stirred.wait()
                    self._stirred = anyio.Event()
                    await self._tend_guarded()
            finally:
                self._tasks = None

    async def _tend_guarded(self) -> None:
        try:
            await self._tend()
        except Exception:  # noqa: BLE001 - the boundary of one hub: its bug must not end the workers
            logger().exception("hub_broke", hub=self._name)
            self._rest()

    async def _tend(self) -> None:
        if anyio.current_time() < self._not_before:
            if self._wire is not None:
                for each in list(self._unsettled):
                    self._settle(each, self._wire)  # it stays as it is for now
            return
        wire, worker = self._wire, self._worker
        if wire is None or worker is None:
            if self.is_wanted:
                self._want()
            return
        await self._ask(wire, worker)

    async def _ask(self, wire: Wire, worker: Peer) -> None:
        asked = {each: each.interest for each in self._unsettled}
        went_well = await wire.ask(listening.supported(self._union(), worker.facts.capabilities))
        if wire is not self._wire:
            return  # another worker has come, which stirred
        told: dict[Subscription, Interest] = {}
        if went_well and self._gap:
            self._gap = False
            told = self._told_of_all()
        for each, interest in asked.items():
            if each.interest == interest and each in self._unsettled:
                self._settle(each, wire)
        await self._tell_all(told)
        if not went_well:
            self._odd("listen-refused")
            self._rest()

    def _settle(self, subscription: Subscription, wire: Wire) -> None:
        del self._unsettled[subscription]
        subscription.settle(subscription.interest & wire.granted)

    def _rest(self) -> None:
        """Let some time pass before the next attempt, the longer the oftener it was in vain."""
        now = anyio.current_time()
        self._failures = 1 if now - self._since > STEADY_SECONDS else self._failures + 1
        self._since = now
        wait = listening.wait_before_retry(self._failures)
        self._not_before = now + wait
        if self._tasks is not None and not self.closed:
            self._tasks.start_soon(self._stir_at, self._not_before)

    async def _stir_at(self, moment: float) -> None:
        await anyio.sleep_until(moment)
        if moment == self._not_before:
            self._stirred.set()

    def _listen_ended(self) -> None:
        self._gap = True
        self._rest()

    # --- notifications --------------------------------------------------------------------------------

    def _notified(self, method: str, params: Fields, listen_id: int | None) -> None:
        """Called by the reader of the pipe."""
        wire = self._wire
        if wire is not None and method == listening.ACKNOWLEDGED:
            wire.acknowledged(params, listen_id)
            return
        heard = listening.read_heard(method, params)
        if heard is None or wire is None or not wire.carries(listen_id) or not wire.granted.wants(heard):
            self._odd("notification")
            return
        if not self._news.add(heard):
            self._odd("notification-flood")

    def overheard(self, method: str, params: Fields, listen_id: int | None) -> None:
        """Another process of the same server said something: that its lists changed is news here, the rest its own affair.

        Such a process serves calls which it has to itself, and nothing was asked of it.
        """
        heard = listening.read_heard(method, params)
        told = heard is not None and heard.kind is not None and listen_id is None
        if heard is None or not told or self._wire is None or not self._wire.granted.wants(heard):
            self._odd("notification")
        elif not self._news.add(heard):
            self._odd("notification-flood")

    def _tell(self, heard: Heard) -> None:
        if heard.kind is not None:
            self._tell_watchers(heard.kind)
        for each in list(self._subscriptions):
            if each.interest.wants(heard):
                self._deliver(each, heard)

    async def _tell_everything(self) -> None:
        """Tell those who listen already that all they are told of may have changed."""
        await self._tell_all(self._told_of_all())

    def _told_of_all(self) -> dict[Subscription, Interest]:
        """Who is to be told that everything may have changed, and of what. Whoever comes later is not."""
        granted = NO_INTEREST if self._wire is None else self._wire.granted
        for kind in ALL_LISTS.kinds:
            self._tell_watchers(kind)
        return {each: each.interest & granted for each in self._subscriptions if each.is_open}

    async def _tell_all(self, told: Mapping[Subscription, Interest]) -> None:
        """Tell each of all that is its own. Between two listeners others have their turn: there may be many."""
        for each, interest in told.items():
            if each in self._subscriptions:
                for kind in sorted(interest.kinds):
                    self._deliver(each, listening.list_changed(kind))
                for uri in sorted((interest & each.interest).uris):
                    self._deliver(each, listening.updated(uri))
                await anyio.lowlevel.checkpoint()

    def _tell_watchers(self, kind: ListKind) -> None:
        for changed in self._watchers:
            changed(kind)

    def _deliver(self, subscription: Subscription, heard: Heard) -> None:
        try:
            subscription.deliver(heard)
        except Exception:  # noqa: BLE001 - the boundary of one listener: its bug must not silence the others
            logger().exception("listener_broke", hub=self._name)
