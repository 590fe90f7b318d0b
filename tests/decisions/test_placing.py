"""Which process a call may use, for every scope, era and need."""

import itertools

import pytest

from mcphost.decisions.placing import Place, Scope, Wants, place_of

NOTHING, LOGS, ASKED = Wants(False, False, True), Wants(False, True, True), Wants(True, False, True)


@pytest.mark.parametrize(
    ("scope", "legacy", "wants", "place"),
    [
        ("tenant", True, NOTHING, "together"),
        ("tenant", True, LOGS, "apart"),
        ("tenant", True, ASKED, "apart"),
        ("tenant", False, NOTHING, "together"),
        ("tenant", False, LOGS, "alone"),
        ("tenant", False, ASKED, "together"),
        ("shared", True, ASKED, "apart"),
        ("shared", False, LOGS, "alone"),
        ("call", True, NOTHING, "fresh"),
        ("call", False, LOGS, "fresh"),
        ("call", True, Wants(False, False, False), "together"),
        ("call", True, Wants(False, True, False), "apart"),
        ("session", True, ASKED, "in turn"),
        ("session", False, ASKED, "together"),
        ("session", False, LOGS, "in turn"),
        ("session", True, NOTHING, "together"),
    ],
)
def test_where_a_call_goes(scope: Scope, legacy: bool, wants: Wants, place: Place) -> None:
    assert place_of(scope, wants, legacy=legacy, one_client=False) == place


def test_calls_of_one_client_always_share_the_process_of_its_session() -> None:
    for legacy, questions, logs in itertools.product([True, False], repeat=3):
        assert place_of("session", Wants(questions, logs, True), legacy=legacy, one_client=True) == "together"


@pytest.mark.parametrize("scope", ["shared", "tenant", "call", "session"])
def test_no_call_that_a_message_without_a_name_could_belong_to_shares_a_process_with_others(
    scope: Scope,
) -> None:
    for legacy, questions, logs, chain in itertools.product([True, False], repeat=4):
        place = place_of(scope, Wants(questions, logs, chain), legacy=legacy, one_client=False)
        assert (place == "together") <= (not logs and not (legacy and questions))
