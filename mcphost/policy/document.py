"""A policy as text made into mappings, lists and scalars, before anybody asks what it means."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from mcphost.errors import PolicyInvalid, Problem
from mcphost.policy.faults import Fault
from mcphost.policy.places import KeyPath, Place, Places

# Bounds on what a file may hold. A policy for a thousand tenants stays far below each of them.
MAX_FILE_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_NODES = 100_000

# A decimal integer in the one spelling that reads back as itself; 18 digits fit in 64 bits.
CANONICAL_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")


@dataclass(slots=True)
class Document:
    """The values of one file, with the place of each, and what was already found wrong.

    `broken` holds the paths whose values could not be read: nothing more is said about them.
    """

    places: Places
    tree: dict[str, object] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: set[KeyPath] = field(default_factory=set)

    def blame(self, path: KeyPath, fault: Fault, value: object = ...) -> None:
        """Note a fault at the place of `path` and go on."""
        self.problems.append(self.places.problem(path, fault, value))

    def note(self, place: Place, message: str) -> None:
        """Note what is wrong at a place that belongs to no path."""
        self.problems.append(Problem(place.file, place.line, place.column, "", message))

    def is_broken(self, path: KeyPath) -> bool:
        """Whether `path` or something around it could not be read."""
        return any(path[:length] in self.broken for length in range(len(path) + 1))

    def refuse_nothing(self, nullable: Collection[KeyPath]) -> None:
        """Note each key without a value: was it forgotten, or is there meant to be none?"""
        fault = Fault("nothing is written here; give a value or remove the key")
        for path in _empty_paths((), self.tree):
            if path not in nullable and not self.is_broken(path):
                self.blame(path, fault)
                self.broken.add(path)

    def stop(self, place: Place, message: str) -> PolicyInvalid:
        """The error to raise where reading cannot go on: all found so far, and this."""
        self.note(place, message)
        return self.invalid()

    def invalid(self) -> PolicyInvalid:
        """Everything found, in the order of the places; the policy's own file before what it includes."""
        own = self.places.file
        found = set(self.problems)
        return PolicyInvalid(
            sorted(found, key=lambda it: (it.file != own, it.file, it.line, it.column, it.path, it.message))
        )


def plain_value(text: str) -> object:
    """What an unquoted scalar means: `null`, a boolean, an integer, or else the text as written.

    Nothing else is guessed: `no`, `010`, `1.10`, `1e3`, `12:30`, `True` and `2027-06-30` stay strings.
    """
    if text in {"", "null"}:
        return None
    if text in {"true", "false"}:
        return text == "true"
    return int(text) if CANONICAL_INTEGER.fullmatch(text) else text


def _empty_paths(path: KeyPath, value: object) -> Iterator[KeyPath]:
    if value is None:
        yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _empty_paths((*path, key), part)
