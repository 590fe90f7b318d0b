#!/usr/bin/env python3
"""A stdio MCP server that keeps every line it was sent, byte by byte, and gives them out when the tool `recorded` is called.

It answers every request with the same result, which fits any method, so that nothing but the runtime in front of it
decides what is carried. Asked for progress it reports some first. `--era legacy | modern`. Standard library only.
"""

import base64
import json
import os
import sys

MODERN = "2026-07-28"
INFO = {"name": "recorder", "version": "1"}
CAPABILITIES = {"tools": {}, "prompts": {}, "resources": {}, "completions": {}, "logging": {}}
TOOLS = [
    {
        "name": name,
        "inputSchema": {
            "type": "object",
            "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
        },
    }
    for name in ("echo", "recorded")
]
ANYTHING = {
    "recorder": True,
    "content": [],
    "contents": [],
    "messages": [],
    "tools": TOOLS,
    "prompts": [],
    "resources": [],
    "resourceTemplates": [],
    "completion": {"values": []},
}


def send(message: dict) -> None:
    rest = memoryview(json.dumps({"jsonrpc": "2.0"} | message).encode() + b"\n")
    while rest:
        rest = rest[os.write(1, rest) :]


def receive(era: str, line: bytes, lines: list[bytes]) -> None:
    message = json.loads(line)
    if "id" not in message or "method" not in message:
        lines.append(line)
        return
    method, params = message["method"], message.get("params") or {}
    if method == "initialize" and era == "legacy":
        result = {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES, "serverInfo": INFO}
    elif method == "server/discover" and era == "modern":
        result = {"supportedVersions": [MODERN], "capabilities": CAPABILITIES}
    elif method in ("initialize", "server/discover"):
        send({"id": message["id"], "error": {"code": -32601, "message": method}})
        return
    elif method == "tools/call" and params.get("name") == "recorded":
        result = ANYTHING | {"lines": [base64.b64encode(each).decode() for each in lines]}
        lines.clear()
    else:
        lines.append(line)
        result = ANYTHING
        token = (params.get("_meta") or {}).get("progressToken")
        if token is not None:
            send({"method": "notifications/progress", "params": {"progressToken": token, "progress": 1}})
    send({"id": message["id"], "result": result})


def main() -> None:
    era = sys.argv[sys.argv.index("--era") + 1]
    lines: list[bytes] = []
    held = b""
    while data := os.read(0, 1 << 16):
        *whole, held = (held + data).split(b"\n")
        for line in whole:
            receive(era, line, lines)


if __name__ == "__main__":
    main()
