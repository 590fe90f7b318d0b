"""Results that ask for input: what is read of a server's, what is refused, and what is written."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mcphost.errors import DownstreamProtocolError, UpstreamProtocolError
from mcphost.protocol import inputs, jsonrpc
from mcphost.protocol.asking import ASKS, NOTHING, Declared
from mcphost.protocol.inputs import MAX_QUESTIONS, InputRequest
from mcphost.protocol.jsonrpc import Fields

FORM = {"method": "elicitation/create", "params": {"message": "?", "requestedSchema": {}}}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abm", max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def cut(value: dict[str, object]) -> Fields:
    return {key: jsonrpc.raw(each) for key, each in value.items()}


def test_questions_and_state_are_read_as_they_were_written() -> None:
    members = {"inputRequests": Raw(b'{"a":{"method":"roots/list"},"b":' + json.dumps(FORM).encode() + b"}")}
    required = inputs.read("tools/call", {**members, "requestState": Raw(b'"\\u0041 "')})
    assert {key: each.method for key, each in required.requests.items()} == {
        "a": "roots/list",
        "b": "elicitation/create",
    }
    assert json.loads(bytes(required.requests["b"].params)) == FORM["params"]
    assert bytes(required.requests["a"].params) == b"{}"
    assert required.state is not None
    assert bytes(required.state) == b'"\\u0041 "'


def test_a_state_alone_asks_for_nothing_but_to_come_again() -> None:
    required = inputs.read("resources/read", {"requestState": Raw(b'"s"')})
    assert (dict(required.requests), required.state) == ({}, Raw(b'"s"'))


@pytest.mark.parametrize("method", ["tools/list", "completion/complete", "server/discover"])
def test_only_calls_on_an_item_may_be_answered_with_questions(method: str) -> None:
    with pytest.raises(UpstreamProtocolError, match="must not"):
        inputs.read(method, {"requestState": Raw(b'"s"')})


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"requestState": 5},
        {"requestState": None},
        {"inputRequests": []},
        {"inputRequests": {"a": 5}},
        {"inputRequests": {"a": {}}},
        {"inputRequests": {"a": {"method": "tools/call"}}},
        {"inputRequests": {"a": {"method": "roots/list", "params": []}}},
        {"inputRequests": {str(number): FORM for number in range(MAX_QUESTIONS + 1)}},
    ],
)
def test_what_breaks_the_rules_is_the_servers_fault(members: dict[str, object]) -> None:
    with pytest.raises(UpstreamProtocolError):
        inputs.read("tools/call", cut(members))


@given(st.dictionaries(st.sampled_from(["inputRequests", "requestState", "x"]), json_values))
def test_any_members_are_read_or_are_the_servers_fault(members: dict[str, object]) -> None:
    try:
        required = inputs.read("tools/call", cut(members))
    except UpstreamProtocolError:
        return
    assert all(each.method in ASKS for each in required.requests.values())


def test_what_is_missing_is_named_once_with_all_its_parts() -> None:
    asked = [
        InputRequest("sampling/createMessage", Raw(b'{"tools":[]}')),
        InputRequest("sampling/createMessage", Raw(b"{}")),
        InputRequest("elicitation/create", Raw(b'{"mode":"url"}')),
        InputRequest("roots/list", Raw(b"{}")),
    ]
    assert inputs.undeclared(asked, NOTHING) == {
        "sampling": {"tools": {}},
        "elicitation": {"url": {}},
        "roots": {},
    }
    declared = Declared.read(Raw(b'{"sampling":{},"elicitation":{"url":{}},"roots":{}}'))
    assert inputs.undeclared(asked, declared) == {"sampling": {"tools": {}}}
    error = inputs.needs({"sampling": {"tools": {}}})
    assert isinstance(error, DownstreamProtocolError)
    assert (error.rpc_code, error.data) == (-32021, {"requiredCapabilities": {"sampling": {"tools": {}}}})


def test_what_is_written_is_read_back() -> None:
    asked = {"q": InputRequest("elicitation/create", Raw(b'{"message":"x"}'))}
    required = inputs.read("prompts/get", inputs.write(asked, "sealed"))
    assert (required.requests, required.state) == (asked, Raw(b'"sealed"'))
    assert inputs.read("prompts/get", inputs.write(asked, None)).state is None


def test_a_servers_result_keeps_everything_but_its_state() -> None:
    members = cut({"inputRequests": {"a": FORM}, "requestState": "inner", "own": [1]})
    assert inputs.with_state(members, None) == cut({"inputRequests": {"a": FORM}, "own": [1]})
    assert inputs.with_state(members, "sealed") == cut(
        {"inputRequests": {"a": FORM}, "own": [1], "requestState": "sealed"}
    )
