"""Pydantic's errors, in our words and with their places."""

import re
from collections.abc import Iterator, Mapping
from typing import get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mcphost.errors import Problem
from mcphost.policy.document import CANONICAL_INTEGER, Document
from mcphost.policy.faults import Fault, Faults, nearest
from mcphost.policy.places import KeyPath

# Pydantic's marks in a location for the key of a mapping, as opposed to its value.
_KEY_MARK = "[key]"

# A default that depends on a field which is wrong itself: no second mistake.
_CONSEQUENCES = frozenset({"default_factory_not_called"})

# One of the values in Pydantic's list of what a literal may be.
_LITERAL = r"'([^']*)'|([0-9]+|True)"

_MESSAGES: Mapping[str, str] = {
    "string_type": "text is expected",
    "int_type": "a whole number is expected",
    "int_from_float": "a whole number is expected",
    "float_type": "a duration is expected",
    "bool_type": "true or false is expected",
    "tuple_type": "a list is expected",
    "dict_type": "a mapping is expected",
    "mapping_type": "a mapping is expected",
    "dataclass_exact_type": "a text is expected",
    "missing": "is required",
}
_TEMPLATES: Mapping[str, str] = {
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "string_too_long": "may have at most {max_length} characters",
    "string_pattern_mismatch": "must have the form {pattern}",
    "too_long": "may have at most {max_length} items",
}


def translate(
    error: ValidationError, document: Document, model: type[BaseModel]
) -> dict[KeyPath, list[Problem]]:
    """The problems behind the error, by the path of the value that each is about."""
    found: dict[KeyPath, list[Problem]] = {}
    for detail in error.errors(include_url=False, include_input=False):
        if detail["type"] in _CONSEQUENCES:
            continue
        on_key = _KEY_MARK in detail["loc"]
        base = tuple(part for part in detail["loc"] if part != _KEY_MARK)
        for fault in _faults(detail, base, _value_at(document.tree, base), model):
            path = (*base, *fault.at)
            if not document.is_broken(path):
                found.setdefault(path, []).append(_problem(document, path, fault, on_key=on_key))
    return found


def keys_at(model: type[BaseModel], path: KeyPath) -> tuple[str, ...]:
    """The keys that the model allows at this path; none where it allows any, or no mapping at all."""
    at = model_at(model, path)
    return tuple(field.alias or name for name, field in at.model_fields.items()) if at else ()


def model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """The model of the value at this path, if it is one."""
    kind: object = model
    for part in path:
        kind = _child(kind, part)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _problem(document: Document, path: KeyPath, fault: Fault, *, on_key: bool) -> Problem:
    fault.on_key = fault.on_key or on_key
    return document.places.problem(path, fault, ... if fault.on_key else _value_at(document.tree, path))


def _faults(detail: ErrorDetails, path: KeyPath, value: object, model: type[BaseModel]) -> Iterator[Fault]:
    kind, context = detail["type"], detail.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, Faults):
        yield from cause.faults
    elif isinstance(cause, Fault):
        yield cause
    elif kind == "extra_forbidden":
        known = keys_at(model, path[:-1])
        near = nearest(str(path[-1]), known)
        allowed = None if near else ", ".join(known)
        yield Fault("unknown key", allowed=allowed, suggestion=near, on_key=True)
    elif kind == "literal_error":
        words = [text or other.lower() for text, other in re.findall(_LITERAL, context["expected"])]
        near = nearest(str(value), words)
        yield Fault("is not one of the values", allowed=", ".join(words), suggestion=near)
    elif kind == "model_type":
        yield Fault("a mapping is expected", allowed=", ".join(keys_at(model, path)))
    elif kind == "int_type" and isinstance(value, str) and CANONICAL_INTEGER.fullmatch(value):
        yield Fault("a number is written without quotes", suggestion=value)
    elif kind in _TEMPLATES:
        yield Fault(_TEMPLATES[kind].format_map(context))
    else:
        yield Fault(_MESSAGES.get(kind, f"is not usable ({kind})"))


def _value_at(tree: object, path: KeyPath) -> object:
    """The value as read from the file, or `...` where none was written."""
    for part in path:
        try:
            tree = tree[part]  # type: ignore[index]  # whatever it is, a wrong index ends the search
        except (LookupError, TypeError):
            return ...
    return tree


def _child(kind: object, part: str | int) -> object:
    """The annotation of what a value of this kind holds under a key or index."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = (field for name, field in kind.model_fields.items() if (field.alias or name) == part)
        return next((field.annotation for field in fields), None)
    arguments = get_args(kind)
    if get_origin(kind) is tuple:
        return arguments[0]
    return arguments[1] if len(arguments) == 2 else None  # noqa: PLR2004 - key and value of a mapping
