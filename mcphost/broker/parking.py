"""Calls whose clients are away: found again by an id that was given out sealed, once."""

import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio.abc

from mcphost.broker.call import Call
from mcphost.broker.conversation import Conversation
from mcphost.broker.request import Around, Request
from mcphost.decisions.identity import Principal
from mcphost.errors import Overloaded
from mcphost.workers.lifetime import background_tasks

ID_BYTES: Final = 16

_COME_AGAIN_SECONDS: Final = 5.0  # some answer is given by then, or none soon


class Parking:
    """Every call that may outlive its request. Owns their tasks."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self._parked: dict[str, tuple[Conversation, Principal]] = {}
        self._count: Counter[Principal] = Counter()
        self.running: set[Conversation] = set()
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
        principal = request.caller.principal
        if self._count[principal] >= self._around.asking.parked:
            error = Overloaded(
                f"{self._around.asking.parked} calls wait for this client's answers, the most there may be",
                retry_after=_COME_AGAIN_SECONDS,
            )
            conversation.stop(error)
            raise error
        identifier = secrets.token_urlsafe(ID_BYTES)
        self._parked[identifier] = conversation, principal
        self._count[principal] += 1
        conversation.id = identifier
        conversation.park(request)
        return identifier

    def find(self, identifier: str) -> Conversation | None:
        """The call of an id, which stays parked."""
        parked = self._parked.get(identifier)
        return None if parked is None else parked[0]

    def take(self, identifier: str) -> Conversation | None:
        """The call of an id, which is parked no more and cannot be found again by it."""
        parked = self._parked.pop(identifier, None)
        if parked is None:
            return None
        conversation, principal = parked
        self._count[principal] -= 1
        if not self._count[principal]:
            del self._count[principal]
        return conversation
