"""Comparing the `Mcp-Param-*` headers of a call with the arguments that they mirror."""

from mcphost.broker.call import Target
from mcphost.broker.listings import Listings
from mcphost.broker.request import Request
from mcphost.errors import DownstreamProtocolError
from mcphost.protocol import paramheaders
from mcphost.protocol.jsonrpc import Fields

_LIST = "tools/list"


class Mirroring:
    """Knows by the servers' lists which headers a call owes. Only clients of 2026-07-28 send any."""

    def __init__(self, listings: Listings) -> None:
        self._listings = listings

    async def check(self, request: Request, target: Target, params: Fields, seconds: float) -> None:
        """Compare, and leave in `params` what was compared.

        Where the server's list has to be read for it, that takes `seconds` at most, as long as the call may take then.
        A tool that its server does not list has shown no client a schema, so it owes no header.

        Raises:
            DownstreamProtocolError: -32020.
            McpHostError: the server is down, so its schema cannot be read.
        """
        if request.inbound.era == "legacy" or request.inbound.method != "tools/call":
            return
        listing = await self._listings.current(
            request, target.server, _LIST, lambda known: target.name in known.names, seconds=seconds
        )
        try:
            self._compare(request, params, listing.mirrored.get(target.name, ()))
        except DownstreamProtocolError:
            # It may have gone by a newer schema than we know, of a server that does not tell when its list changes.
            listing = await self._listings.current(
                request, target.server, _LIST, lambda _: False, seconds=seconds
            )
            self._compare(request, params, listing.mirrored.get(target.name, ()))

    @staticmethod
    def _compare(request: Request, params: Fields, expected: tuple[paramheaders.Mirrored, ...]) -> None:
        arguments = paramheaders.check(params.get("arguments"), request.inbound.headers.params, expected)
        if arguments is not None:
            params["arguments"] = arguments
