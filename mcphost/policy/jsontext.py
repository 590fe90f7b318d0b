"""Strict JSON with the place of every value, for client files that a policy includes.

The standard library's decoder tells no places and keeps the last of two equal keys; PyYAML stumbles over
tabs and surrogate pairs. So the few lines of grammar (RFC 8259) are here, and the standard library reads
the strings.
"""

import bisect
import json
import re
from collections.abc import Iterator

from mcphost.errors import PolicyInvalid
from mcphost.policy.document import MAX_DEPTH, MAX_NODES, Document, plain_value
from mcphost.policy.faults import Fault
from mcphost.policy.files import check_encodable
from mcphost.policy.places import KeyPath, Place, Places

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_WORD = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")


def read_json(text: str, *, file: str) -> Document:
    """The document in `text`, which must be one JSON object.

    Raises:
        PolicyInvalid: the text is no JSON, or goes over a bound.
    """
    return _Reader(text, file).read()


class _Reader:
    """One pass over the text; `_at` is the offset of the next character."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._at = 0
        self._nodes = 0
        self._document = Document(Places(file))
        self._line_starts = [0, *(found.end() for found in re.finditer("\r\n|\r|\n", text))]

    def read(self) -> Document:
        if self._peek() != "{":
            raise self._stop("the file must be a JSON object")
        self._object((), self._document.tree)
        if self._peek():
            raise self._stop("nothing may follow the JSON object")
        return self._document

    def _value(self, path: KeyPath) -> object:
        start = self._peek()
        self._count(depth=len(path))
        self._document.places.values[path] = self._place()
        if start == "{":
            return self._object(path, {})
        if start == "[":
            return [self._value((*path, index)) for index in self._items("]")]
        if start == '"':
            return self._string(path)
        return plain_value(self._take(_WORD, "a value is expected here"))

    def _object(self, path: KeyPath, tree: dict[str, object]) -> dict[str, object]:
        keys = self._document.places.keys
        for _ in self._items("}"):
            place = self._place()
            key = self._string(path)
            self._expect(":")
            member = (*path, key)
            if member in keys:
                # The first value stays, and the place moves on so that the error points at the second.
                fault = Fault(f"the key is written twice; first at {keys[member]}", on_key=True)
                keys[member] = place
                self._document.blame(member, fault)
                self._value((*path, key, "again"))
            else:
                keys[member] = place
                tree[key] = self._value(member)
        return tree

    def _items(self, closing: str) -> Iterator[int]:
        """Once for each item of an array or member of an object; the caller reads it in between."""
        self._at += 1
        index = 0
        while self._peek() != closing:
            if index:
                self._expect(",")
                self._peek()
            yield index
            index += 1
        self._at += 1

    def _string(self, path: KeyPath) -> str:
        self._count(depth=len(path))
        place = self._place()
        try:
            text = json.loads(self._take(_STRING, "a string in double quotes is expected here"))
        except json.JSONDecodeError as error:
            raise self._document.stop(place, "the string holds an escape that JSON does not know") from error
        try:
            check_encodable(text)
        except Fault as fault:
            raise self._document.stop(place, fault.message) from fault
        return str(text)

    def _expect(self, character: str) -> None:
        if self._peek() != character:
            raise self._stop(f"`{character}` is expected here")
        self._at += 1

    def _take(self, pattern: re.Pattern[str], otherwise: str) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self._stop(otherwise)
        self._at = found.end()
        return found[0]

    def _peek(self) -> str:
        """The next character that is no space; empty at the end."""
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return self._text[self._at : self._at + 1]

    def _count(self, *, depth: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._stop(f"a file may hold at most {MAX_NODES} values")
        if depth > MAX_DEPTH:
            raise self._stop(f"values may be nested at most {MAX_DEPTH} deep")

    def _stop(self, message: str) -> PolicyInvalid:
        if self._text.startswith(("//", "/*"), self._at):
            message = "JSON has no comments"
        return self._document.stop(self._place(), f"not valid JSON: {message}")

    def _place(self) -> Place:
        line = bisect.bisect_right(self._line_starts, self._at)
        return Place(self._document.places.file, line, self._at - self._line_starts[line - 1] + 1)
