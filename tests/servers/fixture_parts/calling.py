"""Calls of tools: what is checked first, and which of them become tasks."""

from collections.abc import Generator
from types import GeneratorType
from typing import TYPE_CHECKING

from fixture_parts.calls import TOOLS, Call
from fixture_parts.tasks import need_tasks
from fixture_parts.wire import INVALID_PARAMS, Escalate, RpcError, text

if TYPE_CHECKING:
    from fixture_parts.server import Server

TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


def call_tool(server: "Server", call: Call) -> object:
    name = call.params.get("name")
    if name in server.extra_tools:
        return text(f"extra {name}")
    if name not in TOOLS:
        raise RpcError(INVALID_PARAMS, f"Unknown tool: {name}")
    called = TOOLS[name]
    wrong = wrong_argument(called.declaration["inputSchema"], call.arguments)
    if wrong:
        return text(wrong, failed=True)
    if called.task in ("required", "later") and server.era == "modern":
        need_tasks(call)
    server.counts[name] += 1
    if called.task in ("optional", "required"):
        return escalate(called.function(call))
    return called.function(call)


def escalate(steps: object) -> Generator:
    yield Escalate(steps if isinstance(steps, GeneratorType) else at_once(steps))


def at_once(result: object) -> Generator:
    return result
    yield


def wrong_argument(schema: dict, arguments: object) -> str | None:
    """What is wrong with the arguments, checked as far as the tools here rely on it."""
    if not isinstance(arguments, dict):
        return "arguments must be an object"
    if missing := [name for name in schema["required"] if name not in arguments]:
        return f"missing argument: {', '.join(missing)}"
    for name, value in arguments.items():
        described = schema["properties"].get(name, {})
        declared = "number" if described.get("$ref") == "#/$defs/operand" else described.get("type")
        wrong_bool = isinstance(value, bool) and declared in ("integer", "number")
        if declared and (wrong_bool or not isinstance(value, TYPES[declared])):
            return f"argument {name} must be of type {declared}"
    return None
