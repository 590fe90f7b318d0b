"""One request to a worker and its answer."""

from dataclasses import dataclass

from msgspec import Raw

from mcphost.broker.client import Client
from mcphost.broker.request import Around, Request
from mcphost.errors import ServerError, UpstreamProtocolError
from mcphost.protocol import bridge, jsonrpc, tasks
from mcphost.protocol.bridge import Eras, Told
from mcphost.protocol.events import ServerFacts
from mcphost.protocol.inputs import STATE
from mcphost.protocol.jsonrpc import Fields, Message
from mcphost.protocol.methods import TASKS
from mcphost.workers.hearing import Hearer
from mcphost.workers.worker import Worker


@dataclass(frozen=True, slots=True)
class Finished:
    """A worker's answer: which eras it crossed, what the server is, and the process that gave it.

    `asks_for_input` has the members of a result that asks the client something first; None for every other answer.
    """

    eras: Eras
    message: Message
    facts: ServerFacts
    instance: str
    asks_for_input: Fields | None

    def result(self, *, uri: Raw | None = None) -> Raw:
        """The raw result, an object. `uri` is the resource that was asked for.

        Raises:
            ServerError: the server answered with an error.
            UpstreamProtocolError: the result is no object.
        """
        if self.message.kind == "error":
            error = bridge.error_to_client(jsonrpc.error_object(self.message.body), self.eras, uri=uri)
            raise ServerError(error.code, error.message, bytes(error.data))
        if not bytes(self.message.body).startswith(b"{"):
            raise UpstreamProtocolError("the server answered with a result that is no object")
        return self.message.body


async def send(
    around: Around,
    request: Request,
    worker: Worker,
    params: Fields,
    *,
    hearer: Hearer | None = None,
    rounds: Fields | None = None,
) -> Finished:
    """Send a client's request to a worker, with the server's own names in `params`, and wait for the answer.

    There is no deadline here. `rounds` is what a repeated request carries beside its params.
    """
    inbound, client = request.inbound, request.client
    eras = Eras(inbound.era, worker.facts.era)
    told = Told(capabilities_of(client), client.log_level if hearer is not None else None, rounds or {})
    wants_progress = hearer is not None and hearer.wants_progress
    message = await worker.request(
        inbound.method,
        lambda token: bridge.to_worker(
            params,
            inbound.meta,
            eras,
            token=token if wants_progress else None,
            client_info=client.info or around.info,
            told=told,
        ),
        hearer,
    )
    asks = None if message.kind == "error" else bridge.asks_for_input(message.body, eras)
    finished = Finished(eras, message, worker.facts, worker.instance, asks)
    # Its state, or its task, is this process's: with `scope: call` it is kept until the client comes back.
    worker.awaited = STATE in (asks or {}) or _tells_of_task(request, finished)
    return finished


def capabilities_of(client: Client) -> Raw:
    """What a modern server is told that the client can do: its own words, or what they come to in the newer era."""
    return client.capabilities if client.era == "modern" else client.declared.raw


def _tells_of_task(request: Request, finished: Finished) -> bool:
    if finished.eras.worker == "legacy" or finished.message.kind == "error":
        return False
    return request.inbound.method in TASKS or tasks.is_task(finished.message.body)
