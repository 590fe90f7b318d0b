"""The gate: how many calls of a tenant are under way, and how often they come."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mcphost.decisions.admission import (
    MAX_REMEMBERED,
    MAX_REMEMBERED_CHARACTERS,
    OVERLOAD_WAIT_SECONDS,
    Gate,
    ItemGates,
    Limits,
)
from mcphost.decisions.quota import DAY_SECONDS
from mcphost.decisions.ratelimit import Rate
from mcphost.errors import Overloaded, QuotaUsedUp, RateLimited


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


def test_past_the_days_quota_a_tenant_is_told_when_the_next_begins() -> None:
    gate = Gate(Limits(quota=2))
    noon = 20_000 * DAY_SECONDS + DAY_SECONDS / 2
    gate.enter(0.0, noon)
    gate.charge(0.0, noon)
    with pytest.raises(
        QuotaUsedUp, match="the day's quota is used up; the next day begins in 43200 s"
    ) as caught:
        gate.enter(0.0, noon)
    assert caught.value.retry_after == DAY_SECONDS / 2
    assert gate.under_way == 1
    gate.enter(0.0, noon + DAY_SECONDS)


def test_a_call_refused_for_its_rate_costs_no_quota() -> None:
    gate = Gate(Limits(Rate(1.0, 1), quota=2))
    gate.enter(0.0)
    for _ in range(5):
        with pytest.raises(RateLimited, match="rate limit reached"):
            gate.enter(0.0)
    gate.enter(1.0)


def test_a_call_counts_for_each_pattern_that_it_matches_and_for_no_other() -> None:
    gates = ItemGates(
        {"clock/*": Limits(None, 2), "clock/now": Limits(Rate(1.0, 1)), "*/now": Limits(None, 9)}
    )
    assert [repr(gate) for gate in gates.of("clock", "now")] == [
        "<Gate of clock/* 0 of 2 under way>",
        "<Gate of clock/now 0 of any under way>",
        "<Gate of */now 0 of 9 under way>",
    ]
    assert gates.of("clock", "convert") == gates.of("clock", "now")[:1]
    assert gates.of("notes", "add") == []
    assert gates.of("clock", "now") is gates.of("clock", "now")
    assert ItemGates({}).of("clock", "now") == ()
    assert repr(gates) == "<ItemGates 3 patterns>"


def test_names_that_clients_make_up_are_not_all_remembered() -> None:
    gates = ItemGates({"*": Limits(None, 1)})
    names = [str(number) for number in range(MAX_REMEMBERED + 10)] + ["x" * (MAX_REMEMBERED_CHARACTERS + 1)]
    assert {id(gates.of("fix", name)[0]) for name in names} == {id(gates.of("fix", "a")[0])}
    assert len(gates._known) == MAX_REMEMBERED


def test_a_place_is_had_at_all_gates_or_at_none_of_the_further_ones() -> None:
    tenant, server, tool = Gate(Limits()), Gate(Limits(None, 2), "fix/*"), Gate(Limits(None, 1), "fix/a")
    first, second = tenant.admit(0.0), tenant.admit(0.0)
    first.enter([server, tool], 0.0)
    with pytest.raises(Overloaded, match="1 calls of fix/a are under way"):
        second.enter([server, tool], 0.0)
    assert [gate.under_way for gate in (tenant, server, tool)] == [2, 1, 1]
    first.leave()
    assert [gate.under_way for gate in (tenant, server, tool)] == [1, 0, 0]
    second.enter([server, tool], 0.0)
    second.leave()
    assert [gate.under_way for gate in (tenant, server, tool)] == [0, 0, 0]
