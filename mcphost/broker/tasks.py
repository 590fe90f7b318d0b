"""Tasks: given out under ids of ours, and asked about at the process that they live in."""

import anyio
from msgspec import Raw

from mcphost import errors
from mcphost.broker.endpoints import names_of, servers_of
from mcphost.broker.request import Around, Request
from mcphost.broker.roundtrip import Finished, send
from mcphost.decisions.tasks import Holder, Place, TaskUnknown, open_task, seal_task
from mcphost.errors import CallTimeout, DownstreamProtocolError, WorkerGone
from mcphost.protocol import bridge, jsonrpc, tasks
from mcphost.protocol.jsonrpc import Fields
from mcphost.workers.owners import Need


class Tasks:
    """Answers the methods on tasks, and gives tasks their ids. Keeps nothing: an id says where its task lives."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self._pool = around.pool

    async def answer(self, request: Request) -> Raw:
        """What the process of the task says of it."""
        inbound = request.inbound
        self._check_spoken(request)
        identifier = jsonrpc.text(inbound.params.get(tasks.TASK_ID))
        place = self.find(request, identifier)
        if place is None or identifier is None:
            raise _unknown()
        request.record.server = place.server
        params = {**inbound.params, tasks.TASK_ID: jsonrpc.raw(place.task)}
        try:
            finished = await self._asked(request, place, params)
        except WorkerGone:
            raise _unknown() from None
        result = tasks.shown(finished.result(), identifier, names_of(request), place.server)
        extended = bridge.share_extension(request.client.capabilities, finished.facts.capabilities)
        return bridge.to_client(
            inbound.method, result, finished.eras, server_info=self._around.info, extended=extended
        )

    def find(self, request: Request, identifier: str | None) -> Place | None:
        """Where the task of a client's id lives; None if the id is none of its tasks', or its server is hidden from it."""
        try:
            place = open_task(self._around.sealer, _holder(request), identifier or "")
        except TaskUnknown:
            return None
        return place if place.server in servers_of(self._pool, request) else None

    def given(self, request: Request, server: str, finished: Finished, result: Raw) -> Raw:
        """The result of a call, with an id of ours if it is a task."""
        if finished.eras.client == "legacy" or finished.eras.worker == "legacy":
            return result
        task = tasks.created(result)
        if task is None:
            return result
        place = Place(server, finished.instance, task)
        identifier = seal_task(self._around.sealer, _holder(request), place)
        return tasks.shown(result, identifier, names_of(request), server)

    async def _asked(self, request: Request, place: Place, params: Fields) -> Finished:
        workers = self._pool.find(place.server, request.owner)
        seconds = workers.settings.timeouts.call
        # What goes back to a task is answers to its own questions, which belong to no round of a call.
        answers = {key: params[key] for key in ("inputResponses",) if key in params}
        need = Need(instance=place.instance, party=request.tenant.party)
        try:
            with anyio.fail_after(seconds):
                async with workers.lease(need) as worker:
                    return await send(self._around, request, worker, params, rounds=answers)
        except TimeoutError:
            raise CallTimeout(seconds) from None

    def _check_spoken(self, request: Request) -> None:
        """Refuse the method where no server has tasks, and a client that has not declared them."""
        servers = servers_of(self._pool, request)
        workers = [self._pool.find(server, request.owner).worker for server in servers]
        if not any(worker is None or tasks.declares(worker.facts.capabilities) for worker in workers):
            raise DownstreamProtocolError(errors.METHOD_NOT_FOUND, "no server here has tasks")
        check_declared(request)


def check_declared(request: Request) -> None:
    """Refuse a client that has not declared the extension.

    Raises:
        DownstreamProtocolError: -32021.
    """
    if not tasks.declared(request.client.capabilities):
        data: dict[str, object] = {"requiredCapabilities": {"extensions": {tasks.EXTENSION: {}}}}
        message = "the tasks extension has to be declared"
        raise DownstreamProtocolError(errors.MISSING_CLIENT_CAPABILITY, message, data=data)


def _holder(request: Request) -> Holder:
    return Holder(request.caller.principal, request.caller.endpoint)


def _unknown() -> DownstreamProtocolError:
    return DownstreamProtocolError(errors.INVALID_PARAMS, "unknown task; it may have ended with its server")
