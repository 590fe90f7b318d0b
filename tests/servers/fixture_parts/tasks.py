"""Tasks of the extension (SEP-2663): calls that go on after their request was answered. Modern wires only."""

import itertools
import time
from collections.abc import Generator
from typing import TYPE_CHECKING

from fixture_parts.calls import Call
from fixture_parts.wire import INVALID_PARAMS, MISSING_CAPABILITY, TASKS, Ask, RpcError

if TYPE_CHECKING:
    from fixture_parts.server import Server

TTL_MS, POLL_MS = 600_000, 100
ENDED = ("completed", "failed", "cancelled")
NEEDED = {"requiredCapabilities": {"extensions": {TASKS: {}}}}


class Task:
    """Steps that run under a name of their own. The server advances them as it does those of a call."""

    def __init__(self, server: "Server", task_id: str, steps: Generator) -> None:
        self.server, self.id, self.steps = server, task_id, steps
        self.status, self.created, self.updated = "working", now(), now()
        self.awaits_cancellation = False
        self.requests: dict[str, dict] = {}
        self.outcome: dict = {}
        self._keys: dict[str, str] = {}
        self._answers: dict[str, dict] = {}
        self._numbers = itertools.count(1)

    @property
    def alive(self) -> bool:
        return self.status not in ENDED

    def shown(self) -> dict:
        """What a client is told when the task is made."""
        return {
            "taskId": self.id,
            "status": self.status,
            "createdAt": self.created,
            "lastUpdatedAt": self.updated,
            "ttlMs": TTL_MS,
            "pollIntervalMs": POLL_MS,
        }

    def detailed(self) -> dict:
        asked = {"inputRequests": self.requests} if self.status == "input_required" else {}
        return self.shown() | self.outcome | asked

    def become(self, status: str, **outcome: dict) -> None:
        self.status, self.updated, self.outcome = status, now(), outcome
        self.server.announce_task(self)

    def finish(self, result: dict) -> None:
        self.become("completed", result=result)

    def fail(self, failure: RpcError) -> None:
        self.become("failed", error=failure.error)

    def ask(self, ask: Ask) -> None:
        self._answers = {}
        for key, question in ask.questions.items():
            minted = f"input-{next(self._numbers)}"
            self._keys[minted], self.requests[minted] = key, question
        self.become("input_required")

    def answer(self, responses: dict) -> dict | None:
        """Take answers; give all of them when none is missing any more. What was not asked is passed over."""
        for minted in [key for key in responses if key in self.requests]:
            del self.requests[minted]
            self._answers[self._keys.pop(minted)] = responses[minted]
        if self.requests or self.status != "input_required":
            return None
        self.become("working")
        return self._answers


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def need_tasks(call: Call) -> None:
    if not call.knows_tasks:
        raise RpcError(MISSING_CAPABILITY, "Needs the tasks extension", NEEDED)


def find(server: "Server", call: Call) -> Task:
    need_tasks(call)
    task = server.tasks.get(call.params.get("taskId"))
    if task is None:
        raise RpcError(INVALID_PARAMS, "Unknown task")
    return task


def get_task(server: "Server", call: Call) -> dict:
    return find(server, call).detailed()


def update_task(server: "Server", call: Call) -> dict:
    task = find(server, call)
    answers = task.answer(call.params.get("inputResponses") or {})
    call.finish({})
    if answers is not None:
        server.advance(task, answers)
    return {}


def cancel_task(server: "Server", call: Call) -> dict:
    task = find(server, call)
    if task.alive:
        task.become("cancelled")
    return {}


METHODS = {"tasks/get": get_task, "tasks/update": update_task, "tasks/cancel": cancel_task}
