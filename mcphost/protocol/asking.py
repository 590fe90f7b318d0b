"""What servers ask of clients: for the user's answer, a model's, or the roots; and who can be asked what.

A legacy server sends a request of its own while it works on one of ours, a modern one answers `input_required`
and is asked again. What may be asked is the same: what the client declared. Its declaration is reduced here to
what decides, so that clients of one kind compare equal and their number of kinds is small.

Sources: 2025-11-25 and 2026-07-28, client/elicitation, client/sampling, client/roots; 2026-07-28, basic/patterns/mrtr.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from msgspec import Raw

from mcphost.protocol import jsonrpc
from mcphost.protocol.jsonrpc import EMPTY_OBJECT, Fields

# Each method that a server may send to a client, with the capability by which the client agrees to it.
ASKS: Final[Mapping[str, str]] = {
    "elicitation/create": "elicitation",
    "sampling/createMessage": "sampling",
    "roots/list": "roots",
}

_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "elicitation": ("form", "url"),
    "sampling": ("context", "tools"),
    "roots": (),
}


@dataclass(frozen=True, slots=True)
class Declared:
    """What a client can be asked: each capability with its parts, in one order. Hashable: a fingerprint."""

    parts: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @classmethod
    def read(cls, capabilities: Raw | None) -> "Declared":
        """The part of a client's capabilities that decides; what is malformed declares nothing.

        `elicitation: {}` means forms only (client/elicitation, "Capabilities").
        """
        members = _members(capabilities)
        found = []
        for name, known in _PARTS.items():
            raw = members.get(name)
            if raw is None or not bytes(raw).startswith(b"{"):
                continue
            inner = _members(raw)
            parts = tuple(part for part in known if bytes(inner.get(part, b"")).startswith(b"{"))
            if name == "elicitation" and not parts:
                parts = ("form",)
            found.append((name, parts))
        return cls(tuple(found))

    @property
    def raw(self) -> Raw:
        """The capabilities to declare to a server in a client's place."""
        return jsonrpc.raw({name: {part: {} for part in parts} for name, parts in self.parts})

    def permits(self, method: str, params: Raw) -> bool:
        """Whether a server's request may be put to the client."""
        own = dict(self.parts).get(ASKS.get(method, ""))
        if own is None:
            return False
        wanted = _wanted(method, params)
        return wanted is None or wanted in own

    @staticmethod
    def required(method: str, params: Raw) -> dict[str, dict[str, dict[str, object]]]:
        """The capabilities that a client would need for a request, as error -32021 names them."""
        wanted = _wanted(method, params)
        # A form is what `elicitation: {}` stands for, so it needs no name of its own.
        parts: dict[str, dict[str, object]] = {} if wanted in {None, "form"} else {str(wanted): {}}
        return {ASKS[method]: parts}


NOTHING: Final = Declared()


def _wanted(method: str, params: Raw) -> str | None:
    """The part of the capability that a request stands on; None if the capability alone is enough."""
    members = _members(params)
    if method == "elicitation/create":
        return "url" if jsonrpc.text(members.get("mode")) == "url" else "form"
    if method == "sampling/createMessage" and ("tools" in members or "toolChoice" in members):
        return "tools"
    return None


def _members(raw: Raw | None) -> Fields:
    try:
        return jsonrpc.fields(raw if raw is not None else EMPTY_OBJECT)
    except jsonrpc.Malformed:
        return {}
