"""Bounds on how deep a message nests and how long its numbers are, against a slow and plain judge."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcphost.protocol import shape
from mcphost.protocol.jsonrpc import Malformed
from mcphost.protocol.shape import MAX_DEPTH, MAX_DIGITS, check_shape


def refused(data: bytes) -> bool:
    try:
        check_shape(data)
    except Malformed:
        return True
    return False


def depth_of(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max((depth_of(each) for each in inner), default=0)


def longest_number(value: object) -> int:
    if isinstance(value, dict):
        return max((longest_number(each) for each in value.values()), default=0)
    if isinstance(value, list):
        return max((longest_number(each) for each in value), default=0)
    return len(str(abs(value))) if isinstance(value, int) and not isinstance(value, bool) else 0


texts = st.text(st.sampled_from('[]{}"\\\n0123456789 é'), max_size=20)
values = st.recursive(
    st.none() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=40,
)


@given(values, st.integers(0, 12), st.integers(1, 20), st.integers(1, 5))
def test_what_is_refused_is_what_a_plain_judge_would_refuse(
    value: object, most_depth: int, most_digits: int, block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shape, "MAX_DEPTH", most_depth)
        patch.setattr(shape, "MAX_DIGITS", most_digits)
        patch.setattr(shape, "_BLOCK", block)
        wrong = depth_of(value) > most_depth or longest_number(value) > most_digits
        assert refused(json.dumps(value, ensure_ascii=False).encode()) == wrong


@given(st.binary(max_size=200))
def test_any_bytes_pass_or_are_refused(data: bytes) -> None:
    refused(data)


def test_the_refusal_is_that_of_bytes_that_cannot_be_parsed() -> None:
    with pytest.raises(Malformed, match="nested deeper than 256 levels") as caught:
        check_shape(b"[" * 300)
    assert caught.value.code == -32700
    with pytest.raises(Malformed, match="a number has more than 1024 digits"):
        check_shape(b'{"n":' + b"9" * 2000 + b"}")


def test_the_bounds_are_exact() -> None:
    assert not refused(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert refused(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))
    assert refused(b"[" * 1_000_000)
    for prefix in range(0, MAX_DIGITS * 2, 97):
        padding = b" " * prefix
        assert not refused(padding + b"9" * MAX_DIGITS)
        assert refused(padding + b"9" * (MAX_DIGITS + 1))


def test_in_a_string_neither_counts() -> None:
    for inner in ("[" * 5000, "9" * 5000, '\\"' + "[{" * 5000, "\\" * 7 + '"' + "9" * 5000):
        assert not refused(json.dumps({"a": inner, "b": [inner]}).encode())
        assert refused(json.dumps({"a": inner}).encode() + b"[" * 300)


def test_many_that_stand_side_by_side_are_not_deep() -> None:
    assert not refused(b"[" + b",".join([b'{"a":[1]}'] * 10_000) + b"]")
