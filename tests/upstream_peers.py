"""Small servers of every era, as functions, for the machine that speaks to workers; and that machine, opened with one."""

import json
from collections.abc import Callable
from typing import Any

from msgspec import Raw

from mcphost.protocol.attribution import DEAF, Hears
from mcphost.protocol.handshake import EraChoice
from mcphost.protocol.upstream import Upstream

MODERN = "2026-07-28"
INFO = Raw(b'{"name":"mcphost","version":"1"}')

Server = Callable[[dict], dict | None]


def ok(asked: dict, result: object) -> dict:
    return {"jsonrpc": "2.0", "id": asked["id"], "result": result}


def no(asked: dict, code: int, message: str = "no") -> dict:
    return {"jsonrpc": "2.0", "id": asked["id"], "error": {"code": code, "message": message}}


def legacy_server(asked: dict) -> dict | None:
    if asked["method"] == "initialize":
        capabilities = {"tools": {"listChanged": True}}
        info = {"name": "old"}
        return ok(asked, {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info})
    return no(asked, -32601)


def silent_server(asked: dict) -> dict | None:
    return legacy_server(asked) if asked["method"] == "initialize" else None


def modern_server(asked: dict) -> dict | None:
    if asked["method"] == "server/discover":
        meta = {"io.modelcontextprotocol/serverInfo": {"name": "new"}}
        return ok(asked, {"supportedVersions": [MODERN], "capabilities": {"prompts": {}}, "_meta": meta,
                          "instructions": "be kind"})  # fmt: skip
    return no(asked, -32022)


def dual_server() -> Server:
    """Takes the era of the first message it reads, as both official SDKs do."""
    chosen: list[Server] = []

    def answer(asked: dict) -> dict | None:
        if not chosen:
            chosen.append(modern_server if asked["method"] == "server/discover" else legacy_server)
        return chosen[0](asked)

    return answer


def opened(
    server: Server, era: EraChoice = "auto", *, swap: bool = False, **manner: Any
) -> tuple[Upstream, list[object]]:
    """A connection after its handshake, and what the machine said of each answer."""
    machine: Upstream[str] = Upstream(era=era, client_info=INFO, **manner)
    asked = [json.loads(line) for line in machine.open().splitlines()]
    answers = [answer for each in asked if (answer := server(each)) is not None]
    return machine, [told(machine, answer) for answer in (reversed(answers) if swap else answers)]


def told(machine: Upstream, message: dict) -> object:
    return machine.receive(json.dumps(message).encode())


def ready(server: Server = modern_server, **manner: Any) -> Upstream:
    machine, _ = opened(server, **manner)
    return machine


def sent(machine: Upstream, entry: str, hears: Hears = DEAF, method: str = "tools/call") -> int:
    identifier = machine.reserve()
    line = json.loads(machine.request(identifier, method, {}, entry, hears))
    assert line == {"jsonrpc": "2.0", "id": identifier, "method": method, "params": {}}
    return identifier


def answer(identifier: int) -> dict:
    return ok({"id": identifier}, {})


def progress(token: object) -> dict:
    return notification("notifications/progress", progressToken=token, progress=1)


def notification(method: str, **params: object) -> dict:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def question(key: object, method: str = "roots/list", **params: object) -> dict:
    return {"jsonrpc": "2.0", "id": key, "method": method, "params": params}


LOG = notification("notifications/message", level="info", data="x")
