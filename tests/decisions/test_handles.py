"""What a sealed state is good for: one principal's one request, for a while."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mcphost.decisions import handles
from mcphost.decisions.handles import Bound, HandleRefused, StateHandle, Who

WHO = Who("acme", "laptop", "files")
PARAMS = {"name": Raw(b'"read"'), "arguments": Raw(b'{"a":1,"b":[2]}')}


def handle(bound: Bound) -> StateHandle:
    return StateHandle("worker", "files", "instance", b'"in\\u006eer"', bound, 100.0)


def bound(who: Who = WHO, method: str = "tools/call", **params: bytes) -> Bound:
    return handles.bind(who, method, PARAMS | {key: Raw(value) for key, value in params.items()})


def test_a_state_comes_back_as_it_was_given_for_the_request_it_was_given_to() -> None:
    given_out = handle(bound())
    assert handles.decode(handles.encode(given_out), bound(), now=99.9) == given_out


def test_what_a_retry_adds_and_how_it_spells_its_arguments_makes_no_other_request() -> None:
    again = bound(
        arguments=b'{ "b": [2], "a": 1 }', inputResponses=b"{}", requestState=b'"s"', _meta=b'{"x":1}'
    )
    assert again == bound()


@pytest.mark.parametrize(
    "other",
    [
        bound(Who("other", "laptop", "files")),
        bound(Who("acme", "phone", "files")),
        bound(Who("acme", "laptop", "")),
        bound(method="prompts/get"),
        bound(name=b'"write"'),
        bound(arguments=b'{"a":1,"b":[3]}'),
        bound(arguments=b"{}"),
        bound(uri=b'"file:///x"'),
    ],
)
def test_a_state_of_another_request_is_refused(other: Bound) -> None:
    with pytest.raises(HandleRefused):
        handles.decode(handles.encode(handle(bound())), other, now=0.0)


def test_a_state_is_refused_once_its_time_is_over() -> None:
    with pytest.raises(HandleRefused):
        handles.decode(handles.encode(handle(bound())), bound(), now=100.0)


@pytest.mark.parametrize("payload", [b"", b"\x00", b"{}", b"\x91\x01", b"\x96" + b"\xc0" * 6])
def test_a_payload_of_another_form_is_refused(payload: bytes) -> None:
    with pytest.raises(HandleRefused):
        handles.decode(payload, bound(), now=0.0)


def test_members_cannot_be_shifted_into_each_other() -> None:
    assert handles.bind(WHO, "m", {"name": Raw(b"1"), "uri": Raw(b"2")}) != handles.bind(
        WHO, "m", {"name": Raw(b"12")}
    )
    assert handles.bind(WHO, "m", {"name": Raw(b"1")}) != handles.bind(WHO, "m", {"uri": Raw(b"1")})


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(values, values)
def test_arguments_are_the_same_exactly_if_their_values_are(left: object, right: object) -> None:
    first = bound(arguments=json.dumps(left, indent=1).encode())
    assert first == bound(arguments=json.dumps(left, separators=(",", ":"), sort_keys=True).encode())
    other = bound(arguments=json.dumps(right).encode())
    assert (first == other) is (json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True))


@pytest.mark.parametrize("odd", [b'"\\ud800"', b"1e999", b"[" * 100_000])
def test_what_cannot_be_read_stands_for_itself(odd: bytes) -> None:
    assert bound(arguments=odd) == bound(arguments=odd)
    assert bound(arguments=odd) != bound(arguments=odd + b" ")
