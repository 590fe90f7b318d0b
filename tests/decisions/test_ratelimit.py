"""The rate: against a plain token bucket, and never more than promised over any stretch of time."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcphost.decisions.ratelimit import FLOAT_SLACK_SECONDS, Rate, RateLimiter

rates = st.builds(Rate, st.sampled_from([0.5, 1.0, 2.0, 10.0, 64.0]), st.integers(1, 5))
# Steps that floats hold exactly, so that the model can be exact as well.
steps = st.lists(st.integers(0, 64).map(lambda part: part / 32), max_size=60)


class Bucket:
    """A token bucket in exact numbers: full at first, refilled at the rate, one token per call."""

    def __init__(self, rate: Rate) -> None:
        self.rate, self.level, self.at = rate, Fraction(rate.burst), Fraction(0)

    def take(self, now: Fraction) -> Fraction:
        """0 if a token was there, else the seconds until one is."""
        filled = self.level + (now - self.at) * Fraction(self.rate.per_second)
        self.level, self.at = min(Fraction(self.rate.burst), filled), now
        if self.level < 1:
            return (1 - self.level) / Fraction(self.rate.per_second)
        self.level -= 1
        return Fraction(0)


@given(rates.filter(lambda rate: rate.per_second != 10.0), steps)
def test_it_decides_as_a_token_bucket_does(rate: Rate, pauses: list[float]) -> None:
    limiter, bucket, now = RateLimiter(rate), Bucket(rate), 0.0
    for pause in pauses:
        now += pause
        assert limiter.wait_for(now) == bucket.take(Fraction(now))


@given(rates, st.lists(st.floats(0, 3), max_size=60))
def test_over_no_stretch_of_time_is_more_let_through_than_promised(rate: Rate, pauses: list[float]) -> None:
    limiter, now, passed = RateLimiter(rate), 5.0, []
    for pause in pauses:
        now += pause
        if limiter.wait_for(now) == 0.0:
            passed.append(now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            promised = rate.burst + (passed[last] - passed[first]) * rate.per_second
            assert last - first + 1 <= promised + 1e-6


@given(rates, st.floats(0, 1e7))
def test_a_quiet_party_has_its_whole_burst_and_no_more(rate: Rate, now: float) -> None:
    limiter = RateLimiter(rate)
    assert [limiter.wait_for(now) for _ in range(rate.burst)] == [0.0] * rate.burst
    assert limiter.wait_for(now) > 0


@given(rates, st.floats(0, 1e6), st.integers(0, 20))
def test_whoever_waits_as_long_as_told_is_let_through(rate: Rate, now: float, calls: int) -> None:
    limiter = RateLimiter(rate)
    for _ in range(calls):
        now += limiter.wait_for(now)
    wait = limiter.wait_for(now)
    assert wait == 0.0 or limiter.wait_for(now + wait) == 0.0


@given(rates, st.integers(1, 50))
def test_being_refused_costs_nothing(rate: Rate, refusals: int) -> None:
    limiter = RateLimiter(rate)
    for _ in range(rate.burst):
        limiter.wait_for(0.0)
    assert len({limiter.wait_for(0.0) for _ in range(refusals)}) == 1


@pytest.mark.parametrize("per_second", [0.1, 1 / 3, 7.0, 1000.0])
def test_steady_calls_at_exactly_the_rate_are_never_refused_for_rounding(per_second: float) -> None:
    limiter = RateLimiter(Rate(per_second, 1))
    for number in range(2000):
        assert limiter.wait_for(100.0 + number / per_second) == 0.0
    assert FLOAT_SLACK_SECONDS < 1e-6


@given(rates, st.integers(1, 8))
def test_a_call_of_a_larger_cost_is_let_through_and_delays_the_next_by_as_many(rate: Rate, cost: int) -> None:
    single, heavy = RateLimiter(rate), RateLimiter(rate)
    for _ in range(rate.burst - 1):
        assert single.wait_for(0.0) == heavy.wait_for(0.0) == 0.0
    assert single.wait_for(0.0) == heavy.wait_for(0.0, cost) == 0.0
    assert heavy.wait_for(0.0) - single.wait_for(0.0) == pytest.approx((cost - 1) / rate.per_second)


def test_the_repr_shows_the_interval() -> None:
    assert repr(RateLimiter(Rate(4.0, 1))) == "<RateLimiter every 0.25 s>"
