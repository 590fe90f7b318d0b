"""Log messages: whose they are, and that a legacy server is told to log at all."""

import json

import pytest

from mcphost.protocol.attribution import DEAF, Hears
from mcphost.protocol.events import Dropped, Logged
from mcphost.protocol.upstream import Upstream
from upstream_peers import (
    INFO,
    LOG,
    Server,
    answer,
    legacy_server,
    modern_server,
    ok,
    opened,
    ready,
    sent,
    told,
)

LISTENS = Hears(logs=True)
UNOWNED = Dropped("unowned-log")
BOTH = pytest.mark.parametrize("server", [legacy_server, modern_server], ids=["legacy", "modern"])


@BOTH
def test_a_log_message_belongs_to_the_only_request_there_is_if_it_wants_it(server: Server) -> None:
    machine = ready(server)
    first = sent(machine, "a", LISTENS)
    event = told(machine, LOG)
    assert isinstance(event, Logged)
    assert event.entry == "a"
    assert bytes(event.params["data"]) == b'"x"'
    told(machine, answer(first))
    sent(machine, "deaf", Hears(questions=True))
    assert told(machine, LOG) == UNOWNED


@BOTH
def test_of_two_requests_that_want_log_messages_none_gets_any(server: Server) -> None:
    machine = ready(server)
    sent(machine, "a", LISTENS)
    second = sent(machine, "b", LISTENS)
    assert told(machine, LOG) == UNOWNED
    told(machine, answer(second))
    assert isinstance(told(machine, LOG), Logged)


def test_beside_others_a_modern_server_logs_for_the_one_that_wants_it_and_a_legacy_one_for_nobody() -> None:
    """A modern one must not log for a request without a level (2026-07-28, server/utilities/logging)."""
    events = []
    for server in (modern_server, legacy_server):
        machine = ready(server)
        sent(machine, "a", LISTENS)
        sent(machine, "deaf", DEAF)
        events.append(told(machine, LOG))
    assert isinstance(events[0], Logged)
    assert events[1] == UNOWNED


@pytest.mark.parametrize(
    ("server", "hears", "reaches"),
    [(legacy_server, LISTENS, False), (modern_server, LISTENS, False),
     (legacy_server, DEAF, False), (modern_server, DEAF, True)],
)  # fmt: skip
def test_what_a_cancelled_request_may_still_log_reaches_nobody_else(
    server: Server, hears: Hears, reaches: bool
) -> None:
    machine = ready(server)
    gone = sent(machine, "gone", hears)
    machine.cancel(gone, "why")
    sent(machine, "next", LISTENS)
    assert isinstance(told(machine, LOG), Logged) == reaches
    told(machine, answer(gone))
    assert isinstance(told(machine, LOG), Logged)


@BOTH
def test_among_requests_of_one_client_the_oldest_that_wants_log_messages_gets_them(server: Server) -> None:
    machine = ready(server, one_client=True)
    machine.cancel(sent(machine, "gone", LISTENS), "why")
    sent(machine, "deaf", DEAF)
    sent(machine, "first", LISTENS)
    sent(machine, "second", LISTENS)
    event = told(machine, LOG)
    assert isinstance(event, Logged)
    assert event.entry == "first"


@pytest.mark.parametrize(
    ("server", "hears", "unsettled"),
    [(legacy_server, DEAF, True), (modern_server, DEAF, False), (modern_server, LISTENS, True)],
)
def test_a_cancelled_request_is_unsettled_where_the_server_may_log_for_it(
    server: Server, hears: Hears, unsettled: bool
) -> None:
    """As a listen on a modern server is, which every change of what is listened to cancels."""
    machine = ready(server)
    gone = sent(machine, "gone", hears)
    machine.cancel(gone, "why")
    assert machine.unsettled == unsettled
    told(machine, answer(gone))
    assert not machine.unsettled


def test_before_the_server_is_open_nobody_gets_a_log_message() -> None:
    machine: Upstream[str] = Upstream(era="auto", client_info=INFO)
    machine.open()
    sent(machine, "a", LISTENS)
    assert told(machine, LOG) == UNOWNED


def logging_server(asked: dict) -> dict | None:
    answer = {"protocolVersion": "2025-11-25", "capabilities": {"logging": {}}}
    return ok(asked, answer) if asked["method"] == "initialize" else None


def test_a_legacy_server_that_can_log_is_told_once_to_log_everything_and_its_answer_means_nothing() -> None:
    machine, _ = opened(logging_server, "legacy", logs=True)
    _, level = (json.loads(line) for line in machine.confirm().splitlines())
    assert (level["method"], level["params"]) == ("logging/setLevel", {"level": "debug"})
    assert len(machine) == 0
    assert told(machine, answer(level["id"])) is None


@pytest.mark.parametrize(
    ("server", "logs", "lines"),
    [(logging_server, False, 1), (legacy_server, True, 1), (modern_server, True, 0)],
    ids=["not wanted", "cannot", "modern"],
)
def test_no_other_server_is_told_so(server: Server, logs: bool, lines: int) -> None:
    assert len(ready(server, logs=logs).confirm().splitlines()) == lines
