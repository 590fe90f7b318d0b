"""A strict reading of JSON-RPC that owes nothing to the product's own reader.

Numbers stay as they were spelled, and objects keep their members in order, doubled ones too, except where the protocol
cuts a message apart: there of two members with one name the last one counts.
"""

import json
from typing import Any


class Number(str):
    """A number as it was spelled; never equal to a string."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number) and str.__eq__(self, other)

    __hash__ = str.__hash__


class Members(list[tuple[str, Any]]):
    """An object's members in order."""

    def last(self) -> dict[str, Any]:
        return dict(self)


def read(data: bytes) -> Any:
    """The value, or `ValueError`/`RecursionError` for what is no JSON in UTF-8."""
    text = data.decode()
    value = json.loads(
        text, object_pairs_hook=Members, parse_int=Number, parse_float=Number, parse_constant=_no_constant
    )
    json.dumps(value, ensure_ascii=False).encode()  # a surrogate alone is no text
    return value


def members(value: Any) -> dict[str, Any]:
    """An object that the protocol cuts apart; anything else has no members."""
    return value.last() if isinstance(value, Members) else {}


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
