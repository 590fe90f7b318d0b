"""One request in flight, and the tools it may be for."""

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, NamedTuple

from fixture_parts.wire import LEVELS, META, MISSING_CAPABILITY, TASKS, Ask, RpcError, missing_capability

if TYPE_CHECKING:
    from fixture_parts.server import Server


class Tool(NamedTuple):
    """`task` is empty, `optional` or `required` (it becomes a task if the client can), or `later` (it does so itself)."""

    function: Callable
    declaration: dict
    task: str


TOOLS: dict[str, Tool] = {}


def tool(
    properties: dict | None = None,
    required: tuple = (),
    annotations: dict | None = None,
    *,
    task: str = "",
    schema: dict | None = None,
    **declared: object,
):
    """Register the function below under its own name, its docstring as description."""

    def register(function: Callable) -> Callable:
        plain = {"type": "object", "properties": properties or {}, "required": list(required)}
        declaration = {
            "name": function.__name__,
            "description": function.__doc__,
            "inputSchema": plain | (schema or {}),
            "annotations": {"readOnlyHint": False, "idempotentHint": False} | (annotations or {}),
        } | declared
        TOOLS[function.__name__] = Tool(function, declaration, task)
        return function

    return register


class Call:
    """One request in flight: its parameters, and the ways to talk about it before it is answered."""

    def __init__(self, server: "Server", request_id: object, method: str, params: dict) -> None:
        self.server = server
        self.id = request_id
        self.method = method
        self.params = params
        self.meta = params.get("_meta") or {}
        self.arguments = params.get("arguments") or {}
        self.steps: Generator | None = None
        self.alive = True
        self.awaits_cancellation = False
        self.answered = False
        self._unanswered: set[str] = set()
        self._answers: dict[str, dict] = {}
        self._rounds: list[dict] = []
        self._round = 0

    @property
    def capabilities(self) -> dict:
        if self.server.era == "modern":
            return self.meta.get(META + "clientCapabilities") or {}
        return self.server.handshake.get("capabilities") or {}

    @property
    def knows_tasks(self) -> bool:
        return self.server.era == "modern" and TASKS in (self.capabilities.get("extensions") or {})

    def progress(self, done: int, total: int) -> bool:
        token = self.meta.get("progressToken")
        if token is None:
            return False
        params = {"progressToken": token, "progress": done, "total": total, "message": f"{done} of {total}"}
        self.server.notify("notifications/progress", params)
        return True

    def log(self, level: str, data: object) -> bool:
        modern = self.server.era == "modern"
        floor = self.meta.get(META + "logLevel") if modern else self.server.log_level
        if floor is None or LEVELS.index(level) < LEVELS.index(floor):
            return False
        self.server.notify("notifications/message", {"level": level, "logger": "fixture", "data": data})
        return True

    def finish(self, result: dict) -> None:
        self.server.finish(self, result)

    def fail(self, failure: RpcError) -> None:
        self.server.fail(self.id, failure)

    # Questions.

    def recall(self) -> None:
        """Take up what earlier rounds of this request were answered.

        Raises:
            RpcError: the state is none that this process gave out for such a request.
        """
        state = self.params.get("requestState")
        if state is not None:
            self._rounds = list(self.server.states.open(state, self.method, self.params.get("name")))

    def ask(self, ask: Ask) -> dict | None:
        """Ask, and give the answers if they are there already.

        Raises:
            RpcError: a modern client did not declare that it can be asked this.
        """
        if self.server.era != "modern":
            self._unanswered, self._answers = set(ask.questions), {}
            for key, question in ask.questions.items():
                self.server.ask(self, key, question)
            return None
        for question in ask.questions.values():
            missing = None if ask.force else missing_capability(question, self.capabilities)
            if missing:
                raise RpcError(
                    MISSING_CAPABILITY, "The client cannot be asked this", {"requiredCapabilities": missing}
                )
        answers = self._answers_of_round(ask)
        if answers is None:
            state = self.server.states.mint(self.method, self.params.get("name"), self._rounds)
            result = {"resultType": "input_required", "inputRequests": ask.questions}
            self.finish(result | ({"requestState": state} if ask.stateful else {}))
        return answers

    def answer(self, key: str, answer: dict) -> dict | None:
        """Take one answer on a legacy wire; give all of them when it was the last."""
        self._unanswered.discard(key)
        self._answers[key] = answer
        return None if self._unanswered else self._answers

    def _answers_of_round(self, ask: Ask) -> dict | None:
        """What the client said to these questions: in an earlier round, or with this request."""
        if self._round == len(self._rounds):
            given = self.params.get("inputResponses")
            given = given if isinstance(given, dict) else {}
            if not all(isinstance(given.get(key), dict) for key in ask.questions):
                return None
            self._rounds.append({key: given[key] for key in ask.questions})
            self.params = self.params | {"inputResponses": None}
        self._round += 1
        return self._rounds[self._round - 1]
