"""An MCP server with one tool, `fetch`, as others write them: urllib, and no word about a proxy anywhere."""

import json
import sys
import urllib.error
import urllib.request


def fetch(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.read().decode()
    except OSError as error:
        return f"failed: {error}"


def answer(method: str, params: dict) -> dict:
    if method == "initialize":
        info = {"name": "fetcher", "version": "1"}
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": info,
        }
    if method == "tools/list":
        return {"tools": [{"name": "fetch", "inputSchema": {"type": "object"}}]}
    if method == "tools/call":
        return {"content": [{"type": "text", "text": fetch(params["arguments"]["url"])}]}
    raise LookupError


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message and "method" in message:
        try:
            said = {"result": answer(message["method"], message.get("params", {}))}
        except LookupError:
            said = {"error": {"code": -32601, "message": "no such method"}}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **said}), flush=True)
