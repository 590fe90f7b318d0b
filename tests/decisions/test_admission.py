"""The gate: how many calls of a tenant are under way, and how often they come."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mcphost.decisions.admission import OVERLOAD_WAIT_SECONDS, Gate, Limits
from mcphost.decisions.ratelimit import Rate
from mcphost.errors import Overloaded, RateLimited


class GateAgainstCounters(RuleBasedStateMachine):
    """Calls come and go while time passes; the model counts them in whole units of one call's interval."""

    @initialize(burst=st.integers(1, 4), concurrency=st.none() | st.integers(1, 3))
    def begin(self, burst: int, concurrency: int | None) -> None:
        self.gate = Gate(Limits(Rate(1.0, burst), concurrency))
        self.burst = self.level = burst
        self.concurrency = concurrency
        self.inside = 0
        self.now = 1000

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.level = min(self.burst, self.level + seconds)

    @rule()
    def enter(self) -> None:
        refusal = None
        try:
            self.gate.enter(float(self.now))
        except (Overloaded, RateLimited) as error:
            refusal = (type(error), error.retry_after)
        if self.inside == self.concurrency:
            assert refusal == (Overloaded, OVERLOAD_WAIT_SECONDS)
        elif self.level == 0:
            assert refusal == (RateLimited, 1.0)
        else:
            assert refusal is None
            self.inside += 1
            self.level -= 1

    @precondition(lambda self: self.inside)
    @rule()
    def leave(self) -> None:
        self.gate.leave()
        self.inside -= 1

    @invariant()
    def agree(self) -> None:
        assert self.gate.under_way == self.inside


TestGateAgainstCounters = GateAgainstCounters.TestCase
TestGateAgainstCounters.settings = settings(max_examples=60, stateful_step_count=30)


def test_without_limits_every_call_is_admitted() -> None:
    gate = Gate(Limits())
    for _ in range(1000):
        gate.enter(0.0)
    assert gate.under_way == 1000


def test_a_call_refused_for_concurrency_costs_no_rate() -> None:
    gate = Gate(Limits(Rate(1.0, 2), 1))
    gate.enter(0.0)
    for _ in range(10):
        with pytest.raises(Overloaded, match="1 calls are under way"):
            gate.enter(0.0)
    gate.leave()
    gate.enter(0.0)


def test_a_call_refused_for_its_rate_takes_no_place() -> None:
    gate = Gate(Limits(Rate(1.0, 1), 5))
    gate.enter(0.0)
    with pytest.raises(RateLimited, match=r"try again in 0\.750 s") as caught:
        gate.enter(0.25)
    assert caught.value.retry_after == 0.75
    assert gate.under_way == 1


@pytest.mark.parametrize(
    ("concurrency", "text"), [(None, "<Gate 1 of any under way>"), (3, "<Gate 1 of 3 under way>")]
)
def test_the_repr_tells_the_load(concurrency: int | None, text: str) -> None:
    gate = Gate(Limits(None, concurrency))
    gate.enter(0.0)
    assert repr(gate) == text


def test_a_place_is_given_back_once_whoever_holds_it_last() -> None:
    gate = Gate(Limits(None, 1))
    place = gate.admit(0.0)
    with pytest.raises(Overloaded):
        gate.admit(0.0)
    assert repr(place) == "<Place held>"
    place.leave()
    place.leave()
    assert repr(place) == "<Place left>"
    assert gate.under_way == 0
    gate.admit(0.0)
    assert gate.under_way == 1


def test_a_request_of_a_call_that_has_its_place_costs_rate_and_nothing_else() -> None:
    gate = Gate(Limits(Rate(1.0, 2), 1))
    gate.admit(0.0)
    gate.charge(0.0)
    with pytest.raises(RateLimited):
        gate.charge(0.0)
    assert gate.under_way == 1
