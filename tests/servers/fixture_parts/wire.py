"""What the parts of the fixture server agree on: the words of the wire, what a tool waits for, what it answers."""

import json
from typing import NamedTuple

MODERN = "2026-07-28"
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
META = "io.modelcontextprotocol/"
TASKS = META + "tasks"
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
INTERNAL_ERROR = -32603
RESOURCE_NOT_FOUND, URL_NEEDED, MISSING_CAPABILITY, UNSUPPORTED_VERSION = -32002, -32042, -32021, -32022
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
CACHEABLE = {"tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"}

STRING, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
BOOLEAN = {"type": "boolean"}


class RpcError(Exception):
    def __init__(self, code: int, message: str, data: object = None) -> None:
        self.error = {"code": code, "message": message} | ({} if data is None else {"data": data})


class Sleep(NamedTuple):
    """Wait for some time."""

    seconds: float


class Cancellation(NamedTuple):
    """Wait until this very call is cancelled, and go on in spite of it."""


class Ask(NamedTuple):
    """Wait for the client's answers to some questions, which come back under the same keys.

    `stateful` is whether a modern answer carries a `requestState`; `force` asks what the client did not declare.
    """

    questions: dict[str, dict]
    stateful: bool = True
    force: bool = False


class Escalate(NamedTuple):
    """Go on with these steps, as a task where the client knows what that is, otherwise at once."""

    steps: object


def elicit(message: str, **properties: dict) -> dict:
    """A question for a form with these fields."""
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


def elicit_url(message: str, url: str, era: str, elicitation_id: str) -> dict:
    """A question that the client's user answers elsewhere. Only legacy ones have an id (2025-11-25)."""
    named = {} if era == "modern" else {"elicitationId": elicitation_id}
    return {"method": "elicitation/create", "params": {"mode": "url", "message": message, "url": url} | named}


def sample(prompt: str, max_tokens: int = 16) -> dict:
    """A question for the client's model."""
    messages = [{"role": "user", "content": {"type": "text", "text": prompt}}]
    return {"method": "sampling/createMessage", "params": {"messages": messages, "maxTokens": max_tokens}}


ROOTS = {"method": "roots/list", "params": {}}


def missing_capability(question: dict, declared: dict) -> dict | None:
    """The capability that a question needs and the client did not declare, as the client would declare it."""
    name = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}[
        question["method"]
    ]
    if question["params"].get("mode") == "url":
        has = declared.get(name)
        return None if isinstance(has, dict) and "url" in has else {name: {"url": {}}}
    return None if name in declared else {name: {}}


def text(value: object, structured: dict | None = None, *, failed: bool = False) -> dict:
    """The result of a tool: one text block, and the same as data where there is some."""
    shown = value if isinstance(value, str) else json.dumps(value)
    result: dict = {"content": [{"type": "text", "text": shown}]}
    if structured is not None:
        result["structuredContent"] = structured
    return result | ({"isError": True} if failed else {})
