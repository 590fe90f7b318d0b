"""Whether a call may begin now: one gate per tenant, over its rate and its calls under way."""

from dataclasses import dataclass
from typing import Final

from mcphost.decisions.ratelimit import Rate, RateLimiter
from mcphost.errors import Overloaded, RateLimited

# What a refused client is told to wait where no rate gives the time: about one short call.
OVERLOAD_WAIT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """A tenant's bounds; None for no bound."""

    rate: Rate | None = None
    concurrency: int | None = None


class Gate:
    """Admits the calls of one tenant. Every `enter` that returns is followed by one `leave`."""

    def __init__(self, limits: Limits) -> None:
        self._limiter = RateLimiter(limits.rate) if limits.rate else None
        self._concurrency = limits.concurrency
        self.under_way = 0

    def __repr__(self) -> str:
        return f"<Gate {self.under_way} of {self._concurrency or 'any'} under way>"

    def enter(self, now: float) -> None:
        """Admit one call at monotonic `now`.

        Concurrency is judged first, so that a call refused for it costs no rate.

        Raises:
            Overloaded: as many calls are under way as may be.
            RateLimited: the rate is used up; says when to come again.
        """
        if self._concurrency is not None and self.under_way >= self._concurrency:
            message = f"{self.under_way} calls are under way, the most allowed at once"
            raise Overloaded(message, retry_after=OVERLOAD_WAIT_SECONDS)
        if self._limiter is not None and (wait := self._limiter.wait_for(now)):
            raise RateLimited(f"rate limit reached; try again in {wait:.3f} s", retry_after=wait)
        self.under_way += 1

    def leave(self) -> None:
        """A call that was admitted has ended."""
        self.under_way -= 1
