"""Lists: of one server, page by page as it gives them, or of many, gathered and merged."""

from functools import partial
from typing import Final

import anyio
from msgspec import Raw

from mcphost import errors
from mcphost.broker.endpoints import audience_of, check_offered, names_of, servers_of, together
from mcphost.broker.listings import Listings
from mcphost.broker.request import Around, Request
from mcphost.broker.roundtrip import Finished, send
from mcphost.decisions.cursors import CursorBroken, Own, open_cursor, seal_cursor
from mcphost.decisions.paging import PAGE_ITEMS, Position, StalePosition, cut
from mcphost.errors import CallTimeout, DownstreamProtocolError, McpHostError, WorkerGone
from mcphost.protocol import bridge, catalog, jsonrpc, paramheaders
from mcphost.protocol.jsonrpc import Fields
from mcphost.protocol.methods import ListMethod
from mcphost.protocol.paramheaders import InvalidAnnotation
from mcphost.telemetry.logs import logger, printable
from mcphost.workers.owners import Need

_CURSOR = "cursor"
_NEXT = "nextCursor"
_NAMES_LOGGED: Final = 5  # of what one list leaves out; each list is one line


class Lists:
    """Answers the methods that list."""

    def __init__(self, around: Around, listings: Listings) -> None:
        self._around = around
        self._pool = around.pool
        self._listings = listings

    async def answer(self, request: Request, method: ListMethod) -> Raw:
        """The list that the request's endpoint has for its tenant: the page that its cursor asks for."""
        check_offered(request, method.feature)
        position = self._opened(request)
        if request.caller.server is not None:
            if isinstance(position, Position):
                raise _unknown_cursor()
            return await self._one(request, request.caller.server, method, position)
        if isinstance(position, Own):
            raise _unknown_cursor()
        return await self._merged(request, method, position)

    def _opened(self, request: Request) -> Position | Own | None:
        cursor = request.inbound.params.get(_CURSOR)
        if cursor is None:
            return None
        try:
            return open_cursor(self._around.sealer, audience_of(request), jsonrpc.text(cursor))
        except CursorBroken:
            raise _unknown_cursor() from None

    def _sealed(self, request: Request, position: Position | Own) -> Raw:
        return jsonrpc.raw(seal_cursor(self._around.sealer, audience_of(request), position))

    async def _one(self, request: Request, server: str, method: ListMethod, own: Own | None) -> Raw:
        """One page, cut to what the tenant may see. A cursor leads back to the process that gave it, and to no other."""
        inbound = request.inbound
        params = {key: value for key, value in inbound.params.items() if key != _CURSOR}
        if own is not None:
            params[_CURSOR] = Raw(own.cursor.encode())
        finished = await self._page(request, server, params, own)
        members, items = catalog.page(finished.result(), method)
        shown = self._shown(request, server, method, items)
        members[method.member] = jsonrpc.raw([item for _, item in shown])
        following = members.pop(_NEXT, None)
        if following is not None and jsonrpc.text(following) is not None:
            members[_NEXT] = self._sealed(request, Own(finished.instance, bytes(following).decode()))
        return bridge.to_client(
            inbound.method, jsonrpc.raw(members), finished.eras, server_info=self._around.info
        )

    async def _page(self, request: Request, server: str, params: Fields, own: Own | None) -> Finished:
        """What the server answers, at the process that gave its cursor."""
        workers = self._pool.find(server, request.owner)
        seconds = workers.settings.timeouts.call
        instance = own.instance if own else ""
        need = Need(request.client.declared, instance=instance, party=request.tenant.party)
        try:
            with anyio.fail_after(seconds):
                async with workers.share(need) as worker:
                    finished = await send(self._around, request, worker, params)
        except TimeoutError:
            raise CallTimeout(seconds) from None
        except WorkerGone:
            raise _unknown_cursor() from None
        return finished

    async def _merged(self, request: Request, method: ListMethod, start: Position | None) -> Raw:
        """One page of what all servers of the endpoint list together."""
        gathered, whole = await self._gathered(request)
        names = names_of(request)
        parts = [
            catalog.exposed(server, self._shown(request, server, method, found.items), method, names)
            for server, found in gathered.items()
        ]
        parts, lost = catalog.merge(parts)
        if lost:
            said = ", ".join(printable(f"{server}/{name}") for server, name in lost[:_NAMES_LOGGED])
            logger().info("list_items_hidden", tenant=request.tenant.name, count=len(lost), names=said)
        try:
            items, following = cut(parts, start, PAGE_ITEMS)
        except StalePosition:
            raise _unknown_cursor() from None
        members: Fields = {method.member: jsonrpc.raw(items)}
        if following is not None:
            members[_NEXT] = self._sealed(request, following)
        if request.inbound.era == "modern":
            # As long as the shortest-lived part; what lacks a part is asked for again at once.
            terms = [found.ttl_ms for found in gathered.values() if found.ttl_ms is not None]
            members["ttlMs"] = jsonrpc.raw(min(terms, default=0) if whole else 0)
            members = bridge.modern_result(request.inbound.method, members, self._around.info)
        return jsonrpc.raw(members)

    def _shown(
        self, request: Request, server: str, method: ListMethod, items: list[Fields]
    ) -> list[tuple[str, Fields]]:
        """A server's items that the client may see and can use, by their names."""
        shown = catalog.visible(items, method, partial(request.permissions.allows, server))
        if method.feature != "tools" or request.inbound.era == "legacy":
            return shown
        usable, invalid = [], []
        for name, item in shown:
            try:
                paramheaders.mirrored(item.get("inputSchema"))
            except InvalidAnnotation as error:
                invalid.append(f"{printable(name)}: {error}")
            else:
                usable.append((name, item))
        if invalid:
            said = "; ".join(invalid[:_NAMES_LOGGED])
            logger().warning("tools_invalid", server=server, count=len(invalid), why=said)
        return usable

    async def _gathered(self, request: Request) -> tuple[dict[str, catalog.Gathered], bool]:
        """Each server's list, in the policy's order, without those that have none to give now; and whether all have.

        Raises:
            McpHostError: a server is down, and the route wants all or nothing.
        """
        found: dict[str, catalog.Gathered] = {}
        failed: list[McpHostError] = []
        names = servers_of(self._pool, request)

        async def gather(server: str) -> None:
            try:
                found[server] = await self._listings.gather(request, server, request.inbound.method)
            except McpHostError as error:
                failed.append(error)
                self._around.metrics.part_missing(request.tenant.name, server)
                logger().warning(
                    "list_part_missing", tenant=request.tenant.name, server=server, why=printable(str(error))
                )

        await together(gather, names)
        if failed and not request.caller.route.skips_down:
            raise failed[0]
        return {name: found[name] for name in names if name in found}, not failed


def _unknown_cursor() -> DownstreamProtocolError:
    return DownstreamProtocolError(errors.INVALID_PARAMS, "unknown cursor; read the list from its beginning")
