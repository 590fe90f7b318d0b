#!/usr/bin/env python3
"""A stdio MCP server that writes what its caller tells it to, byte by byte, and then answers properly.

The tool `say` takes `lines` in base64; in each, ID stands for the call's id, TOKEN for its progress token, LISTEN for
the id of the newest `subscriptions/listen`. With `silent` the proper answer is left out, for the lines hold one; with `waits` it comes when a question of the lines was answered. `--era legacy | modern`. Standard library only.
"""

import base64
import json
import os
import sys

MODERN = "2026-07-28"
INFO = {"name": "forger", "version": "1"}
CAPABILITIES = {
    "tools": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "logging": {},
}


DONE = {"resultType": "complete", "content": [{"type": "text", "text": "done"}]}
listening: list = [None]
waiting: list = []


def write(line: bytes) -> None:
    rest = memoryview(line + b"\n")
    while rest:
        rest = rest[os.write(1, rest) :]


def answer(message: dict, result: dict) -> None:
    write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode())


def say(message: dict, params: dict) -> None:
    arguments, token = params.get("arguments") or {}, (params.get("_meta") or {}).get("progressToken")
    for line in arguments.get("lines", ()):
        told = base64.b64decode(line).replace(b"ID", json.dumps(message["id"]).encode())
        told = told.replace(b"LISTEN", json.dumps(listening[-1]).encode())
        write(told.replace(b"TOKEN", json.dumps(token).encode()))
    if arguments.get("waits"):
        waiting.append(message)
    elif not arguments.get("silent"):
        answer(message, DONE)


def receive(era: str, message: dict) -> None:
    method, params = message.get("method"), message.get("params") or {}
    if "id" not in message or method is None:
        if method is None and waiting:
            answer(waiting.pop(), DONE)
        return
    if method == "initialize" and era == "legacy":
        answer(message, {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES, "serverInfo": INFO})
    elif method == "server/discover" and era == "modern":
        answer(message, {"supportedVersions": [MODERN], "capabilities": CAPABILITIES})
    elif method == "tools/list":
        answer(message, {"tools": [{"name": "say", "inputSchema": {"type": "object"}}]})
    elif method == "tools/call":
        say(message, params)
    elif method == "subscriptions/listen":
        listening.append(message["id"])
        meta = {"io.modelcontextprotocol/subscriptionId": message["id"]}
        granted = {"_meta": meta, "notifications": params.get("notifications")}
        told = {"method": "notifications/subscriptions/acknowledged", "params": granted}
        write(json.dumps({"jsonrpc": "2.0"} | told).encode())
    elif method in ("logging/setLevel", "resources/subscribe", "resources/unsubscribe", "ping"):
        answer(message, {})
    else:
        refused = {"code": -32601, "message": method}
        write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": refused}).encode())


def main() -> None:
    era = sys.argv[sys.argv.index("--era") + 1]
    for line in sys.stdin.buffer:
        receive(era, json.loads(line))


if __name__ == "__main__":
    main()
