"""When a worker that ended is started again, after how long, and when no more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcphost.decisions.restart import Again, GiveUp, Rest, RestartBudget, RestartOn, RestartPolicy


def budget(
    on: RestartOn = "on-failure", limit: int = 3, initial: float = 1.0, ceiling: float = 60.0
) -> RestartBudget:
    return RestartBudget(RestartPolicy(on, limit, window=100.0, initial=initial, ceiling=ceiling))


def failed(restarts: RestartBudget, now: float, jitter: float = 0.0) -> Again | GiveUp | Rest:
    return restarts.ended(now=now, failed=True, why="it broke", jitter=jitter)


@pytest.mark.parametrize(
    ("on", "did_fail", "decision"),
    [
        ("on-failure", True, Again(0.5)),
        ("on-failure", False, Rest()),
        ("always", True, Again(0.5)),
        ("always", False, Again(0.5)),
        ("never", True, GiveUp("it broke; its restart policy is `never`")),
        ("never", False, Rest()),
    ],
)
def test_the_policy_says_which_ends_start_again(on: RestartOn, did_fail: bool, decision: object) -> None:
    assert budget(on).ended(now=0.0, failed=did_fail, why="it broke", jitter=0.0) == decision


def test_waits_double_up_to_their_ceiling() -> None:
    restarts = budget(limit=8, ceiling=10.0)
    waits = [failed(restarts, float(now), jitter=0.999999) for now in range(6)]
    assert [round(each.wait, 3) for each in waits if isinstance(each, Again)] == [1, 2, 4, 8, 10, 10]


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 80), st.floats(0.001, 1e3), st.floats(0.001, 1e4))
def test_a_wait_is_in_the_upper_half_of_its_step(
    jitter: float, failures: int, initial: float, ceiling: float
) -> None:
    restarts = budget(limit=100, initial=initial, ceiling=ceiling)
    for _ in range(failures - 1):
        failed(restarts, 0.0)
    decision = failed(restarts, 0.0, jitter)
    step = min(initial * 2.0 ** (failures - 1), ceiling)
    assert isinstance(decision, Again)
    assert step / 2 <= decision.wait <= step


def test_past_the_limit_it_gives_up_and_says_how_often_it_tried() -> None:
    restarts = budget(limit=2)
    assert [type(failed(restarts, now)) for now in (0.0, 1.0)] == [Again, Again]
    assert failed(restarts, 2.0) == GiveUp("it broke; it ended 3 times within 100 s")


@pytest.mark.parametrize(("now", "decision"), [(99.999, GiveUp), (100.0, Again), (1e6, Again)])
def test_failures_are_forgotten_when_the_window_has_passed(now: float, decision: type) -> None:
    restarts = budget(limit=1)
    failed(restarts, 0.0)
    assert type(failed(restarts, now)) is decision


def test_after_the_window_the_first_wait_is_short_again() -> None:
    restarts = budget(limit=5)
    for now in (0.0, 1.0, 2.0):
        failed(restarts, now)
    assert failed(restarts, 500.0) == Again(0.5)


def test_ends_in_order_are_not_counted_where_only_failures_restart() -> None:
    restarts = budget(limit=1)
    for _ in range(10):
        assert restarts.ended(now=0.0, failed=False, why="", jitter=0.0) == Rest()
    assert isinstance(failed(restarts, 0.0), Again)


@given(st.integers(0, 5), st.lists(st.floats(0, 60), max_size=40))
def test_within_any_window_there_are_never_more_restarts_than_the_limit(
    limit: int, pauses: list[float]
) -> None:
    restarts, now, again = budget("always", limit), 0.0, []
    for pause in pauses:
        now += pause
        if isinstance(failed(restarts, now), Again):
            again.append(now)
    for moment in again:
        assert sum(moment - 100.0 < other <= moment for other in again) <= limit


def test_the_repr_tells_what_is_used() -> None:
    restarts = budget()
    failed(restarts, 0.0)
    assert repr(restarts) == "<RestartBudget 1 of 3 used>"
