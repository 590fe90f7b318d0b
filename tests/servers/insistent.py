#!/usr/bin/env python3
"""A stdio MCP server of the older era whose one tool asks in ways that no good server does.

`insist(how)`: `often` asks again every few milliseconds without waiting for an answer, until it is cancelled; `many`
asks more at once than anybody answers, and counts what was refused; `withdraw` takes its question back after a while
and answers without it; `report` tells of its progress before it asks, while it waits, and after the answer; `deaf`
never answers. With `--shy` it does not shake hands with a client that can be asked something. Standard library only.
"""

import json
import os
import select
import sys
import time

FORM = {"type": "object", "properties": {"answer": {"type": "string"}}}
TOOLS = [{"name": "insist", "inputSchema": {"type": "object"}}]
MANY = 40
OFTEN_SECONDS = 0.005
PATIENCE_SECONDS = 0.15


def send(message: dict) -> None:
    rest = memoryview(json.dumps({"jsonrpc": "2.0"} | message).encode() + b"\n")
    while rest:
        rest = rest[os.write(1, rest) :]


class Server:
    def __init__(self) -> None:
        self.call: dict = {}
        self.how = ""
        self.asked = 0
        self.heard: list[dict] = []
        self.alarm = float("inf")

    def ask(self) -> None:
        self.asked += 1
        params = {"message": f"{self.how} {self.asked}", "requestedSchema": FORM}
        send({"id": f"q{self.asked}", "method": "elicitation/create", "params": params})

    def progress(self, done: int) -> None:
        token = self.call["params"].get("_meta", {}).get("progressToken")
        if token is not None:
            params = {"progressToken": token, "progress": done}
            send({"method": "notifications/progress", "params": params})

    def answer(self, text: str) -> None:
        send({"id": self.call["id"], "result": {"content": [{"type": "text", "text": text}]}})
        self.alarm, self.how = float("inf"), ""

    def begin(self, call: dict) -> None:
        self.call, self.how = call, call["params"]["arguments"]["how"]
        self.asked, self.heard = 0, []
        self.progress(1)
        for _ in range(MANY if self.how == "many" else 1):
            self.ask()
        self.progress(2)
        if self.how in {"often", "withdraw"}:
            self.alarm = time.monotonic() + (OFTEN_SECONDS if self.how == "often" else PATIENCE_SECONDS)

    def ring(self) -> None:
        if self.how == "often":
            self.ask()
            self.alarm = time.monotonic() + OFTEN_SECONDS
        else:
            send({"method": "notifications/cancelled", "params": {"requestId": "q1"}})
            self.answer("without an answer")

    def hear(self, reply: dict) -> None:
        self.heard.append(reply)
        if self.how == "report":
            self.progress(3)
            self.answer(json.dumps(reply.get("result")))
        elif self.how == "many" and len(self.heard) == MANY:
            refused = sum("error" in each for each in self.heard)
            self.answer(f"{refused} of {MANY} refused")

    def receive(self, message: dict) -> None:
        method, params = message.get("method"), message.get("params") or {}
        if method is None:
            self.hear(message)
        elif method == "initialize" and "--shy" in sys.argv and params["capabilities"]:
            pass
        elif method == "initialize":
            facts = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
            send(
                {"id": message["id"], "result": facts | {"serverInfo": {"name": "insistent", "version": "1"}}}
            )
        elif method == "tools/list":
            send({"id": message["id"], "result": {"tools": TOOLS}})
        elif method == "tools/call":
            self.begin(message)
        elif method == "notifications/cancelled":
            self.alarm, self.how = float("inf"), ""
        elif "id" in message:
            send({"id": message["id"], "error": {"code": -32601, "message": "no such method"}})

    def serve(self) -> None:
        held = b""
        while True:
            left = self.alarm - time.monotonic()
            timeout = None if left == float("inf") else max(0.0, left)
            if not select.select([0], [], [], timeout)[0]:
                self.ring()
                continue
            data = os.read(0, 65536)
            if not data:
                return
            *lines, held = (held + data).split(b"\n")
            for line in lines:
                self.receive(json.loads(line))


if __name__ == "__main__":
    Server().serve()
