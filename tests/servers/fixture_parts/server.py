"""The loop, and all that one connection knows."""

import argparse
import heapq
import itertools
import json
import os
import select
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from types import GeneratorType

from fixture_parts import contents, tasks
from fixture_parts.calling import call_tool
from fixture_parts.calls import Call
from fixture_parts.changes import Changes
from fixture_parts.states import States
from fixture_parts.tasks import Task
from fixture_parts.wire import (
    CACHEABLE,
    INVALID_PARAMS,
    INVALID_REQUEST,
    LEGACY,
    LEVELS,
    META,
    METHOD_NOT_FOUND,
    MODERN,
    PARSE_ERROR,
    TASKS,
    UNSUPPORTED_VERSION,
    Ask,
    Cancellation,
    RpcError,
    Sleep,
)

REMEMBERED_LINES = 512
COMMON = contents.COMMON | {"tools/call": call_tool}
INSTRUCTIONS = "Proves what a runtime does."


class Server(Changes):
    """One connection over standard input and output."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.options = options
        self.page_size: int = options.page_size
        self.era = {"modern": "modern", "dual": None}.get(options.era, "legacy")
        self.initialized = False
        self.handshake: dict = {}
        self.log_level: str | None = "debug"
        self.state: dict[str, str] = {}
        self.states = States()
        self.tasks: dict[str, Task] = {}
        self.visits: set[str] = set()
        self.counts: Counter = Counter()
        self.wire: Counter = Counter()
        self.cancelled: list[dict] = []
        self.lines: deque = deque(maxlen=REMEMBERED_LINES)
        self.in_flight: dict = {}
        self.questions: dict[str, tuple[Call | None, str]] = {}
        self.timers: list = []
        self.order = itertools.count()
        self.answered_calls = 0

    @property
    def info(self) -> dict:
        return {"name": self.options.name, "version": "1.0.0"}

    @property
    def capabilities(self) -> dict:
        declared: dict = {
            "tools": {"listChanged": True},
            "resources": {"subscribe": True, "listChanged": True},
            "prompts": {"listChanged": True},
            "completions": {},
            "logging": {},
        }
        if self.options.no_tools:
            del declared["tools"]
        elif self.era == "modern":
            declared["extensions"] = {TASKS: {}}
        return declared

    # The loop.

    def run(self) -> None:
        buffer = b""
        while True:
            patience = max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else None
            if select.select([0], [], [], patience)[0]:
                chunk = os.read(0, 1 << 16)
                if not chunk:
                    return
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    self.receive(line)
            while self.timers and self.timers[0][0] <= time.monotonic():
                run = heapq.heappop(self.timers)[2]
                if run.alive:
                    self.advance(run, None)

    def write(self, line: bytes) -> None:
        rest = memoryview(line + b"\n")
        while rest:
            rest = rest[os.write(1, rest) :]

    def send(self, message: dict) -> None:
        self.write(json.dumps(message, separators=(",", ":")).encode())

    def notify(self, method: str, params: dict) -> None:
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def fail(self, request_id: object, failure: RpcError) -> None:
        named = {} if request_id is None else {"id": request_id}
        self.send({"jsonrpc": "2.0"} | named | {"error": failure.error})

    # One message.

    def receive(self, line: bytes) -> None:
        if self.options.stderr_noise:
            os.write(2, b"fixture: received %d bytes\n" % len(line))
        self.lines.append(line)
        try:
            message = json.loads(line)
        except ValueError:
            self.wire["unparsable"] += 1
            self.fail(None, RpcError(PARSE_ERROR, "Parse error"))
            return
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            self.wire["invalid"] += 1
            self.fail(None, RpcError(INVALID_REQUEST, "Invalid request"))
        elif "method" not in message:
            self.answer_received(message)
        elif "id" not in message:
            self.notification(message["method"], message.get("params") or {})
        else:
            self.request(message["id"], message["method"], message.get("params") or {})

    def answer_received(self, message: dict) -> None:
        call, key = self.questions.pop(message.get("id"), (None, ""))
        answer = message["result"] if "result" in message else {"error": message.get("error")}
        if not key:
            self.wire["unknownAnswers"] += 1
        elif call is None:
            self.state[key] = json.dumps(answer)
        elif call.alive and (answers := call.answer(key, answer)) is not None:
            self.advance(call, answers)

    def notification(self, method: str, params: dict) -> None:
        if method == "notifications/initialized":
            self.initialized = True
        elif method == "notifications/cancelled":
            self.cancel(params.get("requestId"))
        else:
            self.wire["otherNotifications"] += 1

    def cancel(self, request_id: object) -> None:
        self.listening.pop(request_id, None)
        call = self.in_flight.pop(request_id, None)
        name = call.params.get("name") if call else None
        self.cancelled.append({"id": request_id, "tool": name})
        if call and call.awaits_cancellation:
            self.advance(call, None)
        elif call:
            call.alive = False

    def request(self, request_id: object, method: str, params: dict) -> None:
        if self.options.era == "silent" and not self.handshake and method != "initialize":
            return
        if request_id in self.in_flight:
            self.wire["duplicateIds"] += 1
        if not isinstance(params, dict):
            self.wire["invalid"] += 1
            self.fail(request_id, RpcError(INVALID_PARAMS, "params must be an object"))
            return
        call = Call(self, request_id, method, params)
        try:
            result = self.dispatch(call)
        except RpcError as failure:
            self.wire["refused"] += (
                self.era == "legacy" and not self.initialized and method != "server/discover"
            )
            self.fail(request_id, failure)
            return
        if isinstance(result, GeneratorType):
            call.steps = result
            self.in_flight[request_id] = call
            self.advance(call, None)
        elif result is not None:
            self.finish(call, result)

    def dispatch(self, call: Call) -> object:
        method = call.method
        if self.era is None:
            self.pin(call)
        if method == "initialize":
            return self.initialize(call)
        if self.era == "modern":
            return self.dispatch_modern(call)
        if method == "server/discover":
            code = INVALID_REQUEST if self.options.era == "dual" else METHOD_NOT_FOUND
            raise RpcError(code, "This connection speaks initialize")
        if method != "ping" and not self.initialized:
            raise RpcError(INVALID_REQUEST, "Not initialized")
        return self.handler(method, COMMON | contents.LEGACY_ONLY)(self, call)

    def handler(self, method: str, known: dict) -> Callable:
        if method not in known or (self.options.no_tools and method.startswith("tools/")):
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method}")
        return known[method]

    def pin(self, call: Call) -> None:
        """A dual-era connection becomes what its first telling message is."""
        if call.method == "initialize":
            self.era = "legacy"
        elif call.method == "server/discover" or META + "protocolVersion" in call.meta:
            self.era = "modern"
        else:
            raise RpcError(INVALID_REQUEST, "Neither initialize nor a modern request")

    def initialize(self, call: Call) -> dict:
        wanted = call.params.get("protocolVersion")
        if self.era == "modern":
            raise RpcError(
                UNSUPPORTED_VERSION, "Speak 2026-07-28", {"supported": [MODERN], "requested": wanted}
            )
        if self.handshake:
            raise RpcError(INVALID_REQUEST, "Initialized already")
        self.handshake = call.params
        version = wanted if wanted in LEGACY else LEGACY[0]
        return {
            "protocolVersion": version,
            "capabilities": self.capabilities,
            "serverInfo": self.info,
            "instructions": INSTRUCTIONS,
        }

    # The modern era.

    def dispatch_modern(self, call: Call) -> object:
        version = call.meta.get(META + "protocolVersion")
        if not isinstance(version, str) or not isinstance(call.meta.get(META + "clientCapabilities"), dict):
            raise RpcError(INVALID_PARAMS, "Missing protocolVersion or clientCapabilities in _meta")
        if version != MODERN:
            raise RpcError(
                UNSUPPORTED_VERSION, "Unsupported version", {"supported": [MODERN], "requested": version}
            )
        if call.meta.get(META + "logLevel", LEVELS[0]) not in LEVELS:
            raise RpcError(INVALID_PARAMS, "Unknown log level")
        if call.method == "server/discover":
            return {
                "supportedVersions": [MODERN, *(LEGACY if self.options.era == "dual" else ())],
                "capabilities": self.capabilities,
                "instructions": INSTRUCTIONS,
                "ttlMs": 0,
                "cacheScope": "private",
            }
        if call.method == "subscriptions/listen":
            return self.listen(call)
        call.recall()
        return self.handler(call.method, COMMON | tasks.METHODS)(self, call)

    # Questions of a legacy server.

    def ask(self, call: Call | None, key: str, question: dict) -> None:
        name = f"question-{next(self.order)}"
        self.questions[name] = (call, key)
        self.send({"jsonrpc": "2.0", "id": name} | question)

    def ask_unbidden(self, key: str, question: dict) -> None:
        """Ask for no request; the answer becomes a value remembered under the key."""
        self.ask(None, key, question)

    # What runs: calls in flight, and tasks.

    def advance(self, run: Call | Task, value: object) -> None:
        """Run waiting steps to their next wait, or to their end."""
        waits = False
        try:
            while not waits:
                wait = run.steps.send(value)
                value = None
                if isinstance(wait, Ask):
                    value = run.ask(wait)
                    waits = value is None
                else:
                    waits = self.wait(run, wait)
        except StopIteration as end:
            self.retire(run)
            run.finish(end.value)
        except RpcError as failure:
            self.retire(run)
            run.fail(failure)

    def wait(self, run: Call | Task, wait: object) -> bool:
        """Arrange what resumes the steps; false to go on with them at once."""
        if isinstance(wait, Sleep):
            heapq.heappush(self.timers, (time.monotonic() + wait.seconds, next(self.order), run))
        elif isinstance(wait, Cancellation):
            run.awaits_cancellation = True
        else:
            self.escalate(run, wait.steps)
        return True

    def escalate(self, call: Call, steps: object) -> None:
        if not call.knows_tasks:
            call.steps = steps
            self.advance(call, None)
            return
        task = Task(self, f"task-{next(self.order)}-{os.urandom(8).hex()}", steps)
        self.tasks[task.id] = task
        self.retire(call)
        call.finish({"resultType": "task"} | task.shown())
        self.advance(task, None)

    def retire(self, run: Call | Task) -> None:
        if isinstance(run, Call):
            self.in_flight.pop(run.id, None)
            run.alive = False

    def finish(self, call: Call, result: dict) -> None:
        """Answer once; a call that answered early answers no second time when it returns."""
        if call.answered:
            return
        call.answered = True
        if self.era == "modern":
            meta = {META + "serverInfo": self.info} | result.get("_meta", {})
            result = {"resultType": "complete"} | result | {"_meta": meta}
            if call.method in CACHEABLE and result["resultType"] == "complete":
                result |= {"ttlMs": 0, "cacheScope": "private"}
        self.send({"jsonrpc": "2.0", "id": call.id, "result": result})
        self.answered_calls += call.method == "tools/call"
        if call.method == "tools/call" and self.answered_calls == self.options.exit_after:
            sys.exit(0)
