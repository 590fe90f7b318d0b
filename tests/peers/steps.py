"""What the Python clients here have in common: a task comes in, what was seen goes out, both as JSON.

A task comes in the environment: `visits`, and what else the client wants to know. A visit is a `url`, a `token`, `steps`
and perhaps an `answer`, a step is a verb and its arguments. Each gives `{"got": ...}` or, when the client raised,
`{"error": {"code", "message"}}`; what is told is a list of those for each visit.

The verbs, as far as a client can do them, and what they give:

    version                      the revision spoken
    tools                        names of tools
    call NAME ARGUMENTS          {"text", "isError"}
    agent NAME ARGUMENTS         {"text", "tools"}: what a model that calls a tool is given and shown
    progress NAME ARGUMENTS      the progress that was reported during a call
    cancel NAME ARGUMENTS        whether a call was given up at its first progress
    resources | templates        URIs
    read URI                     the text
    prompts                      names of prompts
    prompt NAME ARGUMENTS        the texts of its messages
    complete PROMPT NAME VALUE   the values offered
    logs LEVEL NAME ARGUMENTS    the log messages that came during a call
    updated URI NAME ARGUMENTS   URIs reported as updated after a subscription and a call, the first one
    changed NAME ARGUMENTS       kinds of lists reported as changed after a call, the first one

In a visit with an `answer` the client says that it can be asked, and answers with it: in the one field of a form that is
required, as the text of a sample, and to the question for roots with `file:///ANSWER`.
"""

import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import anyio

TASK: dict[str, Any] = json.loads(os.environ["TASK"])
# Those of the visit.
HEADERS: dict[str, str] = {}
# Longer than anything here takes on a slow machine.
SECONDS = 25.0

Verbs = Mapping[str, Callable[..., Awaitable[Any]]]


def text_of(blocks: Any) -> str:
    """The text of content blocks, one below the other."""
    return "\n".join(getattr(block, "text", "") for block in blocks)


@dataclass
class Asked:
    """What the client answers when it is asked in this visit; None if it cannot be asked."""

    answer: str | None = None

    def form(self, schema: dict) -> dict[str, str]:
        """The answer to a form."""
        (name,) = schema["required"]
        return {name: str(self.answer)}

    @property
    def root(self) -> str:
        """The one root."""
        return f"file:///{self.answer}"


asked = Asked()


def told(error: Exception) -> dict:
    """What an error says; every client has classes of its own."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        (error,) = error.exceptions
    code = getattr(error, "code", None) or getattr(getattr(error, "error", None), "code", None)
    return {"code": code if isinstance(code, int) else None, "message": str(error) or repr(error)}


async def take(connect: Callable[[str], AbstractAsyncContextManager[Verbs]]) -> None:
    """Make all visits and tell what was seen."""
    seen: list[list[dict]] = []
    for visit in TASK["visits"]:
        seen.append([])
        asked.answer = visit["answer"]
        HEADERS["Authorization"] = f"Bearer {visit['token']}"
        async with connect(visit["url"]) as verbs:
            for verb, *arguments in visit["steps"]:
                act = verbs[verb]
                try:
                    with anyio.fail_after(SECONDS):
                        seen[-1].append({"got": await act(*arguments)})
                except Exception as error:
                    seen[-1].append({"error": told(error)})
    json.dump(seen, sys.stdout)
