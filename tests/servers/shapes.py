#!/usr/bin/env python3
"""A stdio MCP server whose lists have whatever shape a test wants, given as JSON in its one argument.

    {"era": "modern" | "legacy",            which it speaks
     "capabilities": {...},                 beside those that its lists imply
     "instructions": "...", "hints": {...}, hints go into every list result
     "tools": [...], "prompts": [...], "resources": [...], "resourceTemplates": [...],
                                            an item, or its name alone
     "page": 2,                             items on a page; 0 for all
     "circle": true,                        the last page leads to the first
     "silent": ["tools/list"],              methods that are never answered
     "asking": ["tool"],                    of the tools those that only a client is shown that can be asked
     "results": {"tool": {...}}}            what a call of a tool is answered with

A call of any other tool is answered with its name, the server's, and the arguments.
"""

import json
import sys

MODERN = "2026-07-28"
KEYS = {
    "tools/list": ("tools", "name"),
    "prompts/list": ("prompts", "name"),
    "resources/list": ("resources", "uri"),
    "resources/templates/list": ("resourceTemplates", "uriTemplate"),
}
SHAPE = json.loads(sys.argv[1])
NAME = SHAPE.get("name", "shapes")


class Refused(Exception):
    def __init__(self, code: int, message: str) -> None:
        self.error = {"code": code, "message": message}


def capabilities() -> dict:
    found = {
        "resources" if key == "resourceTemplates" else key: {} for key, _ in KEYS.values() if key in SHAPE
    }
    return found | SHAPE.get("capabilities", {})


def about() -> dict:
    facts = {"capabilities": capabilities()}
    return facts | ({"instructions": SHAPE["instructions"]} if "instructions" in SHAPE else {})


def discover(_params: dict) -> dict:
    return about() | {
        "supportedVersions": [MODERN],
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": NAME, "version": "1"}},
    }


def initialize(params: dict) -> dict:
    SHAPE["can ask"] = bool(params.get("capabilities"))
    return about() | {"protocolVersion": "2025-11-25", "serverInfo": {"name": NAME, "version": "1"}}


def listed(method: str, params: dict) -> dict:
    member, key = KEYS[method]
    items = [item if isinstance(item, dict) else {key: item} for item in SHAPE.get(member, [])]
    if member == "tools":
        hidden = [] if SHAPE.get("can ask") else SHAPE.get("asking", [])
        items = [{"inputSchema": {"type": "object"}} | item for item in items if item["name"] not in hidden]
    start, size = int(params.get("cursor", "0")), SHAPE.get("page", 0) or len(items) or 1
    more = start + size < len(items)
    result = {member: items[start : start + size]} | SHAPE.get("hints", {})
    if more or SHAPE.get("circle"):
        result["nextCursor"] = str(start + size) if more else "0"
    return result


def called(params: dict) -> dict:
    if params["name"] in SHAPE.get("results", {}):
        return SHAPE["results"][params["name"]]
    known = [item if isinstance(item, str) else item["name"] for item in SHAPE.get("tools", [])]
    if params["name"] not in known:
        raise Refused(-32602, f"Unknown tool: {params['name']}")
    said = {"tool": params["name"], "server": NAME, "arguments": params.get("arguments", {})}
    return {"content": [{"type": "text", "text": json.dumps(said)}], "structuredContent": said}


def prompted(params: dict) -> dict:
    return {"messages": [{"role": "user", "content": {"type": "text", "text": f"{NAME}:{params['name']}"}}]}


def read(params: dict) -> dict:
    return {"contents": [{"uri": params["uri"], "text": f"{NAME}:{params['uri']}"}]}


def completed(params: dict) -> dict:
    ref = params["ref"]
    return {"completion": {"values": [f"{NAME}:{ref.get('uri') or ref.get('name')}"]}}


def answer(method: str, params: dict) -> dict:
    own = {
        "tools/call": called,
        "prompts/get": prompted,
        "resources/read": read,
        "completion/complete": completed,
        "ping": lambda _params: {},
    }
    modern = SHAPE.get("era", "modern") == "modern"
    own["server/discover" if modern else "initialize"] = discover if modern else initialize
    if method in KEYS:
        return listed(method, params)
    if method not in own:
        raise Refused(-32601, f"no such method: {method}")
    return own[method](params)


def main() -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message or message.get("method") in SHAPE.get("silent", []):
            continue
        reply = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            reply["result"] = answer(message["method"], message.get("params") or {})
        except Refused as refusal:
            reply["error"] = refusal.error
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
