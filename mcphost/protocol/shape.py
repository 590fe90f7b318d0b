"""Bounds on the shape of a client's JSON that its size does not bound: how deep it nests, how long its numbers are.

What goes past them is read differently by different readers: some fail, some lose digits, some end. So it is refused
here and no server ever sees it. The checks cost little even on bodies that were made to be slow: they look at brackets
and digits in blocks, and one by one only where a bound is near.
"""

import re
from collections.abc import Iterator
from typing import Final

from mcphost.errors import PARSE_ERROR
from mcphost.protocol.jsonrpc import Malformed

MAX_DEPTH: Final = (
    256  # Python's reader gives up at some 1,000 and others at 128 or 512; real messages nest below 32
)
MAX_DIGITS: Final = (
    1024  # Python refuses integers of more than 4,300 digits; a double has at most 309 before its point
)

_BLOCK: Final = 64
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b'[]{}"'))
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_OPEN: Final = ord("[")
_DIGITS: Final = b"0123456789"
_DIGIT: Final = re.compile(rb"[0-9]")
_RUN: Final = re.compile(rb"[0-9]*")


def check_shape(data: bytes) -> None:
    """Judge the JSON of one message; bytes that are no JSON may pass, for the decoder to refuse.

    Raises:
        Malformed: -32700 if it nests deeper than `MAX_DEPTH`, or holds a number with more than `MAX_DIGITS` in a row.
    """
    many = data.count(b"[") + data.count(b"{") > MAX_DEPTH
    long = next(_long_runs(data), None) is not None
    if not many and not long:
        return
    if b"\\" in data:  # it stands in strings only, and pairs from the left
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    if many and _is_deep(data):
        raise Malformed(PARSE_ERROR, f"nested deeper than {MAX_DEPTH} levels")
    if long and _holds_long_number(data):
        raise Malformed(PARSE_ERROR, f"a number has more than {MAX_DIGITS} digits in a row")


def _is_deep(data: bytes) -> bool:
    """Whether JSON without escapes nests too deeply."""
    # Strings without brackets are two quotes by now and go, and so does what joins two strings side by side.
    marks = data.translate(_ONE_KIND, _NO_BRACKETS).replace(b'""', b"")
    brackets = b"".join(marks.split(b'"')[::2])
    depth = 0
    for start in range(0, len(brackets), _BLOCK):
        block = brackets[start : start + _BLOCK]
        opened = block.count(b"[")
        if depth + opened > MAX_DEPTH and _rises(block, MAX_DEPTH - depth):
            return True
        depth += 2 * opened - len(block)
    return False


def _rises(block: bytes, most: int) -> bool:
    """Whether the depth rises by more than `most` at any place of the block."""
    depth = 0
    for bracket in block:
        depth += 1 if bracket == _OPEN else -1
        if depth > most:
            return True
    return False


def _holds_long_number(data: bytes) -> bool:
    """Whether JSON without escapes has such a run outside its strings: where an even number of quotes precedes it."""
    quotes = counted = 0
    for at in _long_runs(data):
        quotes += data.count(b'"', counted, at)
        counted = at
        if quotes % 2 == 0:
            return True
    return False


def _long_runs(data: bytes) -> Iterator[int]:
    """A place in each run of more than `MAX_DIGITS` digits: such a run holds a multiple of that."""
    for found in _DIGIT.finditer(data[::MAX_DIGITS]):
        at = found.start() * MAX_DIGITS
        before = data[max(0, at - MAX_DIGITS) : at]
        run = _RUN.match(data, at, at + MAX_DIGITS + 1)
        behind = run.end() - at if run is not None else 0
        if len(before) - len(before.rstrip(_DIGITS)) + behind > MAX_DIGITS:
            yield at
