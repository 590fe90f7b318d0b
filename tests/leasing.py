"""Calls straight to the worker sets of a running runtime: what the broker does, without a client in front of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec

from harness import Served, serving
from mcphost.protocol import bridge, jsonrpc
from mcphost.protocol.asking import Declared
from mcphost.protocol.bridge import Eras, Told
from mcphost.protocol.jsonrpc import Fields
from mcphost.runtime import INFO
from mcphost.workers.hearing import Question
from mcphost.workers.owners import Need
from mcphost.workers.worker import Worker

ROOTS = Declared((("roots", ()),))
FORMS = Declared((("elicitation", ("form",)),))
ASKED = Need(FORMS, chain=True)


class Ear:
    """Hears everything, and remembers it. Questions are answered with `answers` as long as there are any."""

    wants_progress = True
    can_be_asked = True

    def __init__(self, *answers: object, logs: bool = True) -> None:
        self.wants_logs = logs
        self.answers = list(answers)
        self.progress: list[Fields] = []
        self.lines: list[object] = []
        self.questions: list[Question] = []
        self.heard = anyio.Event()

    def progressed(self, params: Fields) -> None:
        self.progress.append(params)
        self.heard.set()

    def logged(self, params: Fields) -> None:
        self.lines.append(msgspec.json.decode(params["data"]))

    def asked(self, question: Question) -> None:
        self.questions.append(question)
        self.heard.set()
        if self.answers:
            question.answer(jsonrpc.raw(self.answers.pop(0)))


async def use(worker: Worker, tool: str, ear: Ear | None = None, **arguments: Any) -> dict[str, Any]:
    """Call a tool of the fixture; its result, or its error under the key `error`."""
    params = {"name": jsonrpc.raw(tool), "arguments": jsonrpc.raw(arguments)}
    told = Told(log_level="debug" if ear is not None and ear.wants_logs else None)
    eras = Eras("modern", worker.facts.era)
    message = await worker.request(
        "tools/call",
        lambda token: bridge.to_worker(
            params, {}, eras, token=None if ear is None else token, client_info=INFO, told=told
        ),
        ear,
    )
    body: dict[str, Any] = msgspec.json.decode(message.body)
    return body if message.kind == "result" else {"error": body}


def words(result: dict[str, Any]) -> str:
    """The text of a result."""
    return str(result["content"][0]["text"])


class Holder:
    """One lease in a task of its own, held until it is let go."""

    def __init__(self, tasks: Any, workers: Any, need: Need) -> None:
        self.got = anyio.Event()
        self.over = anyio.Event()
        self.error: BaseException | None = None
        self.worker: Worker
        self.scope = anyio.CancelScope()
        self._may_end = anyio.Event()
        tasks.start_soon(self._hold, workers, need)

    async def _hold(self, workers: Any, need: Need) -> None:
        try:
            with self.scope:
                async with workers.lease(need) as self.worker:
                    self.got.set()
                    await self._may_end.wait()
        except Exception as error:  # noqa: BLE001 - what came out is the test's to judge
            self.error = error
        finally:
            self.over.set()

    async def has_it(self) -> Worker:
        await self.got.wait()
        return self.worker

    async def let_go(self) -> None:
        self._may_end.set()
        await self.over.wait()


@asynccontextmanager
async def sets_of(policy: dict[str, Any], server: str = "fix") -> AsyncIterator[tuple[Served, Any]]:
    """A running runtime, and a worker set of it."""
    async with serving(policy) as served:
        yield served, served.worker_set(server)
