"""All worker sets of a runtime: made when first wanted, owned by one task group, stopped together."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import anyio.abc

from mcphost.workers.lifetime import background_tasks
from mcphost.workers.owners import Owner
from mcphost.workers.settings import SHARED, ServerSettings
from mcphost.workers.supervisor import Surroundings, WorkerSet


class Pool:
    """Finds the worker set for a tenant's call; nothing is ever shared across tenants but `scope: shared`."""

    def __init__(self, servers: Mapping[str, ServerSettings], around: Surroundings) -> None:
        self.servers = servers
        self._around = around
        self._sets: dict[tuple[str, str], WorkerSet] = {}
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
        """
        settings = self.servers[server]
        key = (server, settings.tenant_of(owner.tenant))
        found = self._sets.get(key)
        if found is None:
            found = self._sets[key] = WorkerSet(settings, key[1], self._around)
            self._tasks.start_soon(found.run, name=f"workers of {server}/{key[1]}")
        return found

    def start_eager(self, tenants_of: Mapping[str, Iterable[str]]) -> None:
        """Begin to start what is to run from the beginning; `tenants_of` names each server's tenants.

        Spares of a shared server wait from now on, too; those of a tenant from its first use of the server.
        """
        for name, settings in self.servers.items():
            if settings.warm and settings.scope == "shared":
                self.find(name, Owner(SHARED))
            if settings.start == "eager":
                for tenant in [SHARED] if settings.scope == "shared" else tenants_of[name]:
                    found = self.find(name, Owner(tenant))
                    self._eager.append(found)
                    found.want()

    def end_session(self, session: str) -> None:
        """Stop what belonged to a session and to nobody else. Idempotent; returns at once."""

    def sets(self) -> list[WorkerSet]:
        """Every worker set that was wanted so far."""
        return list(self._sets.values())

    def settled(self) -> bool:
        """Whether no eager worker set is at its first start: each is ready, or in trouble that is visible.

        Lazy ones do not count: a tenant's first call must not make the runtime look unready to all.
        """
        return not any(each.at_first_start for each in self._eager)
