"""Questions in results, put to a legacy client: what it is asked, what goes back, and where it ends."""

import json

import pytest
from msgspec import Raw

from mcphost.errors import ServerError, UpstreamProtocolError
from mcphost.protocol import inputs, jsonrpc
from mcphost.protocol.asking import Declared
from mcphost.protocol.inputs import InputRequest, InputRequired
from mcphost.protocol.jsonrpc import Message
from mcphost.protocol.rounds import MAX_ROUNDS, Rounds

EVERYTHING = Declared.read(Raw(b'{"sampling":{},"elicitation":{"form":{},"url":{}},"roots":{}}'))


def asking(state: str | None = "inner", **requests: InputRequest) -> InputRequired:
    return inputs.read("tools/call", inputs.write(requests, state))


def form(message: str = "?") -> InputRequest:
    return InputRequest("elicitation/create", jsonrpc.raw({"message": message}))


def result(value: object) -> Message:
    return Message("result", "", b"1", jsonrpc.raw(value))


def test_the_answers_go_back_under_the_servers_keys_with_its_state_unchanged() -> None:
    rounds = Rounds(EVERYTHING, "salt")
    required = inputs.read(
        "tools/call", {**inputs.write({"a": form(), "b": form()}, None), "requestState": Raw(b'"\\u0041"')}
    )
    asked = rounds.receive(required)
    assert asked == {"a": form(), "b": form()}
    carried = rounds.retry({"b": result({"n": 2}), "a": result({"n": 1})})
    assert json.loads(bytes(carried["inputResponses"])) == {"a": {"n": 1}, "b": {"n": 2}}
    assert bytes(carried["requestState"]) == b'"\\u0041"'


def test_a_state_that_was_not_given_is_not_made_up() -> None:
    rounds = Rounds(EVERYTHING, "salt")
    rounds.receive(asking(None, a=form()))
    assert rounds.retry({"a": result({})}).keys() == {"inputResponses"}


def test_a_state_alone_goes_back_alone() -> None:
    rounds = Rounds(EVERYTHING, "salt")
    assert rounds.receive(asking("inner")) == {}
    assert rounds.retry({}) == {"requestState": Raw(b'"inner"')}


def test_an_error_answer_is_the_error_of_the_call() -> None:
    rounds = Rounds(EVERYTHING, "salt")
    rounds.receive(asking(a=form(), b=form()))
    refused = Message("error", "", b"1", jsonrpc.raw({"code": -1, "message": "no", "data": {"x": 1}}))
    with pytest.raises(ServerError) as caught:
        rounds.retry({"b": refused})
    assert (caught.value.code, str(caught.value), caught.value.raw_data) == (-1, "no", b'{"x":1}')


def test_a_client_is_not_asked_for_what_it_has_not_declared() -> None:
    rounds = Rounds(Declared.read(Raw(b'{"roots":{}}')), "salt")
    with pytest.raises(UpstreamProtocolError, match="elicitation, sampling"):
        rounds.receive(asking(a=form(), b=InputRequest("sampling/createMessage", Raw(b"{}"))))


def test_a_server_that_never_has_enough_is_left() -> None:
    rounds = Rounds(EVERYTHING, "salt")
    for _ in range(MAX_ROUNDS):
        rounds.receive(asking(a=form()))
        rounds.retry({"a": result({})})
    with pytest.raises(UpstreamProtocolError, match=f"more than {MAX_ROUNDS} times"):
        rounds.receive(asking(a=form()))


def test_an_elicitation_by_url_gets_the_id_that_the_older_era_wants_and_no_two_the_same() -> None:
    rounds = Rounds(EVERYTHING, "salt")
    by_url = InputRequest("elicitation/create", jsonrpc.raw({"mode": "url", "url": "https://x.example"}))
    named = InputRequest("elicitation/create", jsonrpc.raw({"mode": "url", "elicitationId": "own"}))
    ids: list[str] = []
    for _ in range(2):
        asked = rounds.receive(asking(a=by_url, b=by_url, c=named)).values()
        ids.extend(json.loads(bytes(each.params))["elicitationId"] for each in asked)
        rounds.retry({key: result({}) for key in "abc"})
    assert ids.count("own") == 2
    assert len(set(ids)) == 5
    assert all(each == "own" or each.startswith("salt-") for each in ids)


def test_a_step_out_of_turn_is_a_bug_of_ours() -> None:
    rounds = Rounds(EVERYTHING, "salt")
    with pytest.raises(RuntimeError):
        rounds.retry({})
    rounds.receive(asking(a=form()))
    assert repr(rounds) == "<Rounds 1, asking>"
    with pytest.raises(RuntimeError):
        rounds.receive(asking(a=form()))
