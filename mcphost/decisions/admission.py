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
        self.charge(now)
        self.under_way += 1

    def charge(self, now: float) -> None:
        """Count a request of a call that has its place already: it costs rate and nothing else.

        Raises:
            RateLimited: the rate is used up; says when to come again.
        """
        if self._limiter is not None and (wait := self._limiter.wait_for(now)):
            raise RateLimited(f"rate limit reached; try again in {wait:.3f} s", retry_after=wait)

    def admit(self, now: float) -> "Place":
        """The same as `enter`, with the place as a thing that can be handed on."""
        self.enter(now)
        return Place(self)

    def leave(self) -> None:
        """A call that was admitted has ended."""
        self.under_way -= 1


class Place:
    """The place of one call among those under way. Whoever holds it last leaves it."""

    def __init__(self, gate: Gate) -> None:
        self._gate: Gate | None = gate

    def __repr__(self) -> str:
        return f"<Place {'left' if self._gate is None else 'held'}>"

    def leave(self) -> None:
        """Give it back. Idempotent."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.leave()
