"""Where every key and value of a policy was written, and how that is shown.

A path is the tuple of keys and indices from the top of the policy down to a value. Entries that came from
an included file have the same paths as if they stood in the policy, and places in their own file.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mcphost.errors import Problem
from mcphost.policy.faults import Fault

_KINDS: Mapping[type, str] = {dict: "a mapping", list: "a list", type(None): "nothing"}

KeyPath = tuple[str | int, ...]

# A value is shown in an error up to this many characters: enough to recognise it.
_SHOWN_CHARACTERS = 60

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

# Below these keys only the named leaves are ever shown. Elsewhere a policy holds no credential, but one
# pasted by mistake beside a reference (`secrets: {github: ghp_...}`) must not end up in a log either.
_CONFIDENTIAL = frozenset({"env", "args", "tokens", "secrets", "headers"})
_SHOWN_LEAVES = frozenset({"id", "expires", "generate"})


class Place(NamedTuple):
    """A point in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(slots=True)
class Places:
    """The place of each key and each value of one policy, included files too."""

    file: str
    values: dict[KeyPath, Place] = field(default_factory=dict)
    keys: dict[KeyPath, Place] = field(default_factory=dict)

    def of(self, path: KeyPath, *, on_key: bool = False) -> Place:
        """The place of the value at `path`, or of the nearest thing around it that was written."""
        first, second = (self.keys, self.values) if on_key else (self.values, self.keys)
        while path:
            place = first.get(path) or second.get(path)
            if place is not None:
                return place
            path = path[:-1]
            # What encloses a missing key is best pointed at by its own key.
            first, second = self.keys, self.values
        return self.values.get((), Place(self.file, 1, 1))

    def adopt(self, other: "Places", part: str, names: Collection[str]) -> None:
        """Take over from another file's places those of the named entries of a part, and all below them."""
        for mine, theirs in ((self.values, other.values), (self.keys, other.keys)):
            mine.update(
                {
                    at: place
                    for at, place in theirs.items()
                    if at[:1] == (part,) and at[1:2] and at[1] in names
                }
            )

    def problem(self, path: KeyPath, fault: Fault, value: object = ...) -> Problem:
        """The fault at its place. `value` is shown unless it could be a credential, and no suggestion then quotes it."""
        place = self.of(path, on_key=fault.on_key)
        hidden = is_confidential(path)
        shown = None if value is ... or hidden else show_value(value)
        quotes = isinstance(value, str) and value.rstrip("/") in (fault.suggestion or "")
        also = f"; see {show_path(fault.also)} at {self.of(fault.also)}" if fault.also else ""
        return Problem(
            place.file,
            place.line,
            place.column,
            show_path(path),
            fault.message + also,
            shown,
            fault.allowed,
            None if hidden and quotes else fault.suggestion,
        )


def is_confidential(path: KeyPath) -> bool:
    """Whether the value at `path` could be a credential and is therefore never shown."""
    return any(part in _CONFIDENTIAL for part in path) and path[-1] not in _SHOWN_LEAVES


def show_path(path: KeyPath) -> str:
    """`tenants.acme.tokens[0].id`; keys with other characters are quoted."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        elif _BARE_KEY.fullmatch(part):
            shown += f".{part}" if shown else part
        else:
            shown += f"[{_quote(part)}]"
    return shown


def show_value(value: object) -> str:
    """A value as it reads in the file, shortened; what is not a scalar only by its kind."""
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return _KINDS.get(type(value), str(value))


def _quote(text: str) -> str:
    shortened = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
    # JSON's escapes keep control characters of a hostile file away from the terminal.
    return json.dumps(shortened, ensure_ascii=not shortened.isprintable())
