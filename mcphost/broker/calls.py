"""Calls of one item: a tool, a prompt, a resource, or the completion of an argument of one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from msgspec import Raw

from mcphost import errors
from mcphost.broker import rounds
from mcphost.broker.admitting import admit_to
from mcphost.broker.answers import Answers
from mcphost.broker.call import Call, Target
from mcphost.broker.conversation import Conversation
from mcphost.broker.endpoints import check_offered
from mcphost.broker.mirroring import Mirroring
from mcphost.broker.parking import Parking
from mcphost.broker.request import Around, Request
from mcphost.broker.states import States, refused
from mcphost.broker.targets import Targets
from mcphost.broker.tasks import Tasks
from mcphost.decisions.handles import StateHandle
from mcphost.errors import DownstreamProtocolError, Forbidden, WorkerGone
from mcphost.protocol import inputs, jsonrpc
from mcphost.protocol.jsonrpc import EMPTY_OBJECT, Fields
from mcphost.protocol.methods import COMPLETE, NAMED, TASKS


@dataclass(frozen=True, slots=True)
class Returning:
    """A request that goes on with an earlier one: its state opened, and the call that waits for it if one does."""

    handle: StateHandle
    conversation: Conversation | None = None

    @property
    def holds_place(self) -> bool:
        """Whether its call has a place among its tenant's already."""
        return self.conversation is not None and self.conversation.place is not None


class Calls:
    """Answers the methods on one item."""

    def __init__(self, around: Around, targets: Targets, mirroring: Mirroring, tasks: Tasks) -> None:
        self._around = around
        self._pool = around.pool
        self._targets = targets
        self._mirroring = mirroring
        self._tasks = tasks
        self._states = States(around.sealer)
        self._parking = Parking(around)
        self._answers = Answers(around, self._states, self._tasks)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Take calls for as long as the block lasts; those whose clients are away end with it."""
        async with self._parking.open():
            yield

    def returning(self, request: Request) -> Returning | None:
        """What a request goes on with; None if it begins anew.

        Raises:
            DownstreamProtocolError: it brings a state that is not valid for it.
        """
        handle = self._states.opened(request)
        if handle is None:
            return None
        if handle.kind == "worker":
            return Returning(handle)
        conversation = self._parking.find(handle.place)
        if conversation is None:
            raise refused()
        return Returning(handle, conversation)

    async def answer(self, request: Request, returning: Returning | None) -> Raw:
        """The server's result, in the client's era and under the endpoint's names."""
        inbound = request.inbound
        if inbound.method in TASKS:
            return await self._tasks.answer(request)
        params = dict(inbound.params)
        if inbound.method == COMPLETE:
            target = await self._completed(request, params)
        else:
            target = await self._named(request, params, returning)
        request.record.server, request.record.name = target.server, target.name
        if not request.permissions.allows(target.server, target.name):
            raise Forbidden(f"not allowed: {target.server}/{target.name}")
        if returning is not None and returning.handle.server != target.server:
            raise refused()
        admit_to(request, target.server, target.name)
        timeouts = self._pool.servers[target.server].timeouts
        seconds = timeouts.for_tool(target.name) if inbound.method == "tools/call" else timeouts.call
        await self._mirroring.check(request, target, params, seconds)
        request.record.tool_called = inbound.method == "tools/call"
        if returning is not None and returning.conversation is not None:
            return await self._resumed(Call(request, target, params, seconds), returning.handle)
        call = Call(request, target, params, seconds, None if returning is None else returning.handle)
        try:
            if call.may_be_parked:
                return await self._round(call, self._parking.begin(call))
            finished = await rounds.carry(self._around, call)
        except WorkerGone:
            if call.need.instance:
                raise refused() from None
            raise
        return self._answers.of(call, finished)

    async def _resumed(self, call: Call, handle: StateHandle) -> Raw:
        """The next round of a parked call."""
        params = call.request.inbound.params
        try:
            responses = jsonrpc.fields(
                params.get(inputs.RESPONSES, EMPTY_OBJECT), f"params.{inputs.RESPONSES}"
            )
        except jsonrpc.Malformed as error:
            raise DownstreamProtocolError(error.code, str(error)) from None
        conversation = self._parking.take(handle.place)
        if conversation is None:
            raise refused()
        conversation.resume(call.request, responses)
        return await self._round(call, conversation)

    async def _round(self, call: Call, conversation: Conversation) -> Raw:
        """One round of a call that may be parked: its result, or the questions that the server has asked."""
        finished = await conversation.round(call.request)
        if finished is not None:
            return self._answers.of(call, finished)
        shown = conversation.shown()
        identifier = self._parking.park(conversation, call.request)
        state = self._states.of_parked(call, identifier, self._around.asking.answer_seconds)
        return self._answers.asking(call, shown, state)

    async def _named(self, request: Request, params: Fields, returning: Returning | None) -> Target:
        """The item that the request names; its name inside `params` becomes the server's own."""
        method = NAMED[request.inbound.method]
        check_offered(request, method.feature)
        name = jsonrpc.text(params.get(method.key))
        if name is None:
            raise DownstreamProtocolError(errors.INVALID_PARAMS, f"params.{method.key} must be a string")
        begun_at = None if returning is None else returning.handle.server
        target = await self._targets.find(request, method.key, name, method.listed_by, begun_at=begun_at)
        params[method.key] = jsonrpc.raw(target.name)
        return target

    async def _completed(self, request: Request, params: Fields) -> Target:
        """The item whose argument is to be completed; its name inside `params` becomes the server's own."""
        try:
            ref = jsonrpc.fields(params.get("ref", jsonrpc.EMPTY_OBJECT), "params.ref")
        except jsonrpc.Malformed as error:
            raise DownstreamProtocolError(error.code, str(error)) from None
        check_offered(request, "completions")
        key, listed_by = ("uri", "resources/templates/list") if "uri" in ref else ("name", "prompts/list")
        name = jsonrpc.text(ref.get(key))
        if name is None:
            raise DownstreamProtocolError(errors.INVALID_PARAMS, f"params.ref.{key} must be a string")
        target = await self._targets.find(request, key, name, listed_by)
        ref[key] = jsonrpc.raw(target.name)
        params["ref"] = jsonrpc.raw(ref)
        return target
