"""Putting a server's questions to a legacy client, on the stream of the call that they belong to."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import anyio
import anyio.abc

from mcphost.broker.calltime import CallTime
from mcphost.broker.client import Client
from mcphost.broker.hearing import Hears, refuse
from mcphost.errors import INTERNAL_ERROR, McpHostError
from mcphost.protocol import jsonrpc
from mcphost.protocol.gathering import MAX_IN_ALL
from mcphost.protocol.inputs import InputRequest
from mcphost.protocol.jsonrpc import ErrorObject, Message
from mcphost.workers.hearing import Question
from mcphost.workers.lifetime import background_tasks

T = TypeVar("T")


async def ask_together(
    client: Client, time: CallTime, questions: Mapping[str, InputRequest]
) -> dict[str, Message]:
    """Ask everything at once and wait for all answers, by the same keys. The first error answer ends the waiting.

    What was asked and not answered by then is taken back, and so it is on cancellation.

    Raises:
        McpHostError: the client cannot be asked.
    """
    answers: dict[str, Message] = {}
    failures: list[McpHostError] = []

    async def ask(key: str, question: InputRequest) -> None:
        try:
            answers[key] = await client.ask(question.method, question.params)
        except McpHostError as error:
            failures.append(error)
        if key not in answers or answers[key].kind == "error":
            tasks.cancel_scope.cancel()

    with time.asking():
        async with anyio.create_task_group() as tasks:
            for key, question in questions.items():
                tasks.start_soon(ask, key, question)
    if failures:
        raise failures[0]
    return answers


class Asker:
    """Puts the questions of a legacy server to the legacy client whose call it works on, each as it comes."""

    def __init__(self, client: Client, time: CallTime) -> None:
        self._client = client
        self._time = time
        self._in_all = 0

    async def during(self, hears: Hears, call: Callable[[], Awaitable[T]]) -> T:
        """The outcome of `call`, whose questions are asked meanwhile; those open at its end are taken back."""
        async with background_tasks() as tasks:
            hears.on_question = lambda question: self._take(question, tasks)
            try:
                return await call()
            finally:
                hears.on_question = refuse

    def _take(self, question: Question, tasks: anyio.abc.TaskGroup) -> None:
        self._in_all += 1
        if self._in_all > MAX_IN_ALL or not self._client.declared.permits(question.method, question.params):
            refuse(question)
        else:
            tasks.start_soon(self._put, question)

    async def _put(self, question: Question) -> None:
        with anyio.CancelScope() as scope:
            question.on_withdrawn = scope.cancel
            if not question.is_open:
                return
            try:
                with self._time.asking():
                    answer = await self._client.ask(question.method, question.params)
            except McpHostError as error:
                question.refuse(ErrorObject(INTERNAL_ERROR, str(error)))
                return
            if answer.kind == "error":
                question.refuse(jsonrpc.error_object(answer.body))
            else:
                question.answer(answer.body)
