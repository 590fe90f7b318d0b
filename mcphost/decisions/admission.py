"""Whether a call may begin now: one gate per tenant, and one for each of its limits on single items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mcphost.decisions.permissions import Pattern
from mcphost.decisions.quota import Quota
from mcphost.decisions.ratelimit import Rate, RateLimiter
from mcphost.errors import Overloaded, QuotaUsedUp, RateLimited

# What a refused client is told to wait where no rate gives the time: about one short call.
OVERLOAD_WAIT_SECONDS: Final = 1.0

# Items whose gates are kept per tenant, and the longest name among them: names come from clients.
MAX_REMEMBERED: Final = 4096
MAX_REMEMBERED_CHARACTERS: Final = 256


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what comes, `quota` on each day in UTC; None for no bound."""

    rate: Rate | None = None
    concurrency: int | None = None
    quota: int | None = None


class Gate:
    """Admits the calls of one tenant, or those of its calls that `what` names.

    Every `enter` that returns is followed by one `leave`. `now` is monotonic; `wall`, seconds since 1970, counts for a
    quota only.
    """

    def __init__(self, limits: Limits, what: str = "") -> None:
        self._limiter = RateLimiter(limits.rate) if limits.rate else None
        self._quota = Quota(limits.quota) if limits.quota else None
        self._concurrency = limits.concurrency
        self._of = f" of {what}" if what else ""
        self.under_way = 0

    def __repr__(self) -> str:
        return f"<Gate{self._of} {self.under_way} of {self._concurrency or 'any'} under way>"

    def enter(self, now: float, wall: float = 0.0) -> None:
        """Admit one call.

        Concurrency is judged first, so that a call refused for it costs no rate.

        Raises:
            Overloaded: as many calls are under way as may be.
            QuotaUsedUp: there were as many today as may be.
            RateLimited: the rate is used up; says when to come again.
        """
        self.check(now, wall)
        self._take(now, wall)
        self.under_way += 1

    def check(self, now: float, wall: float = 0.0) -> None:
        """Raise what `enter` would."""
        if self._concurrency is not None and self.under_way >= self._concurrency:
            message = f"{self.under_way} calls{self._of} are under way, the most allowed at once"
            raise Overloaded(message, retry_after=OVERLOAD_WAIT_SECONDS)
        self._check_often(now, wall)

    def charge(self, now: float, wall: float = 0.0) -> None:
        """Count a request that has its place already, or needs none: it costs rate and quota and nothing else.

        Raises:
            QuotaUsedUp, RateLimited: as `enter`.
        """
        self._check_often(now, wall)
        self._take(now, wall)

    def _check_often(self, now: float, wall: float) -> None:
        if self._quota is not None and (wait := self._quota.wait(wall)):
            message = f"the day's quota{self._of} is used up; the next day begins in {wait:.0f} s"
            raise QuotaUsedUp(message, retry_after=wait)
        if self._limiter is not None and (wait := self._limiter.wait(now)):
            raise RateLimited(f"rate limit{self._of} reached; try again in {wait:.3f} s", retry_after=wait)

    def _take(self, now: float, wall: float) -> None:
        if self._quota is not None:
            self._quota.take(wall)
        if self._limiter is not None:
            self._limiter.take(now)

    def admit(self, now: float, wall: float = 0.0) -> "Place":
        """The same as `enter`, with the place as a thing that can be handed on."""
        self.enter(now, wall)
        return Place(self)

    def leave(self) -> None:
        """A call that was admitted has ended."""
        self.under_way -= 1


class Place:
    """The place of one call among those under way, at each gate that it passed. Whoever holds it last leaves it."""

    def __init__(self, gate: Gate) -> None:
        self._gates = [gate]

    def __repr__(self) -> str:
        return f"<Place {'held' if self._gates else 'left'}>"

    def enter(self, gates: Sequence[Gate], now: float) -> None:
        """Pass further gates, all or none of them.

        Raises:
            Overloaded, RateLimited: as `Gate.enter`.
        """
        for gate in gates:
            gate.check(now)
        for gate in gates:
            gate.enter(now)
            self._gates.append(gate)

    def leave(self) -> None:
        """Give it back. Idempotent."""
        gates, self._gates = self._gates, []
        for gate in gates:
            gate.leave()


class ItemGates:
    """One tenant's limits on what `server/name` patterns name. A call counts for each pattern that it matches."""

    def __init__(self, limits: Mapping[str, Limits]) -> None:
        self._gates = [(Pattern.parse(text), Gate(each, text)) for text, each in limits.items()]
        self._known: dict[tuple[str, str], Sequence[Gate]] = {}

    def __repr__(self) -> str:
        return f"<ItemGates {len(self._gates)} patterns>"

    def of(self, server: str, name: str) -> Sequence[Gate]:
        """The gates that a call of an item has to pass."""
        if not self._gates:
            return ()
        key = (server, name)
        found = self._known.get(key)
        if found is None:
            found = [gate for pattern, gate in self._gates if pattern.matches(server, name)]
            if len(self._known) < MAX_REMEMBERED and len(name) <= MAX_REMEMBERED_CHARACTERS:
                self._known[key] = found
        return found
