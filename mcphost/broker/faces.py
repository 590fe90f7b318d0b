"""What an endpoint shows of itself: the capabilities and instructions of the servers behind it."""

from collections.abc import Iterable
from typing import Final
from weakref import WeakKeyDictionary

import anyio

from mcphost.broker.endpoints import servers_of, together
from mcphost.broker.patience import Patience
from mcphost.broker.request import Around, Request
from mcphost.errors import McpHostError, WorkerUnavailable
from mcphost.protocol import catalog
from mcphost.protocol.downstream import Face
from mcphost.protocol.events import ServerFacts
from mcphost.protocol.tasks import EXTENSION, declares
from mcphost.telemetry.logs import logger, printable
from mcphost.workers.supervisor import WorkerSet

Offer = dict[str, dict[str, object]]

# Extensions that work through the runtime: ids of tasks and the URIs of an app's pages are rewritten.
ROUTABLE: Final = (EXTENSION, "io.modelcontextprotocol/ui")

# The handshake methods wait for servers that are starting; this is what they may take beyond a start.
HANDSHAKE_SLACK_SECONDS: Final = 5.0


class Faces:
    """Makes the face of an endpoint."""

    def __init__(self, around: Around, patience: Patience) -> None:
        self._around = around
        self._pool = around.pool
        self._patience = patience
        self._told: WeakKeyDictionary[WorkerSet, ServerFacts] = WeakKeyDictionary()

    async def of(self, request: Request) -> Face:
        """Capabilities and instructions of an endpoint.

        Raises:
            WorkerUnavailable: its only server did not get ready, or one did not and the route wants all or nothing.
        """
        single = request.caller.server
        if single is not None:
            own = await self._facts_of_one(request, single)
            return Face(self._offered(request, [own]), own.info, own.instructions)
        facts = await self._facts(request)
        advice = catalog.instructions([(name, each.instructions) for name, each in facts.items()])
        return Face(self._offered(request, facts.values()), self._around.info, advice)

    @staticmethod
    def _offered(request: Request, facts: Iterable[ServerFacts]) -> Offer:
        """The capabilities that the client of a request is told of."""
        known = list(facts)
        offered = catalog.capabilities(each.capabilities for each in known)
        if request.caller.server is None:
            offered = {name: offer for name, offer in offered.items() if request.caller.route.offers(name)}
        if any("logging" in each.capabilities for each in known):
            offered["logging"] = {}
        if request.inbound.era == "modern":
            modern = [each.capabilities for each in known if each.era == "modern"]
            extensions: dict[str, object] = {
                name: {} for name in ROUTABLE if any(declares(each, name) for each in modern)
            }
            return offered | ({"extensions": extensions} if extensions else {})
        return offered

    async def _facts_of_one(self, request: Request, server: str) -> ServerFacts:
        limit = self._pool.servers[server].timeouts.start + HANDSHAKE_SLACK_SECONDS
        with anyio.move_on_after(limit):
            return (await self._pool.find(server, request.owner).ready()).facts
        raise WorkerUnavailable(f"the server {server!r} did not get ready in time")

    async def _facts(self, request: Request) -> dict[str, ServerFacts]:
        """What each server says of itself, in the policy's order.

        A server that is not up shows what it said last; one that never was is waited for, within bounds, and left
        out if it does not come.
        """
        facts: dict[str, ServerFacts] = {}
        names = servers_of(self._pool, request)
        failed: list[McpHostError] = []

        async def look(server: str) -> None:
            try:
                facts[server] = await self._latest(self._pool.find(server, request.owner))
            except McpHostError as error:
                failed.append(error)
                logger().warning(
                    "face_part_missing", tenant=request.tenant.name, server=server, why=printable(str(error))
                )

        await together(look, names)
        if failed and not request.caller.route.skips_down:
            raise failed[0]
        return {name: facts[name] for name in names if name in facts}

    async def _latest(self, workers: WorkerSet) -> ServerFacts:
        if (told := self._told.get(workers)) is not None and (
            workers.worker is None or not workers.worker.usable
        ):
            workers.want()
            return told
        with anyio.move_on_after(self._patience.seconds(workers)):
            worker = await workers.ready()
            self._patience.answered(workers)
            self._told[workers] = worker.facts
            return worker.facts
        self._patience.missed(workers)
        raise WorkerUnavailable(f"the server {workers.settings.name!r} did not get ready in time")
