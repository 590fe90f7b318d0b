"""One request to a worker and its answer, within a deadline."""

import anyio
from msgspec import Raw

from mcphost.broker.request import Around, Request
from mcphost.errors import CallTimeout, ServerError, UpstreamProtocolError
from mcphost.protocol import bridge, jsonrpc
from mcphost.protocol.bridge import Eras
from mcphost.protocol.jsonrpc import Fields
from mcphost.workers.hearing import Hearer
from mcphost.workers.owners import Need


async def roundtrip(
    around: Around,
    request: Request,
    server: str,
    params: Fields,
    *,
    limit: float | None = None,
    hearer: Hearer | None = None,
) -> tuple[Eras, Raw]:
    """One request to a tenant's worker within `limit` seconds (the server's own without one).

    Gives the eras that it crossed and the raw result.
    Waiting for a slot and for a starting worker counts against the deadline.
    """
    workers = around.pool.find(server, request.owner)
    seconds = limit or workers.settings.timeouts.call
    inbound = request.inbound
    try:
        with anyio.fail_after(seconds):
            async with workers.lease(Need()) as worker:
                eras = Eras(inbound.era, worker.facts.era)
                message = await worker.request(
                    inbound.method,
                    lambda token: bridge.to_worker(
                        params,
                        inbound.meta,
                        eras,
                        token=token if hearer is not None else None,
                        client_info=around.info,
                    ),
                    hearer,
                )
    except TimeoutError:
        raise CallTimeout(seconds) from None
    if message.kind == "error":
        error = bridge.error_to_client(jsonrpc.error_object(message.body), eras)
        raise ServerError(error.code, error.message, bytes(error.data))
    if not bytes(message.body).startswith(b"{"):
        raise UpstreamProtocolError("the server answered with a result that is no object")
    return eras, message.body
