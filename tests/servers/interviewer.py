#!/usr/bin/env python3
"""A stdio MCP server with one tool, `interview`: it logs, asks for all that can be asked, and gives back what it was told.

What it says and asks carries the call's own marker, so that anything which reaches the wrong client is seen at once.
With each interview it tells of a change of every resource that is subscribed to. With `together` it begins none before so
many wait to be interviewed.
`--era legacy | dual | modern` as in `fixture.py`. On a legacy wire the three questions go out together, as requests;
on a modern one as one `input_required`, whose state names the call. Standard library only.
"""

import argparse
import json
import os
import sys

MODERN = "2026-07-28"
META = "io.modelcontextprotocol/"
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
TOOL = {
    "name": "interview",
    "inputSchema": {
        "type": "object",
        "properties": {
            "marker": {"type": "string"},
            "logs": {"type": "integer"},
            "together": {"type": "integer"},
        },
        "required": ["marker"],
    },
}
CAPABILITIES = {"tools": {}, "logging": {}, "resources": {"subscribe": True}}


def questions(marker: str) -> dict[str, dict]:
    """By kind; each holds the marker where its form allows."""
    form = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    said = {"role": "user", "content": {"type": "text", "text": marker}}
    return {
        "elicitation": {
            "method": "elicitation/create",
            "params": {"message": marker, "requestedSchema": form},
        },
        "sampling": {
            "method": "sampling/createMessage",
            "params": {"messages": [said], "maxTokens": 16, "_meta": {"marker": marker}},
        },
        "roots": {"method": "roots/list", "params": {"_meta": {"marker": marker}}},
    }


def send(message: dict) -> None:
    rest = memoryview(json.dumps({"jsonrpc": "2.0"} | message).encode() + b"\n")
    while rest:
        rest = rest[os.write(1, rest) :]


class Interviewer:
    def __init__(self, era: str) -> None:
        self.speaks = era
        self.era = "" if era == "dual" else era
        self.level: str | None = None
        self.waiting: dict[str, dict] = {}  # what is still to be heard, by the call's id
        self.asked: dict[str, tuple[str, str]] = {}  # our question's id -> the call's key and the kind
        self.held: list[tuple[dict, dict]] = []
        self.subscribed: dict[str, object] = {}  # URIs, each with the id of the listen that asked for it

    def fail(self, request: dict, code: int, message: str) -> None:
        send({"id": request["id"], "error": {"code": code, "message": message}})

    def succeed(self, request: dict, result: dict) -> None:
        if self.era == "modern":
            result = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"} | result
        send({"id": request["id"], "result": result})

    def receive(self, message: dict) -> None:
        method, params = message.get("method"), message.get("params") or {}
        if method is None:
            self.told(message)
        elif method == "notifications/cancelled":
            key = json.dumps(params.get("requestId"))
            self.waiting.pop(key, None)
            self.asked = {name: one for name, one in self.asked.items() if one[0] != key}
        elif "id" in message:
            self.request(message, method, params)

    def request(self, message: dict, method: str, params: dict) -> None:
        if method == "initialize" and self.speaks != "modern" and self.era != "modern":
            self.era = "legacy"
            self.succeed(
                message,
                {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES, "serverInfo": {"name": "i", "version": "1"}},
            )  # fmt: skip
        elif method == "server/discover" and self.speaks != "legacy" and self.era != "legacy":
            self.era = "modern"
            self.succeed(message, {"supportedVersions": [MODERN], "capabilities": CAPABILITIES})
        elif method == "tools/list":
            self.succeed(message, {"tools": [TOOL]})
        elif method == "logging/setLevel" and self.era == "legacy":
            self.level = params["level"]
            self.succeed(message, {})
        elif method == "ping" and self.era == "legacy":
            self.succeed(message, {})
        elif method in ("subscriptions/listen", "resources/subscribe", "resources/unsubscribe"):
            self.subscribe(message, method, params)
        elif method == "tools/call":
            self.called(message, params)
        else:
            self.fail(message, -32601, method)

    def subscribe(self, message: dict, method: str, params: dict) -> None:
        if method == "subscriptions/listen":
            self.listen(message["id"], params.get("notifications") or {})
            return
        self.subscribed.pop(params["uri"], None)
        if method == "resources/subscribe":
            self.subscribed[params["uri"]] = None
        self.succeed(message, {})

    def called(self, message: dict, params: dict) -> None:
        self.tell()
        self.held.append((message, params))
        if len(self.held) >= params["arguments"].get("together", 1) or "inputResponses" in params:
            held, self.held = self.held, []
            for each in held:
                self.interview(*each)

    def listen(self, listen_id: object, wanted: dict) -> None:
        uris = wanted.get("resourceSubscriptions", [])
        self.subscribed = dict.fromkeys(uris, listen_id)
        granted = {"notifications": {"resourceSubscriptions": uris}}
        meta = {"_meta": {META + "subscriptionId": listen_id}}
        send({"method": "notifications/subscriptions/acknowledged", "params": granted | meta})

    def tell(self) -> None:
        for uri, listen_id in list(self.subscribed.items()):
            meta = {} if self.era == "legacy" else {"_meta": {META + "subscriptionId": listen_id}}
            send({"method": "notifications/resources/updated", "params": {"uri": uri} | meta})

    def interview(self, message: dict, params: dict) -> None:
        marker, meta = params["arguments"]["marker"], params.get("_meta") or {}
        if self.era == "modern":
            if "inputResponses" in params:
                assert params["requestState"] == marker
                self.succeed(message, {"content": [], "structuredContent": params["inputResponses"]})
                return
            self.log(meta.get(META + "logLevel"), params, marker)
            wanted = {"inputRequests": questions(marker), "requestState": marker}
            self.succeed(message, {"resultType": "input_required"} | wanted)
            return
        self.log(self.level, params, marker)
        key = json.dumps(message["id"])
        self.waiting[key] = {"request": message, "told": {}}
        for kind, question in questions(marker).items():
            name = f"{kind}-{key}"
            self.asked[name] = (key, kind)
            send({"id": name} | question)

    def log(self, floor: str | None, params: dict, marker: str) -> None:
        if floor is None or LEVELS.index(floor) > LEVELS.index("info"):
            return
        for number in range(params["arguments"].get("logs", 1)):
            data = {"marker": marker, "number": number}
            send({"method": "notifications/message", "params": {"level": "info", "data": data}})

    def told(self, message: dict) -> None:
        key, kind = self.asked.pop(message.get("id"), ("", ""))
        if key not in self.waiting:
            return
        call = self.waiting[key]
        call["told"][kind] = message.get("result", {"error": message.get("error")})
        if len(call["told"]) == len(questions("")):
            del self.waiting[key]
            self.succeed(call["request"], {"content": [], "structuredContent": call["told"]})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--era", choices=("legacy", "dual", "modern"), default="dual")
    interviewer = Interviewer(parser.parse_args().era)
    for line in sys.stdin.buffer:
        interviewer.receive(json.loads(line))


if __name__ == "__main__":
    main()
