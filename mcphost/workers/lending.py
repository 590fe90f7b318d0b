"""Lending a call the process of a worker set that it needs: with others, or to itself."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from msgspec import Raw

from mcphost.decisions.placing import Place, Wants, place_of
from mcphost.errors import WorkerGone
from mcphost.protocol.asking import NOTHING
from mcphost.protocol.versions import Era
from mcphost.workers.leases import ALONE, Leases
from mcphost.workers.owners import EVERYTHING, Need, Owner, Terms
from mcphost.workers.settings import ServerSettings
from mcphost.workers.slots import Presence, Slots
from mcphost.workers.worker import Worker


class Lending:
    """What is lent of one worker set: its main process, by slots, and those that calls have to themselves."""

    def __init__(
        self,
        settings: ServerSettings,
        owner: Owner,
        client_info: Raw,
        leases: Leases,
        ready: Callable[[], Awaitable[Worker]],
    ) -> None:
        """`ready` waits for the main process."""
        self._settings = settings
        self._owner = owner
        self._client_info = client_info
        self._leases = leases
        self._ready = ready
        self._slots = Slots(settings.concurrency, settings.queue_seconds)
        self.presence = Presence()

    def __repr__(self) -> str:
        return f"<Lending {self._slots!r}, {self._leases!r}>"

    @property
    def waiting(self) -> int:
        """Calls that wait for a slot of the main process."""
        return self._slots.waiting

    @property
    def terms(self) -> Terms:
        """On what the main process is opened."""
        if not self._settings.leases:
            return Terms(self._client_info, EVERYTHING, logs=True)  # among several calls it is still nobody's
        if self._settings.scope == "session":
            declared, one_client = self._owner.declared, self._owner.one_client
            return Terms(self._client_info, declared, logs=True, one_client=one_client)
        return Terms(self._client_info)

    @asynccontextmanager
    async def lease(self, need: Need) -> AsyncIterator[Worker]:
        """See `WorkerSet.lease`."""
        with self.presence.hold():
            # The main process comes first: it knows the era, and whether the server can be started at all.
            main = await self._ready()
            place = self._place(need, main.facts.era)
            lent = self._together(need) if place == "together" else self._apart(place, need, main.facts.era)
            async with lent as worker:
                yield worker

    @asynccontextmanager
    async def share(self, need: Need) -> AsyncIterator[Worker]:
        """See `WorkerSet.share`."""
        with self.presence.hold():
            main = await self._ready()
            if self._depends_on_client(need, main.facts.era):
                told = Terms(self._client_info, need.declared, logs=True, era=main.facts.era)
                async with self._leases.join(need.declared, told, need) as worker:
                    if worker is not None:
                        yield worker
                        return
            async with self._together(need) as worker:
                yield worker

    def _depends_on_client(self, need: Need, era: Era) -> bool:
        """Whether another process than the main one may have other things to list, or made what is asked for."""
        if not self._settings.leases or self._settings.scope in {"session", "call"} or era == "modern":
            return self._leases.knows(need.instance)
        return need.declared != NOTHING or self._leases.knows(need.instance)

    def _place(self, need: Need, era: Era) -> Place:
        if not self._settings.leases:
            return "together"
        scope = self._settings.scope
        if need.instance and self._leases.knows(need.instance):
            return "fresh" if scope == "call" else "alone"
        wants = Wants(need.declared != NOTHING, need.logs, need.chain)
        return place_of(scope, wants, legacy=era == "legacy", one_client=self._owner.one_client)

    @asynccontextmanager
    async def _together(self, need: Need) -> AsyncIterator[Worker]:
        async with self._slots.take(need):
            worker = await self._ready()
            if need.instance and need.instance != worker.instance:
                raise WorkerGone
            yield worker

    def _apart(self, place: Place, need: Need, era: Era) -> AbstractAsyncContextManager[Worker]:
        """A process that no other call of its kind has."""
        told = Terms(self._client_info, need.declared, logs=True, era=era)
        match place:
            case "fresh":
                return self._leases.take(object(), told, need, once=True)
            case "apart":
                return self._leases.take(need.declared, told, need)
            case "alone" if need.instance and not need.logs and era == "modern":
                return self._beside(need, told)
            case "alone":
                return self._leases.take(ALONE, Terms(self._client_info, era=era), need)
            case _:
                return self._leases.take(ALONE, None, need)

    @asynccontextmanager
    async def _beside(self, need: Need, terms: Terms) -> AsyncIterator[Worker]:
        """The process that a call is bound to, with whoever has it, where nothing that names no call is to be heard."""
        async with self._leases.join(ALONE, terms, need) as worker:
            if worker is None:
                raise WorkerGone
            yield worker
