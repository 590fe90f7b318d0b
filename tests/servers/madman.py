#!/usr/bin/env python3
"""The interviewer gone mad: between its proper lines it writes changed copies of them, and what comes to its mind.

`--seed N` decides what and when. A proper line carries its caller's marker and is meant for its caller alone; whatever
else is written carries none, so a marker that is seen by another client was brought there by the runtime. Ids, tokens
and subscription ids of others, and of nobody, are among the changes. A call that was answered so has had its answer: nothing
proper is written for it any more, since to whom that should go only the server itself would know. `--era` as in
`interviewer.py`.
"""

import json
import os
import random
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import interviewer

MARKER = re.compile(r"mark-[0-9a-f]{16}")
IDS = (None, True, -1, 0, 1, 2, 3, 7, 10**6, 2**63, 10**40, 1.5, "", "1", "question", [], {}, "\ud800")
METHODS = (
    "ping", "roots/list", "elicitation/create", "sampling/createMessage", "tools/list", "notifications/message",
    "notifications/progress", "notifications/cancelled", "notifications/tools/list_changed", "notifications/tasks",
    "notifications/resources/updated", "notifications/elicitation/complete", "notifications/none", "", "initialize",
)  # fmt: skip
VALUES = (
    None,
    True,
    0,
    -1,
    10**30,
    "",
    "a" * 3000,
    "\r",
    "\u2028",
    [],
    {},
    [[]],
    [1] * 50,
    {"a": {}},
    "input_required",
)
LINES = (
    b"",
    b"   ",
    b"{",
    b"[]",
    b"\xff\xfe",
    b"null",
    b"\0",
    b"[" * 3000,
    b'{"jsonrpc":"2.0"}',
    b"\r",
    b"x" * 70_000,
)
TRUE_ANSWER = 0.97  # how often a proper line is written at all; a call without one ends by its deadline


class Madman:
    """Writes in place of `interviewer.send`."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.ids = list(IDS)
        self.said: list[str] = []
        self.current: object = None  # the call that is worked on
        self.answered: set[int] = set()  # calls that were answered with something else

    def send(self, message: dict) -> None:
        if self.current in self.answered or message.get("id") in self.answered:
            return
        line = json.dumps({"jsonrpc": "2.0"} | message)
        self.said = [*self.said[-30:], MARKER.sub("mark-none", line)]
        if isinstance(message.get("id"), int):
            self.ids = [*IDS, *self.ids[len(IDS) :][-20:], message["id"]]
        self.rave()
        if self.current in self.answered or message.get("id") in self.answered:
            return
        if self.chance.random() < TRUE_ANSWER or "capabilities" in message.get("result", ()):
            self.write(line.encode())
        self.rave()

    def rave(self) -> None:
        while self.chance.random() < 0.25:
            match self.chance.randrange(8):
                case 0:
                    line = self.chance.choice(LINES)
                case 1:
                    line = self.of_bytes(self.chance.choice(self.said).encode())
                case _:
                    line = json.dumps(self.changed(json.loads(self.chance.choice(self.said)), 3)).encode()
            for each in line.split(b"\n"):
                self.note(each)
            self.write(line)

    def note(self, line: bytes) -> None:
        """Remember whose answer it may be taken for."""
        with suppress(ValueError, RecursionError):
            message = json.loads(line)
            if isinstance(message, dict) and type(message.get("id")) is int and message.get("method") is None:
                self.answered.add(message["id"])

    def working_on(self, request: Callable) -> Callable:
        """The interviewer's own `request`, told here."""

        def told(server: object, message: dict, method: str, params: dict) -> None:
            self.current = message["id"]
            request(server, message, method, params)
            self.current = None

        return told

    def changed(self, value: object, times: int) -> object:
        if not isinstance(value, dict) or not value:
            return self.chance.choice(VALUES)
        for _ in range(self.chance.randint(1, times)):
            key = self.chance.choice(list(value))
            match self.chance.randrange(6):
                case 0:
                    value = {name: each for name, each in value.items() if name != key}
                case 1:
                    value = value | {
                        self.chance.choice(("id", "method", "result", "error", "params", "_meta")): {}
                    }
                case _:
                    value = value | {key: self.other(key, value[key])}
            if not value:
                break
        return value

    def other(self, key: str, value: object) -> object:
        if key in ("id", "progressToken", "requestId", "io.modelcontextprotocol/subscriptionId"):
            return self.chance.choice(self.ids)
        if key == "method":
            return self.chance.choice(METHODS)
        return self.changed(value, 2)

    def of_bytes(self, line: bytes) -> bytes:
        changed = bytearray(line)
        for _ in range(self.chance.randint(1, 4)):
            at = self.chance.randrange(len(changed) + 1)
            match self.chance.randrange(3):
                case 0:
                    changed[at:at] = self.chance.choice(
                        (b"\r", b"\0", b"\xff", b'"', b"}", b"9" * 50, b"\\u0000", b"\n")
                    )
                case 1:
                    del changed[at : at + self.chance.randint(1, 20)]
                case _:
                    changed[at : at + 1] = bytes([self.chance.randrange(256)])
        return bytes(changed)

    def write(self, line: bytes) -> None:
        """Whole, or in two pieces with a moment between them."""
        data = line + b"\n"
        cut = self.chance.randrange(len(data)) if self.chance.random() < 0.2 else 0
        for piece in (data[:cut], data[cut:]):
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(1, rest) :]
            if cut:
                time.sleep(0.002)


def main() -> None:
    at = sys.argv.index("--seed")
    madman = Madman(int(sys.argv[at + 1]))
    del sys.argv[at : at + 2]
    interviewer.send = madman.send
    interviewer.Interviewer.request = madman.working_on(interviewer.Interviewer.request)
    interviewer.main()


if __name__ == "__main__":
    main()
