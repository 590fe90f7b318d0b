"""Strict YAML: the part of it that cannot be misread.

Left out, each with an error at its place: anchors, aliases, merge keys, tags, directives, several
documents, duplicate keys, keys that are not strings, tabs as indentation, and unquoted values that run over
several lines. Scalars stay as written (see `document.plain_value`). The grammar is PyYAML's parser; its
composer, resolver and constructors, where the misreadings of YAML 1.1 live, are not used.
"""

from collections.abc import Iterator
from typing import Protocol

import yaml

from mcphost.errors import PolicyInvalid
from mcphost.policy.document import MAX_DEPTH, MAX_NODES, Document, plain_value
from mcphost.policy.faults import Fault
from mcphost.policy.files import NotText, check_characters, check_encodable
from mcphost.policy.places import KeyPath, Place, Places

_QUOTE_STAR = 'a value that starts with * must be quoted: "*"'

_QUOTE_BANG = "a value that starts with ! must be quoted"


class _Mark(Protocol):
    """A point in the text as PyYAML counts it, from 0."""

    line: int
    column: int


def read_yaml(text: str, *, file: str) -> Document:
    """The document in `text`; `file` is the name used in every place.

    Flaws that leave the rest readable are collected in the document.

    Raises:
        PolicyInvalid: the text is no YAML, or goes over a bound.
    """
    document = Document(Places(file))
    try:
        check_characters(text)
    except NotText as error:
        raise document.stop(Place(file, error.line, error.column), str(error)) from error
    try:
        _Composer(document, yaml.parse(text, Loader=yaml.SafeLoader)).compose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise document.stop(_mark_place(file, mark), _explain(error)) from error
    return document


class _Composer:
    """Turns the parser's events into the tree of a document."""

    def __init__(self, document: Document, events: Iterator[yaml.Event]) -> None:
        self._document = document
        self._events = events
        self._file = document.places.file
        self._nodes = 0

    def compose(self) -> None:
        next(self._events)  # the start of the stream
        start = next(self._events)
        if not isinstance(start, yaml.DocumentStartEvent):
            raise self._document.stop(Place(self._file, 1, 1), "the file is empty")
        if start.version or start.tags:
            raise self._stop(start, "YAML directives are not read; remove the line")
        root = next(self._events)
        if not isinstance(root, yaml.MappingStartEvent):
            raise self._stop(root, "the file must be a mapping of keys to values")
        self._node(root, (), self._document.tree)
        next(self._events)  # the end of the document
        end = next(self._events)
        if not isinstance(end, yaml.StreamEndEvent):
            raise self._stop(end, "a policy is one document; remove what follows `---`")

    def _node(self, event: yaml.Event, path: KeyPath, tree: dict[str, object] | None = None) -> object:
        """The value that starts with `event`; a mapping is filled into `tree` where one is given."""
        self._document.places.values[path] = self._place(event)
        self._count(event, depth=len(path))
        if isinstance(event, yaml.AliasEvent):
            self._break(path, f"aliases are not read; {_QUOTE_STAR}")
            return None
        self._refuse_properties(event, path)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(path)
        return self._mapping(path, {} if tree is None else tree)

    def _list(self, path: KeyPath) -> list[object]:
        items: list[object] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, (*path, len(items))))
        return items

    def _mapping(self, path: KeyPath, tree: dict[str, object]) -> dict[str, object]:
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, path)
            value = next(self._events)
            if key is None:
                self._skip(value)
            else:
                self._document.places.keys[*path, key] = self._place(event)
                tree[key] = self._node(value, (*path, key))
        return tree

    def _key(self, event: yaml.Event, path: KeyPath) -> str | None:
        """The key, or None with a problem noted where its value is to be skipped."""
        self._count(event, depth=len(path) + 1)
        place = self._place(event)
        if not isinstance(event, yaml.ScalarEvent):
            self._skip(event)
            self._blame(place, path, "a key must be a string")
            return None
        key, plain = event.value, event.style is None
        if plain and key == "<<":
            self._blame(place, path, "merge keys are not read; write the keys out")
            self._document.broken.add(path)
            return None
        first = self._document.places.keys.get((*path, key))
        if first is not None:
            self._blame(place, (*path, key), f"the key is written twice; first at {first}")
            return None
        self._refuse_properties(event, (*path, key))
        if plain and not isinstance(plain_value(key), str):
            self._blame(place, (*path, key), "a key must be a string; quote it")
            self._document.broken.add((*path, key))
        return key

    def _scalar(self, event: yaml.ScalarEvent, path: KeyPath) -> object:
        if event.style is None and self._place(event).line != _mark_place(self._file, event.end_mark).line:
            self._break(path, "an unquoted value runs over several lines; check the indentation, or quote it")
        try:
            check_encodable(event.value)
        except Fault as fault:
            self._break(path, fault.message)
        return plain_value(event.value) if event.style is None else event.value

    def _refuse_properties(self, event: yaml.Event, path: KeyPath) -> None:
        if getattr(event, "anchor", None) is not None:
            self._blame(
                self._place(event), path, "anchors are not read; write the value out where it is used"
            )
        if getattr(event, "tag", None) is not None:
            self._blame(
                self._place(event), path, "tags are not read; a value that starts with ! must be quoted"
            )

    def _skip(self, event: yaml.Event) -> None:
        """Read past the node that starts with `event`."""
        depth = 0
        while True:
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            self._count(event, depth=depth)
            if depth == 0:
                return
            event = next(self._events)

    def _count(self, event: yaml.Event, *, depth: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._stop(event, f"a policy may hold at most {MAX_NODES} values")
        if depth > MAX_DEPTH:
            raise self._stop(event, f"values may be nested at most {MAX_DEPTH} deep")

    def _blame(self, place: Place, path: KeyPath, message: str) -> None:
        at = Places(place.file, values={path: place}, keys={path: place})
        self._document.problems.append(at.problem(path, Fault(message)))

    def _break(self, path: KeyPath, message: str) -> None:
        self._document.blame(path, Fault(message))
        self._document.broken.add(path)

    def _stop(self, event: yaml.Event, message: str) -> PolicyInvalid:
        return self._document.stop(self._place(event), message)

    def _place(self, event: yaml.Event) -> Place:
        return _mark_place(self._file, event.start_mark)


def _mark_place(file: str, mark: _Mark | None) -> Place:
    return Place(file, mark.line + 1, mark.column + 1) if mark else Place(file, 1, 1)


def _explain(error: yaml.MarkedYAMLError) -> str:
    """The parser's words, and the usual cause. Never the text of the line: it could hold a secret."""
    context, problem = error.context or "", error.problem or "not YAML"
    if "'\\t'" in problem:
        return "a tab stands where YAML allows only spaces"
    if "alias" in context:
        return _QUOTE_STAR
    if "tag" in context:
        return _QUOTE_BANG
    if "cannot start any token" in problem:
        return "a value that starts with this character must be quoted"
    if "mapping values are not allowed" in problem:
        return "a `:` is not expected here; check the indentation, and quote a value that holds `: `"
    return f"not valid YAML: {f'{context}, ' if context else ''}{problem}"
