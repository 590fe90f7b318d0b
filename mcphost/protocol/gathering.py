"""A modern client in front of a legacy server: the server's own requests become questions inside one result.

The server waits for each of its answers; the client comes back with some of them, or none. Every question has a key
of ours, told once and never used again in the call, so that an answer finds exactly the question it was given to.
Source: 2025-11-25, client; 2026-07-28, basic/patterns/mrtr.
"""

from collections.abc import Mapping
from typing import Final, Generic, Protocol, TypeVar

from msgspec import Raw

from mcphost.protocol import jsonrpc
from mcphost.protocol.inputs import MAX_QUESTIONS, InputRequest
from mcphost.protocol.jsonrpc import EMPTY_OBJECT, Fields

# Questions that one call may put in all; one that asks for ever must not keep its process for ever.
MAX_IN_ALL: Final = 100

# Parts of a question that mean nothing to a modern client: the id of an elicitation, a task's term, a progress token.
_LEGACY_ONLY: Final = ("elicitationId", "task")


class Asked(Protocol):
    """A question as the server put it."""

    method: str
    params: Raw


Q = TypeVar("Q", bound=Asked)


class Gathering(Generic[Q]):
    """The open questions of one call, by key. Q is whatever the caller answers them with."""

    def __init__(self) -> None:
        self._open: dict[str, Q] = {}
        self.in_all = 0

    def __repr__(self) -> str:
        return f"<Gathering {len(self._open)} open of {self.in_all}>"

    def __len__(self) -> int:
        """Open questions."""
        return len(self._open)

    def add(self, question: Q) -> bool:
        """Keep a question until it is answered or withdrawn; False if the call may put no more."""
        if len(self._open) >= MAX_QUESTIONS or self.in_all >= MAX_IN_ALL:
            return False
        self.in_all += 1
        self._open[f"question-{self.in_all}"] = question
        return True

    def withdraw(self, question: Q) -> None:
        """Forget a question that needs no answer any more. Idempotent."""
        for key, each in self._open.items():
            if each is question:
                del self._open[key]
                return

    def shown(self) -> Mapping[str, InputRequest]:
        """Every open question as the client is to see it, oldest first."""
        return {
            key: InputRequest(each.method, _modern_params(each.params)) for key, each in self._open.items()
        }

    def take(self, responses: Fields) -> list[tuple[Q, Raw]]:
        """The questions that these responses answer, each with its answer; they are open no more.

        What answers nothing, or is no object, is passed over: the question stays open and is put again.
        """
        taken = []
        for key, response in responses.items():
            if key in self._open and bytes(response).startswith(b"{"):
                taken.append((self._open.pop(key), response))
        return taken

    def drain(self) -> list[Q]:
        """The open questions, which are open no more."""
        left = list(self._open.values())
        self._open.clear()
        return left


def _modern_params(raw: Raw) -> Raw:
    members = jsonrpc.fields(raw)
    changed = not bytes(raw)
    for key in _LEGACY_ONLY:
        changed |= members.pop(key, None) is not None
    if "_meta" in members:
        meta = jsonrpc.fields(members.get("_meta", EMPTY_OBJECT))
        if meta.pop("progressToken", None) is not None:
            changed = True
            members["_meta"] = jsonrpc.raw(meta)
    return jsonrpc.raw(members) if changed else raw
