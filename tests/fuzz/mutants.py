"""Changed copies of well-formed input, by bytes and, where it is JSON, by values. Seeded; nothing here tests."""

import json
import random
from collections.abc import Iterator
from contextlib import suppress

ODD = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 1e308, -0.5, "", "/", "..", "/..", "a" * 5000, "\0", "\ud800",
    "/proc/self/root", "-", "%s", "\U0001f600", [], {}, [[]], [None], {"": None}, [1] * 100, {"a": {"a": {}}}, "10" * 999,
)  # fmt: skip
TOKENS = (
    b"\0",
    b"\xff",
    b"\r\n",
    b"\r\n\r\n",
    b"{",
    b"}",
    b"[" * 50,
    b'"',
    b":",
    b"\x16\x03\x01",
    b"9" * 400,
    b"NaN",
    b"\xed\xa0\x80",
)
MOST_CHANGES = 6


def mutants(seeds: list[bytes], chance: random.Random) -> Iterator[bytes]:
    """Without end."""
    while True:
        data = chance.choice(seeds)
        if chance.random() < 0.6:
            with suppress(ValueError):
                yield by_value(data, chance)
                continue
        yield by_bytes(data, seeds, chance)


def by_value(data: bytes, chance: random.Random) -> bytes:
    """With some values of it replaced, removed, doubled or renamed. Raises `ValueError` for what is no JSON."""
    value = json.loads(data)
    for _ in range(chance.randint(1, MOST_CHANGES)):
        value = _changed(value, chance)
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _changed(value: object, chance: random.Random) -> object:
    if isinstance(value, dict) and value and chance.random() < 0.9:
        return _changed_object(value, chance)
    if isinstance(value, list) and value and chance.random() < 0.9:
        return _changed_array(value, chance)
    if isinstance(value, int) and chance.random() < 0.5:
        return value + chance.choice((-1, 1, 7, 2**32))
    return chance.choice(ODD)


def _changed_object(value: dict[str, object], chance: random.Random) -> dict[str, object]:
    key, what = chance.choice(list(value)), chance.randrange(12)
    if what == 0:
        return {name: item for name, item in value.items() if name != key}
    if what == 1:
        return value | {str(chance.choice(ODD))[:50]: chance.choice(ODD)}
    return value | {key: _changed(value[key], chance)}


def _changed_array(value: list[object], chance: random.Random) -> list[object]:
    index, what = chance.randrange(len(value)), chance.randrange(10)
    if what == 0:
        return value[:index] + value[index + 1 :]
    if what == 1:
        return value[:index] + value[index:] * chance.choice((2, 3, 70))
    return [*value[:index], _changed(value[index], chance), *value[index + 1 :]]


def by_bytes(data: bytes, seeds: list[bytes], chance: random.Random) -> bytes:
    """With some bytes changed, cut out, put in, or spliced with another seed."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, MOST_CHANGES)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(6):
            case 0:
                changed[at:at] = chance.choice(TOKENS)
            case 1:
                del changed[at : at + chance.randint(1, 40)]
            case 2:
                changed[at:] = chance.choice(seeds)[at:]
            case 3:
                changed[at:at] = changed[at : at + chance.randint(1, 200)]
            case _:
                changed[at : at + 1] = bytes([chance.randrange(256)])
    return bytes(changed)
