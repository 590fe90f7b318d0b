"""Our side of a worker's connection: requests, answers, progress and notifications."""

import itertools
import json

import pytest
from msgspec import Raw

from mcphost.protocol import upstream
from mcphost.protocol.events import Answered, AnsweredLate, Dropped, Notified, Offence, Progressed
from mcphost.protocol.upstream import Upstream
from upstream_peers import INFO, answer, no, notification, progress, ready, sent, told


@pytest.mark.parametrize("order", list(itertools.permutations([0, 1, 2])))
def test_answers_in_any_order_reach_their_own_requests(order: tuple[int, ...]) -> None:
    machine = ready()
    ids = [sent(machine, entry) for entry in "abc"]
    for place in order:
        event = told(machine, {"jsonrpc": "2.0", "id": ids[place], "result": {"n": place}})
        assert isinstance(event, Answered)
        assert event.entry == "abc"[place]
        assert json.loads(bytes(event.message.body)) == {"n": place}
    assert len(machine) == 0


def test_a_servers_error_is_an_answer_too() -> None:
    machine = ready()
    event = told(machine, no({"id": sent(machine, "a")}, -32602))
    assert isinstance(event, Answered)
    assert (event.entry, event.message.kind) == ("a", "error")


@pytest.mark.parametrize("spell", ['"{}"', "{}.0", "{}e0", "-{}", "[{}]", "null", '{{"id":{}}}', "1{:020}"])
def test_an_id_that_only_resembles_ours_matches_nothing(spell: str) -> None:
    machine = ready()
    identifier = sent(machine, "a")
    line = f'{{"jsonrpc":"2.0","id":{spell.format(identifier)},"result":{{}}}}'
    assert machine.receive(line.encode()) == Offence("unknown-id")
    assert len(machine) == 1


def test_an_answer_without_an_id_and_one_to_a_reserved_id_are_offences() -> None:
    machine = ready()
    assert machine.receive(b'{"jsonrpc":"2.0","result":{}}') == Offence("unknown-id")
    assert told(machine, {"jsonrpc": "2.0", "id": machine.reserve(), "result": {}}) == Offence("unknown-id")


def test_a_second_answer_is_an_offence() -> None:
    machine = ready()
    answer = {"jsonrpc": "2.0", "id": sent(machine, "a"), "result": {}}
    assert isinstance(told(machine, answer), Answered)
    assert told(machine, answer) == Offence("unknown-id")


def test_a_late_answer_to_a_cancelled_request_is_no_offence_the_first_time() -> None:
    machine = ready()
    identifier = sent(machine, "a")
    assert json.loads(machine.cancel(identifier, 'gone\n"')[0]) == {
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": {"requestId": identifier, "reason": 'gone\n"'},
    }
    answer = {"jsonrpc": "2.0", "id": identifier, "result": {}}
    assert [told(machine, answer), told(machine, answer)] == [AnsweredLate(), Offence("unknown-id")]


def test_cancelling_what_was_answered_says_nothing() -> None:
    machine = ready()
    identifier = sent(machine, "a")
    told(machine, {"jsonrpc": "2.0", "id": identifier, "result": {}})
    assert machine.cancel(identifier, "late") == (b"", ())


def test_draining_gives_every_request_in_flight_once() -> None:
    machine = ready()
    for entry in "abc":
        sent(machine, entry)
    assert machine.drain() == ["a", "b", "c"]
    assert machine.drain() == []


# --- progress and other notifications -----------------------------------------------------------------


def test_progress_reaches_the_request_whose_token_it_carries_and_leaves_it_waiting() -> None:
    machine = ready()
    sent(machine, "a")
    event = told(machine, progress(sent(machine, "b")))
    assert isinstance(event, Progressed)
    assert event.entry == "b"
    assert bytes(event.params["progress"]) == b"1"
    assert len(machine) == 2


@pytest.mark.parametrize("token", [0, -1, 999, "3", 3.0, None, [3], {"a": 3}, 10**30])
def test_progress_under_a_token_that_is_none_of_ours_is_an_offence(token: object) -> None:
    machine = ready()
    assert sent(machine, "a") == 3
    assert told(machine, progress(token)) == Offence("unknown-token")


def test_progress_of_a_cancelled_request_is_no_offence_until_it_is_answered() -> None:
    machine = ready()
    identifier = sent(machine, "a")
    machine.cancel(identifier, "gone")
    assert told(machine, progress(identifier)) == Dropped("late-notification")
    assert told(machine, {"jsonrpc": "2.0", "id": identifier, "result": {}}) == AnsweredLate()
    assert told(machine, progress(identifier)) == Offence("unknown-token")


@pytest.mark.parametrize("params", ["[]", "null", '"x"', "5"])
def test_progress_without_an_object_is_no_mcp(params: str) -> None:
    line = f'{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}'
    assert ready().receive(line.encode()) == Offence("not-json-rpc")


def test_progress_without_any_params_is_under_no_token() -> None:
    assert ready().receive(b'{"jsonrpc":"2.0","method":"notifications/progress"}') == Offence("unknown-token")


def test_other_notifications_come_out_as_they_are() -> None:
    event = told(ready(), notification("notifications/tools/list_changed", _meta={"a": 1}, more=[2]))
    assert event == Notified(
        "notifications/tools/list_changed", {"_meta": Raw(b'{"a": 1}'), "more": Raw(b"[2]")}
    )
    assert told(ready(), {"jsonrpc": "2.0", "method": "x"}) == Notified("x")


# --- subscriptions --------------------------------------------------------------------------------------


def changed(subscription: object, **meta: object) -> dict:
    tag = {"io.modelcontextprotocol/subscriptionId": subscription, **meta}
    return notification("notifications/tools/list_changed", _meta=tag)


def test_a_notification_of_a_listen_of_ours_says_which_and_carries_its_id_no_more() -> None:
    machine = ready()
    first, second = (sent(machine, entry, method="subscriptions/listen") for entry in "ab")
    assert told(machine, changed(second)) == Notified("notifications/tools/list_changed", {}, second)
    kept = Notified("notifications/tools/list_changed", {"_meta": Raw(b'{"a":1}')}, first)
    assert told(machine, changed(first, a=1)) == kept
    assert len(machine) == 2


@pytest.mark.parametrize("spell", [0, -1, 99, "3", 3.0, None, [3]])
def test_a_notification_of_a_listen_that_is_none_of_ours_is_an_offence(spell: object) -> None:
    machine = ready()
    assert sent(machine, "a", method="subscriptions/listen") == 3
    assert told(machine, changed(spell)) == Offence("unknown-subscription")


def test_a_request_that_is_no_listen_has_no_subscription() -> None:
    machine = ready()
    assert told(machine, changed(sent(machine, "a"))) == Offence("unknown-subscription")


def test_a_listen_that_was_answered_is_over_and_one_that_was_cancelled_may_still_be_heard_of() -> None:
    machine = ready()
    over, gone = (sent(machine, entry, method="subscriptions/listen") for entry in "ab")
    told(machine, answer(over))
    machine.cancel(gone, "done")
    assert told(machine, changed(over)) == Offence("unknown-subscription")
    assert told(machine, changed(gone)) == Dropped("late-notification")
    told(machine, answer(gone))
    assert told(machine, changed(gone)) == Offence("unknown-subscription")


@pytest.mark.parametrize("params", ["[]", "null", '{"_meta":[]}', '{"_meta":null}'])
def test_a_notification_without_objects_where_they_belong_is_no_mcp(params: str) -> None:
    line = f'{{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{params}}}'
    assert ready().receive(line.encode()) == Offence("not-json-rpc")


def test_the_repr_tells_the_state_and_the_load() -> None:
    machine: Upstream[str] = Upstream(era="auto", client_info=INFO)
    assert repr(machine) == "<Upstream opening, 0 in flight, 0 questions>"
    machine = ready()
    sent(machine, "a")
    assert repr(machine) == "<Upstream modern, 1 in flight, 0 questions>"


def test_an_id_of_more_digits_than_ours_ever_have_is_not_converted() -> None:
    line = b'{"jsonrpc":"2.0","id":%b,"result":{}}'
    assert ready().receive(line % (b"9" * upstream.MAX_ID_DIGITS)) == Offence("unknown-id")
    assert ready().receive(line % (b"9" * 100_000)) == Offence("unknown-id")
