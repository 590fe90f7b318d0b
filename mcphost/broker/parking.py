"""Calls whose clients are away: found again by an id that was given out sealed, once."""

import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import anyio
import anyio.abc

from mcphost.broker.call import Call
from mcphost.broker.conversation import Conversation
from mcphost.broker.request import Around, Request
from mcphost.broker.states import refused
from mcphost.decisions.crowding import gives_way
from mcphost.decisions.identity import Principal
from mcphost.errors import Overloaded
from mcphost.telemetry.logs import logger
from mcphost.workers.lifetime import background_tasks
from mcphost.workers.supervisor import WorkerSet

ID_BYTES: Final = 16

_COME_AGAIN_SECONDS: Final = 5.0  # some answer is given by then, or none soon

# How long a call waits for a process before one whose client is away gives way to it: most calls are over by then.
CROWDED_SECONDS: Final = 0.5
# And how long that client has had: a program that answers by itself, and often a person, is back by then.
AWAY_SECONDS: Final = 20.0


class Parking:
    """Every call that may outlive its request. Owns their tasks."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self._parked: dict[str, Conversation] = {}  # the one that has waited longest first
        self._count: Counter[Principal] = Counter()
        self._crowded: set[WorkerSet] = set()
        self.running: set[Conversation] = set()
        self.away_seconds = AWAY_SECONDS
        self._tasks: anyio.abc.TaskGroup

    def __repr__(self) -> str:
        return f"<Parking {len(self._parked)} of {len(self.running)}>"

    def __len__(self) -> int:
        return len(self._parked)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Let calls run for as long as the block lasts; then each is ended."""
        async with background_tasks() as self._tasks:
            yield

    def begin(self, call: Call) -> Conversation:
        """Start a call."""
        conversation = Conversation(self._around, call)
        self.running.add(conversation)
        self._tasks.start_soon(self._run, conversation)
        return conversation

    async def _run(self, conversation: Conversation) -> None:
        try:
            await conversation.run()
        finally:
            self.running.discard(conversation)
            self.take(conversation.id)

    def park(self, conversation: Conversation, request: Request) -> str:
        """Keep a call whose client was asked something; gives the id to come back with, which is good for once.

        Raises:
            Overloaded: the principal has as many parked calls as it may; this one is ended.
        """
        most = self._around.asking.parked
        if self._count[conversation.principal] >= most:
            message = f"{most} calls wait for this client's answers, the most there may be"
            error = Overloaded(message, retry_after=_COME_AGAIN_SECONDS)
            conversation.stop(error)
            raise error
        conversation.id = secrets.token_urlsafe(ID_BYTES)
        self._parked[conversation.id] = conversation
        self._count[conversation.principal] += 1
        conversation.park(request)
        self._counted(conversation, 1)
        leases = conversation.workers.leases
        leases.on_crowded = partial(self._make_room, conversation.workers)
        if leases.is_crowded:
            leases.on_crowded()
        return conversation.id

    def find(self, identifier: str) -> Conversation | None:
        """The call of an id, which stays parked."""
        return self._parked.get(identifier)

    def take(self, identifier: str) -> Conversation | None:
        """The call of an id, which is parked no more and cannot be found again by it."""
        conversation = self._parked.pop(identifier, None)
        if conversation is not None:
            self._counted(conversation, -1)
            self._count[conversation.principal] -= 1
            if not self._count[conversation.principal]:
                del self._count[conversation.principal]
        return conversation

    def _counted(self, conversation: Conversation, step: int) -> None:
        server, tenant = conversation.workers.identity.server, conversation.principal.tenant
        self._around.metrics.parked_calls(server, tenant, step)

    def _make_room(self, workers: WorkerSet) -> None:
        if workers not in self._crowded:
            self._crowded.add(workers)
            self._tasks.start_soon(self._give_way, workers)

    async def _give_way(self, workers: WorkerSet) -> None:
        """Give up one parked call after the other for as long as calls wait for the processes that they hold."""
        try:
            wait = CROWDED_SECONDS
            while True:
                await anyio.sleep(wait)
                if not workers.leases.is_crowded:
                    return
                parked = [
                    each for each in self._parked.values() if each.workers is workers and not each.is_over
                ]
                away = [each for each in parked if each.away_seconds >= self.away_seconds]
                waiting = {each.principal for each in self.running if each.workers is workers and each.waits}
                place = gives_way([each.principal for each in away], waiting)
                if place is None:
                    recent = [self.away_seconds - each.away_seconds for each in parked if each not in away]
                    if not recent:
                        return
                    wait = max(CROWDED_SECONDS, min(recent))
                    continue
                wait = CROWDED_SECONDS
                conversation = away[place]
                self.take(conversation.id)
                conversation.stop(refused())
                logger().info(
                    "parked_call_gave_way",
                    tenant=conversation.principal.tenant,
                    server=workers.identity.server,
                )
        finally:
            self._crowded.discard(workers)
