"""What an endpoint shows of itself: the capabilities and instructions of the servers behind it."""

from typing import Final

import anyio

from mcphost import errors
from mcphost.broker.endpoints import servers_of, together
from mcphost.broker.request import Around, Request
from mcphost.protocol import catalog
from mcphost.protocol.downstream import Face
from mcphost.workers.worker import Worker

# The handshake methods wait for servers that are starting; this is what they may take beyond a start.
HANDSHAKE_SLACK_SECONDS: Final = 5.0


class Faces:
    """Makes the face of an endpoint."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self._pool = around.pool

    async def of(self, request: Request) -> Face:
        """Capabilities and instructions of an endpoint. Servers that do not get ready are left out."""
        workers: dict[str, Worker] = {}
        names = servers_of(self._pool, request)
        single = request.caller.server

        async def wait(server: str) -> None:
            limit = self._pool.servers[server].timeouts.start + HANDSHAKE_SLACK_SECONDS
            with anyio.move_on_after(limit):
                try:
                    workers[server] = await self._pool.find(server, request.owner).ready()
                except errors.WorkerUnavailable:
                    if single is not None:
                        raise

        await together(wait, names)
        if single is not None and not workers:
            raise errors.WorkerUnavailable(f"the server {single!r} did not get ready in time")
        facts = {name: workers[name].facts for name in names if name in workers}
        offered = catalog.capabilities(each.capabilities for each in facts.values())
        if single is not None:
            own = facts[single]
            return Face(offered, own.info, own.instructions)
        advice = catalog.instructions([(name, each.instructions) for name, each in facts.items()])
        return Face(offered, self._around.info, advice)
