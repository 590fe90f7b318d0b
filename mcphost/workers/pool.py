"""All worker sets of a runtime: made when first wanted, owned by one task group, stopped together."""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import anyio
import anyio.abc

from mcphost.errors import Overloaded
from mcphost.protocol.asking import NOTHING, Declared
from mcphost.workers.lifetime import background_tasks
from mcphost.workers.owners import Owner
from mcphost.workers.reports import Identity
from mcphost.workers.settings import SHARED, ServerSettings
from mcphost.workers.spares import Spares
from mcphost.workers.starting import Surroundings
from mcphost.workers.supervisor import WorkerSet

# Worker sets of sessions that one tenant may have at once, over all servers. Each is a process of some 50 MB, and clients
# open sessions as they like.
MAX_SESSION_SETS: Final = 64

# Server, tenant, session or principal, what can be asked of it, and whether it is a session.
Key = tuple[str, str, str, Declared, bool]


class Pool:
    """Finds the worker set for a tenant's call; nothing is ever shared across tenants but `scope: shared`."""

    def __init__(self, servers: Mapping[str, ServerSettings], around: Surroundings) -> None:
        self.servers = servers
        self._around = around
        self._sets: dict[Key, WorkerSet] = {}
        self._ends: dict[Key, anyio.CancelScope] = {}  # of the sets that may end before the runtime
        self._of_sessions: Counter[str] = Counter()  # by tenant; those that are ending included
        self._spares: dict[tuple[str, str], Spares] = {}
        self._eager: list[WorkerSet] = []
        self._tasks: anyio.abc.TaskGroup

    def __repr__(self) -> str:
        return f"<Pool {len(self._sets)} worker sets>"

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Pool"]:
        """Serve for as long as the block lasts; then every worker is stopped."""
        async with background_tasks() as self._tasks:
            yield self

    def find(self, server: str, owner: Owner) -> WorkerSet:
        """The worker set of a server for an owner. Synchronous, so that two calls never make two.

        Raises:
            KeyError: no such server.
            Overloaded: the tenant has as many workers of sessions as it may.
        """
        settings = self.servers[server]
        tenant = settings.tenant_of(owner.tenant)
        of_session = settings.scope == "session"
        key: Key = (server, tenant, "", NOTHING, False)
        if of_session:
            key = (
                server,
                tenant,
                owner.session,
                NOTHING if owner.one_client else owner.declared,
                owner.one_client,
            )
        found = self._sets.get(key)
        if found is None:
            found = self._start_of_session(key, settings, owner) if of_session else self._start(key, settings)
        return found

    def end_session(self, session: str) -> None:
        """Stop what belonged to a legacy session and to nobody else. Idempotent; returns at once."""
        for key in [key for key in self._ends if key[2] == session and key[4]]:
            self._forget(key)

    def start_eager(self, tenants_of: Mapping[str, Iterable[str]]) -> None:
        """Begin to start what is to run from the beginning; `tenants_of` names each server's tenants.

        Spares of a shared server wait from now on, too; those of a tenant from its first use of the server.
        """
        for name, settings in self.servers.items():
            if settings.warm and settings.scope == "shared":
                self.find(name, Owner(SHARED))
            if settings.start == "eager" and settings.scope != "session":
                for tenant in [SHARED] if settings.scope == "shared" else tenants_of[name]:
                    found = self.find(name, Owner(tenant))
                    self._eager.append(found)
                    found.want()

    def sets(self) -> list[WorkerSet]:
        """Every worker set that was wanted so far, but those of sessions that have ended."""
        return list(self._sets.values())

    def settled(self) -> bool:
        """Whether no eager worker set is at its first start: each is ready, or in trouble that is visible.

        Lazy ones do not count: a tenant's first call must not make the runtime look unready to all.
        """
        return not any(each.at_first_start for each in self._eager)

    def _start(self, key: Key, settings: ServerSettings) -> WorkerSet:
        started = self._sets[key] = WorkerSet(settings, Owner(key[1]), self._around)
        self._tasks.start_soon(started.run, name=f"workers of {key[0]}/{key[1]}")
        return started

    def _start_of_session(self, key: Key, settings: ServerSettings, owner: Owner) -> WorkerSet:
        tenant = key[1]
        if self._of_sessions[tenant] >= MAX_SESSION_SETS:
            raise Overloaded(
                f"the tenant has {MAX_SESSION_SETS} workers of sessions; end some sessions", retry_after=5.0
            )
        self._of_sessions[tenant] += 1
        started = self._sets[key] = WorkerSet(
            settings, owner, self._around, self._spares_of(settings, tenant)
        )
        scope = self._ends[key] = anyio.CancelScope()
        self._tasks.start_soon(self._run_session, key, started, scope, name=f"session of {key[0]}/{tenant}")
        return started

    async def _run_session(self, key: Key, workers: WorkerSet, scope: anyio.CancelScope) -> None:
        """Serve one session until it ends, or nobody has used it for long."""
        try:
            with scope:
                async with background_tasks() as tasks:
                    tasks.start_soon(workers.run)
                    await workers.wait_idle(workers.settings.idle.session)
                    self._forget(key)
        finally:
            self._of_sessions[key[1]] -= 1
            workers.vanish()

    def _forget(self, key: Key) -> None:
        """Whoever looks for it from now on gets another; this one ends."""
        del self._sets[key]
        self._ends.pop(key).cancel()

    def _spares_of(self, settings: ServerSettings, tenant: str) -> Spares:
        """The spares that all sessions of a tenant share: nobody has spoken to them, so they are anybody's."""
        place = settings.name, tenant
        found = self._spares.get(place)
        if found is None:
            around = self._around
            identity = Identity(settings.name, tenant)
            found = self._spares[place] = Spares(
                identity, settings, around.launcher, around.metrics, around.lane
            )
            self._tasks.start_soon(found.run, lambda: self._at_rest(place), name=f"spares of {place}")
        return found

    def _at_rest(self, place: tuple[str, str]) -> bool:
        return all(each.at_rest() for key, each in self._sets.items() if key[:2] == place)
