"""Which server's item a request means, by the name under which the endpoint shows it."""

from collections.abc import Callable, Sequence
from functools import partial

from mcphost import errors
from mcphost.broker.call import Target
from mcphost.broker.endpoints import names_of, servers_of, together
from mcphost.broker.listings import Listing, Listings
from mcphost.broker.request import Request
from mcphost.decisions.routing import healthiest
from mcphost.errors import DownstreamProtocolError, McpHostError
from mcphost.protocol import templates
from mcphost.protocol.bridge import RESOURCE_NOT_FOUND
from mcphost.protocol.naming import Names
from mcphost.workers.pool import Pool

_TEMPLATES = "resources/templates/list"
_RESOURCES = "resources/list"

Has = Callable[[Sequence[str]], bool]


class Targets:
    """Finds the target of a name. Most names say it by themselves; for others the servers' lists are asked."""

    def __init__(self, pool: Pool, listings: Listings) -> None:
        self._pool = pool
        self._listings = listings

    async def find(
        self, request: Request, key: str, name: str, method: str, *, begun_at: str | None = None
    ) -> Target:
        """The target of `name`, which the list `method` of the endpoint shows; `key` is the member that names it.

        `begun_at` is the server that a call which goes on was begun at: where several could have it, that one has.

        Raises:
            DownstreamProtocolError: -32602 (-32002 for a resource, in the older era), no server has it.
            McpHostError: the server that could tell is down.
        """
        if request.caller.server is not None:
            return Target(request.caller.server, name)
        servers, names = servers_of(self._pool, request), names_of(request)
        if names.bare and begun_at in servers:
            return Target(begun_at, name)
        if names.bare:
            return await self._bare(request, servers, name, method)
        reading = names.read(key, name, servers)
        if reading is None:
            raise _unknown(request, method, name)
        if reading.name is not None:
            return Target(reading.server, reading.name)
        return await self._short(request, names, reading.server, name, method)

    async def _short(self, request: Request, names: Names, server: str, exposed: str, method: str) -> Target:
        """The item behind a name that was too long or unsafe to be shown. What may not be used has no such name."""

        def named(listing: Listing) -> str | None:
            return next(
                (each for each in listing.names if names.expose(server, "name", each) == exposed), None
            )

        name = named(
            await self._listings.current(request, server, method, lambda listing: named(listing) is not None)
        )
        if name is None or not request.permissions.allows(server, name):
            raise _unknown(request, method, exposed)
        return Target(server, name)

    async def _bare(self, request: Request, servers: list[str], name: str, method: str) -> Target:
        """The server that has an item of this name: the first, or of servers that are interchangeable the healthiest."""
        if len(servers) == 1:
            return Target(servers[0], name)
        owners = await self._owners(request, servers, name, method)
        if not owners:  # perhaps since yesterday: of a server that does not tell when its lists change
            owners = await self._owners(request, servers, name, method, anew=True)
        if not owners:
            raise _unknown(request, method, name)
        if not request.caller.route.interchangeable:
            return Target(owners[0], name)
        states = [(server, self._pool.find(server, request.owner).state) for server in owners]
        return Target(healthiest(states), name)

    async def _owners(
        self, request: Request, servers: list[str], name: str, method: str, *, anew: bool = False
    ) -> list[str]:
        """The servers that list the name and may be used for it, in the policy's order."""
        allowed = [server for server in servers if request.permissions.allows(server, name)]
        listed = await self._listed(request, allowed, lambda names: name in names, method, anew=anew)
        if method == _RESOURCES and not listed:
            covered = partial(_covered, name)
            listed = await self._listed(request, allowed, covered, _TEMPLATES, anew=anew)
        return [server for server in servers if server in listed]

    async def _listed(
        self, request: Request, servers: list[str], has: Has, method: str, *, anew: bool
    ) -> set[str]:
        """The servers that have something in a list, as it is known or read `anew`.

        One that is down counts with what it listed before.
        """
        found: set[str] = set()

        async def look(server: str) -> None:
            try:
                listing = await self._listings.current(
                    request, server, method, lambda listing: not anew or has(listing.names)
                )
            except McpHostError:
                known = self._listings.last(request, server, method)
                if known is None:
                    return
                listing = known
            if has(listing.names):
                found.add(server)

        if servers:
            await together(look, servers)
        return found


def _covered(name: str, listed: Sequence[str]) -> bool:
    return any(templates.covers(each, name) for each in listed)


def _unknown(request: Request, method: str, name: str) -> DownstreamProtocolError:
    """A resource is named in the data, and has a code of its own in the older era (server/resources, "Error Handling")."""
    what = method.removesuffix("/list").removesuffix("/templates").removesuffix("s")
    message = f"unknown {what}: {name[:200]}"
    if method != _RESOURCES:
        return DownstreamProtocolError(errors.INVALID_PARAMS, message)
    code = errors.INVALID_PARAMS if request.client.era == "modern" else RESOURCE_NOT_FOUND
    return DownstreamProtocolError(code, message, data={"uri": name})
