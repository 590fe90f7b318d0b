"""Lists: of one server, cut to what the tenant may see, or of many, gathered and merged."""

import anyio
from msgspec import Raw

from mcphost import errors
from mcphost.broker.endpoints import servers_of, together
from mcphost.broker.request import Around, Request
from mcphost.broker.roundtrip import roundtrip
from mcphost.errors import CallTimeout, DownstreamProtocolError, McpHostError
from mcphost.protocol import bridge, catalog, jsonrpc
from mcphost.protocol.jsonrpc import Fields
from mcphost.protocol.methods import ListMethod
from mcphost.telemetry.logs import logger, printable
from mcphost.workers.owners import Need


class Lists:
    """Answers the methods that list."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self._pool = around.pool

    async def answer(self, request: Request, method: ListMethod) -> Raw:
        """The list that the request's endpoint has for its tenant."""
        inbound = request.inbound
        if request.caller.server is not None:
            return await self._one(request, request.caller.server, method)
        if "cursor" in inbound.params:
            # Many servers' lists are gathered whole, so no cursor of ours exists.
            raise DownstreamProtocolError(errors.INVALID_PARAMS, "unknown cursor")
        parts: dict[str, list[Fields]] = {}
        names = servers_of(self._pool, request)

        async def gather(server: str) -> None:
            try:
                parts[server] = await self._all_items(request, server, method)
            except McpHostError as error:
                # One failing server must not take the others' lists with it; the log says what is missing.
                logger().warning(
                    "list_part_missing", tenant=request.tenant.name, server=server, why=printable(str(error))
                )

        await together(gather, names)
        items = [item for name in names for item in parts.get(name, ())]
        members: Fields = {method.member: jsonrpc.raw(items)}
        if inbound.era == "modern":
            members = bridge.modern_result(inbound.method, members, self._around.info)
        return jsonrpc.raw(members)

    async def _one(self, request: Request, server: str, method: ListMethod) -> Raw:
        """One page, cut to what the tenant may see; the server's own cursor goes through as it is."""
        inbound, permissions = request.inbound, request.tenant.permissions
        eras, result = await roundtrip(self._around, request, server, inbound.params)
        members, items = catalog.page(result, method)
        shown = catalog.visible(items, method, lambda name: permissions.allows(server, name), None)
        members[method.member] = jsonrpc.raw(shown)
        return bridge.to_client(inbound.method, jsonrpc.raw(members), eras, server_info=self._around.info)

    async def _all_items(self, request: Request, server: str, method: ListMethod) -> list[Fields]:
        workers = self._pool.find(server, request.owner)
        permissions = request.tenant.permissions
        seconds = workers.settings.timeouts.call
        try:
            with anyio.fail_after(seconds):
                async with workers.lease(Need()) as worker:
                    if method.feature not in worker.facts.capabilities:
                        return []
                    items = await worker.list_all(request.inbound.method)
        except TimeoutError:
            raise CallTimeout(seconds) from None
        return catalog.visible(items, method, lambda item: permissions.allows(server, item), server)
