"""How often: the generic cell rate algorithm, one number of state per limited party.

Source: ITU-T I.371, annex A (virtual scheduling). A bucket of `burst` calls refills at `rate` per second.
"""

from dataclasses import dataclass
from typing import Final

# Rounding must not refuse a call that is on time.
FLOAT_SLACK_SECONDS: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_second` calls in the long run, at most `burst` at once."""

    per_second: float
    burst: int


class RateLimiter:
    """Decides for one party. Not for concurrent threads."""

    def __init__(self, rate: Rate) -> None:
        self._interval = 1.0 / rate.per_second
        self._tolerance = self._interval * (rate.burst - 1)
        self._due = 0.0  # theoretical arrival time of the next call

    def __repr__(self) -> str:
        return f"<RateLimiter every {self._interval:g} s>"

    def wait_for(self, now: float, cost: int = 1) -> float:
        """Take `cost` calls' worth at monotonic `now`: 0.0 if it may go on, else the seconds until one call may."""
        wait = self.wait(now)
        if not wait:
            self.take(now, cost)
        return wait

    def wait(self, now: float) -> float:
        """0.0 if one call may go on at `now`, else the seconds until one may."""
        wait = max(self._due, now) - self._tolerance - now
        return wait if wait > FLOAT_SLACK_SECONDS else 0.0

    def take(self, now: float, cost: int = 1) -> None:
        """Count so many calls, whether they may go on or not."""
        self._due = max(self._due, now) + self._interval * cost
