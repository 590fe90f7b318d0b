"""A server's own requests: whose they are, how they are answered, and what becomes of those that belong to nobody."""

import json
from typing import Any

import pytest
from msgspec import Raw

from mcphost.protocol.asking import Declared
from mcphost.protocol.attribution import Hears
from mcphost.protocol.events import (
    Answered,
    AnsweredLate,
    Asked,
    Dropped,
    Offence,
    Pinged,
    Refused,
    Withdrawn,
)
from mcphost.protocol.jsonrpc import ErrorObject
from mcphost.protocol.questions import MAX_QUESTION_BYTES, MAX_QUESTIONS
from mcphost.protocol.upstream import Upstream
from upstream_peers import answer, legacy_server, modern_server, notification, question, ready, sent, told

ASKABLE = Hears(questions=True)


def legacy(**manner: Any) -> Upstream:
    return ready(legacy_server, **manner)


def asked(machine: Upstream, key: object = "q", **params: object) -> Asked:
    event = told(machine, question(key, **params))
    assert isinstance(event, Asked), event
    return event


@pytest.mark.parametrize("server", [legacy_server, modern_server])
@pytest.mark.parametrize("identifier", [1, "x\n", "ä"])
def test_a_ping_is_answered_with_the_servers_own_id_on_one_line(server: object, identifier: object) -> None:
    event = told(ready(server), question(identifier, "ping"))
    assert isinstance(event, Pinged)
    assert event.line.count(b"\n") == 1
    assert json.loads(event.line) == {"jsonrpc": "2.0", "id": identifier, "result": {}}


def test_a_question_belongs_to_the_one_request_that_can_be_asked() -> None:
    machine = legacy()
    sent(machine, "deaf")
    sent(machine, "askable", ASKABLE)
    sent(machine, "wants logs", Hears(logs=True))
    event = told(machine, question(7, "elicitation/create", message="name?"))
    assert event == Asked("askable", b"7", "elicitation/create", Raw(b'{"message": "name?"}'))


def test_an_answer_is_one_line_under_the_servers_id_and_counts_once() -> None:
    machine = legacy()
    sent(machine, "a", ASKABLE)
    key = asked(machine, "x y").key
    line = machine.answer(key, Raw(b'{"roots":\r\n[]}'))
    assert line == b'{"jsonrpc":"2.0","id":"x y","result":{"roots":[]}}\n'
    assert machine.answer(key, Raw(b"{}")) == b""
    assert asked(machine, "x y").entry == "a"  # the server may use its id again


def test_a_refusal_is_the_clients_error_as_it_came() -> None:
    machine = legacy()
    sent(machine, "a", ASKABLE)
    line = machine.answer(asked(machine).key, ErrorObject(-1, "User\nrejected", Raw(b'{"a":\n1}')))
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "jsonrpc": "2.0", "id": "q", "error": {"code": -1, "message": "User\nrejected", "data": {"a": 1}},
    }  # fmt: skip


@pytest.mark.parametrize("askable", [0, 2, 3])
def test_a_question_that_could_be_nobodys_or_anybodys_is_refused(askable: int) -> None:
    machine = legacy(declared=Declared((("roots", ()),)))
    sent(machine, "deaf")
    for number in range(askable):
        sent(machine, f"{number}", ASKABLE)
    event = told(machine, question("q"))
    assert isinstance(event, Refused)
    assert (event.what, event.method) == ("unowned-request", "roots/list")
    assert json.loads(event.line)["error"]["code"] == 409
    assert machine.open_questions == 0


@pytest.mark.parametrize("params", ["5", "[]", "null", '{"_meta":5}', '{"_meta":[]}', '{"_meta":null}'])
def test_a_question_of_another_form_reaches_nobody_and_its_server_is_told(params: str) -> None:
    machine = legacy()
    sent(machine, "askable", ASKABLE)
    line = f'{{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{params}}}'
    event = machine.receive(line.encode())
    assert isinstance(event, Refused)
    assert event.what == "malformed-request"
    assert json.loads(event.line)["error"]["code"] == -32602
    assert asked(machine, "q").key == b'"q"'


def test_a_server_that_was_told_of_nothing_it_may_ask_hears_that_there_is_no_such_method() -> None:
    event = told(legacy(), question("q"))
    assert isinstance(event, Refused)
    assert json.loads(event.line)["error"]["code"] == -32601


def test_among_requests_of_one_client_the_oldest_is_asked() -> None:
    machine = legacy(one_client=True)
    sent(machine, "deaf")
    first = sent(machine, "first", ASKABLE)
    sent(machine, "second", ASKABLE)
    assert asked(machine, 1).entry == "first"
    told(machine, answer(first))
    assert asked(machine, 2).entry == "second"


def test_after_a_cancellation_a_question_is_refused_until_the_cancelled_request_was_answered() -> None:
    machine = legacy()
    gone = sent(machine, "gone", ASKABLE)
    machine.cancel(gone, "why")
    sent(machine, "next", ASKABLE)
    assert isinstance(told(machine, question(1)), Refused)
    assert machine.unsettled
    assert told(machine, answer(gone)) == AnsweredLate()
    assert not machine.unsettled
    assert asked(machine, 2).entry == "next"


def test_who_can_bear_it_settles_without_the_answer_and_a_later_cancellation_counts_anew() -> None:
    machine = legacy()
    first = sent(machine, "first", ASKABLE)
    machine.cancel(first, "why")
    machine.settle()
    second = sent(machine, "second", ASKABLE)
    assert asked(machine, 1).entry == "second"
    machine.cancel(second, "why")
    told(machine, answer(first))  # says nothing of the second
    sent(machine, "third", ASKABLE)
    assert isinstance(told(machine, question(2)), Refused)


def test_so_many_cancellations_that_they_cannot_be_told_apart_leave_nobody_to_ask() -> None:
    machine = legacy()
    for _ in range(1030):
        machine.cancel(sent(machine, "gone", ASKABLE), "why")
    sent(machine, "next", ASKABLE)
    for identifier in range(3, 1033):
        told(machine, answer(identifier))
    assert isinstance(told(machine, question(1)), Refused)


def test_a_modern_server_has_no_requests_of_its_own() -> None:
    machine = ready()
    sent(machine, "a", ASKABLE)
    event = told(machine, question(1, "elicitation/create"))
    assert isinstance(event, Refused)
    assert event.what == "unowned-request"


def test_before_the_server_is_open_nobody_is_asked() -> None:
    machine: Upstream[str] = Upstream(era="legacy", client_info=Raw(b"{}"))
    machine.open()
    sent(machine, "a", ASKABLE)
    assert isinstance(told(machine, question(1)), Refused)


@pytest.mark.parametrize("method", ["tools/list", "tasks/get", "x"])
def test_what_no_client_is_ever_asked_is_an_unknown_method(method: str) -> None:
    machine = legacy()
    sent(machine, "a", ASKABLE)
    event = told(machine, question(9, method))
    assert isinstance(event, Refused)
    assert event.what == "unknown-request"
    assert json.loads(event.line)["error"]["code"] == -32601


def test_a_second_question_under_an_open_id_is_an_offence_and_the_first_can_still_be_answered() -> None:
    machine = legacy()
    sent(machine, "a", ASKABLE)
    key = asked(machine).key
    assert told(machine, question("q")) == Offence("repeated-id")
    assert machine.answer(key, Raw(b"{}")).endswith(b"}\n")


def test_a_question_under_an_id_of_ours_does_not_answer_our_request() -> None:
    machine = legacy()
    identifier = sent(machine, "a", ASKABLE)
    asked(machine, identifier)
    assert len(machine) == 1


def test_open_questions_are_bounded_in_number_and_each_answer_makes_room() -> None:
    machine = legacy()
    sent(machine, "a", ASKABLE)
    keys = [asked(machine, number).key for number in range(MAX_QUESTIONS)]
    event = told(machine, question("more"))
    assert isinstance(event, Refused)
    assert event.what == "too-many-requests"
    machine.answer(keys[3], Raw(b"{}"))
    asked(machine, "more")
    assert machine.open_questions == MAX_QUESTIONS


def test_open_questions_are_bounded_in_size_and_each_answer_makes_room() -> None:
    machine = legacy()
    sent(machine, "a", ASKABLE)
    half = "x" * (MAX_QUESTION_BYTES // 2 - 100)
    first = asked(machine, 1, image=half).key
    asked(machine, 2, image=half)
    assert isinstance(told(machine, question(3, image=half)), Refused)
    machine.answer(first, Raw(b"{}"))
    asked(machine, 3, image=half)


def test_an_answered_request_leaves_no_question_open_and_its_server_is_told() -> None:
    machine = legacy()
    identifier = sent(machine, "a", ASKABLE)
    keys = tuple(asked(machine, number).key for number in range(2))
    event = told(machine, answer(identifier))
    assert isinstance(event, Answered)
    assert event.over == keys
    assert [json.loads(line)["error"]["code"] for line in event.line.splitlines()] == [410, 410]
    assert machine.answer(keys[0], Raw(b"{}")) == b""


def test_a_cancellation_is_told_before_its_questions_are_refused_and_touches_no_others() -> None:
    machine = legacy(one_client=True)
    first = sent(machine, "first", ASKABLE)
    key = asked(machine, "of the first").key
    machine.cancel(first, "why")
    second = sent(machine, "second", ASKABLE)
    kept = asked(machine, "of the second").key
    lines, over = machine.cancel(second, "why")
    said = [json.loads(line) for line in lines.splitlines()]
    assert [each.get("method", each.get("id")) for each in said] == [
        "notifications/cancelled",
        "of the second",
    ]
    assert (over, machine.answer(key, Raw(b"{}"))) == ((kept,), b"")


def test_a_question_that_the_server_takes_back_needs_no_answer() -> None:
    machine = legacy()
    sent(machine, "a", ASKABLE)
    key = asked(machine, "q").key
    assert told(machine, notification("notifications/cancelled", requestId="q")) == Withdrawn(key)
    assert machine.answer(key, Raw(b"{}")) == b""
    assert told(machine, notification("notifications/cancelled", requestId="q")) == Dropped(
        "late-notification"
    )
    assert told(machine, notification("notifications/cancelled")) == Dropped("late-notification")


def test_a_lost_connection_has_no_questions() -> None:
    machine = legacy()
    sent(machine, "a", ASKABLE)
    asked(machine)
    assert machine.drain() == ["a"]
    assert machine.open_questions == 0
