"""`Mcp-Param-*`: headers that mirror arguments of a tool, as the tool's schema asks for with `x-mcp-header`.

Whoever reads the body compares the two, since something between it and the client may have gone by the header
(2026-07-28, basic/transports/streamable-http, "Custom Headers from Tool Parameters"). A tool with an annotation that
breaks the rules there is no tool to a client over HTTP.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Raw

from mcphost.errors import HEADER_MISMATCH, DownstreamProtocolError
from mcphost.protocol import jsonrpc
from mcphost.protocol.headertext import BadHeaderText, decoded
from mcphost.protocol.jsonrpc import EMPTY_OBJECT, Fields

ANNOTATION: Final = "x-mcp-header"

_KINDS: Final = frozenset({"string", "integer", "boolean"})
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
_INTEGER: Final = re.compile(r"(-?[0-9]{1,40})(?:\.0{1,20})?")  # `42` and `42.0` are one number

# Keywords whose values are data, and those whose values are schemas by names (JSON Schema 2020-12).
_DATA: Final = frozenset({"const", "default", "enum", "examples", "required", ANNOTATION})
_NAMED: Final = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties"})


@dataclass(frozen=True, slots=True)
class Mirrored:
    """One argument that a header mirrors: the lower-case name behind `Mcp-Param-`, and where the argument stands."""

    header: str
    path: tuple[str, ...]


class InvalidAnnotation(Exception):
    """An `x-mcp-header` of a tool's schema breaks the rules; the text says which."""


def mirrored(schema: Raw | None) -> tuple[Mirrored, ...]:
    """The arguments that headers mirror, of a tool with this input schema.

    Raises:
        InvalidAnnotation: one annotation breaks the rules, and so the tool does.
    """
    if schema is None or not _speaks_of_headers(bytes(schema)):
        return ()  # nearly all: nothing is decoded for them
    try:
        decoded_schema = msgspec.json.decode(schema)
        found = list(_annotations(decoded_schema, ()))
    except (msgspec.DecodeError, RecursionError):
        raise InvalidAnnotation("the schema cannot be read") from None
    seen: set[str] = set()
    for each in found:
        if each.header in seen:
            raise InvalidAnnotation(f"two parameters share the header {each.header!r}")
        seen.add(each.header)
    return tuple(found)


def check(arguments: Raw | None, headers: Mapping[str, str], expected: Sequence[Mirrored]) -> Raw | None:
    """The arguments of a call whose headers mirror them, to be sent on in place of the given ones.

    Where a key that was looked at stands twice, only the value that was compared is left. `headers` by their
    lower-case names behind the prefix; others than the expected are nobody's business.

    Raises:
        DownstreamProtocolError: -32020, a header and its argument differ, or only one of them is there.
    """
    if not expected:
        return arguments
    try:
        members = jsonrpc.fields(EMPTY_OBJECT if arguments is None else arguments, "params.arguments")
        for each in expected:
            _compare(each, headers.get(each.header), _taken(members, each.path))
    except jsonrpc.Malformed as error:
        raise DownstreamProtocolError(error.code, str(error)) from None
    return None if arguments is None else jsonrpc.raw(members)


def _speaks_of_headers(schema: bytes) -> bool:
    """JSON may also spell the letters of a key by their numbers."""
    return ANNOTATION.encode() in schema or b"\\u00" in schema


def _annotations(schema: object, path: tuple[str, ...] | None) -> Iterator[Mirrored]:
    """Every annotation below a schema; `path` is None where no chain of `properties` leads."""
    if not isinstance(schema, dict):
        return
    if ANNOTATION in schema:
        yield _annotation(schema, path)
    for keyword, value in schema.items():
        if keyword == "properties" and isinstance(value, dict):
            for name, inner in value.items():
                yield from _annotations(inner, None if path is None else (*path, name))
        elif keyword in _NAMED and isinstance(value, dict):
            for inner in value.values():
                yield from _annotations(inner, None)
        elif keyword not in _DATA:
            for inner in value if isinstance(value, list) else [value]:
                yield from _annotations(inner, None)


def _annotation(schema: dict[str, object], path: tuple[str, ...] | None) -> Mirrored:
    if not path:
        raise InvalidAnnotation("it stands where no chain of `properties` leads")
    name = schema[ANNOTATION]
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise InvalidAnnotation("it is no name of a header")
    kind = schema.get("type")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InvalidAnnotation("its parameter is no string, integer or boolean")
    return Mirrored(name.lower(), path)


def _taken(members: Fields, path: tuple[str, ...]) -> Raw | None:
    """The value at a path, None where there is none. What was cut apart on the way is put together again."""
    name, *rest = path
    value = members.get(name)
    if value is None or bytes(value) == b"null":
        return None
    if not rest:
        return value
    if not bytes(value).startswith(b"{"):
        return None
    inner = jsonrpc.fields(value, f"the argument {name[:100]!r}")
    found = _taken(inner, tuple(rest))
    members[name] = jsonrpc.raw(inner)
    return found


def _compare(expected: Mirrored, text: str | None, value: Raw | None) -> None:
    header = f"Mcp-Param-{expected.header}"
    if value is None:
        if text is not None:
            raise _mismatch(f"the header {header} mirrors an argument that is not there")
        return
    if text is None:
        raise _mismatch(f"the header {header} is required, for its argument is there")
    try:
        said = decoded(text)
    except BadHeaderText as error:
        raise _mismatch(f"the header {header} {error}") from None
    if not _equal(said, value):
        raise _mismatch(f"the header {header} does not match its argument")


def _equal(said: str, value: Raw) -> bool:
    """Whether a header says what the argument is; integers are compared as numbers."""
    spelled = bytes(value)
    if spelled in {b"true", b"false"}:
        return said == spelled.decode()
    if spelled.startswith(b'"'):
        return said == jsonrpc.text(value)
    number = _INTEGER.fullmatch(spelled.decode())
    mirrored_number = _INTEGER.fullmatch(said)
    return number is not None and mirrored_number is not None and int(number[1]) == int(mirrored_number[1])


def _mismatch(why: str) -> DownstreamProtocolError:
    return DownstreamProtocolError(HEADER_MISMATCH, why)
