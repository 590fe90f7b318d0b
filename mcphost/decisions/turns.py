"""Whose turn it is, where tenants want the same thing and there is not enough of it: start-time fair queuing.

Source: Goyal, Vin and Cheng, Start-time Fair Queuing, SIGCOMM 1996. All calls count alike, however long they take. A
tenant has one tag: when, in virtual time, its next call begins. The lowest tag is next, and moves on by one call
divided by the tenant's weight. Virtual time is the tag of the call that was served last, and a tenant that comes back
begins there: nobody saves up turns while away, and a call that is given up while it waits has cost nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mcphost.errors import Overloaded

# One call in virtual time, an integer so that nothing is ever lost to rounding; all weights up to 16 divide it.
_CALL: Final = 720_720 << 20

# What those are told to wait who found the line full or waited in it in vain: about one short call.
COME_AGAIN_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Party:
    """A tenant among others: of two that wait all the time, one of twice the weight has twice the turns."""

    tenant: str = ""
    weight: int = 1


class Turns:
    """The tags of all tenants. One for each thing that they compete for."""

    def __init__(self) -> None:
        self._now = 0
        self._tags: dict[str, int] = {}  # those that are not past, so of tenants served lately

    def __repr__(self) -> str:
        return f"<Turns {len(self._tags)} tenants>"

    def tag(self, tenant: str) -> int:
        """When its next call begins, in virtual time."""
        return max(self._now, self._tags.get(tenant, 0))

    def served(self, party: Party) -> None:
        """It had its turn."""
        self._now = self.tag(party.tenant)
        self._tags = {tenant: tag for tenant, tag in self._tags.items() if tag > self._now}
        self._tags[party.tenant] = self._now + _CALL // party.weight

    def order(self, waiting: Sequence[Party]) -> list[int]:
        """The places of those who wait, given in the order they came, in the order of their turns."""
        coming: dict[str, int] = {}
        keys = []
        for place, party in enumerate(waiting):
            tag = coming.get(party.tenant, self.tag(party.tenant))
            coming[party.tenant] = tag + _CALL // party.weight
            keys.append((tag, place))
        return [place for _, place in sorted(keys)]


@dataclass(slots=True, eq=False)
class Ticket:
    """One call that wants a slot. `number` says when it came."""

    party: Party
    number: int
    served: bool = False


class FairSlots:
    """So many slots, and those who wait for one. Every `join` that returns is followed by one `leave`."""

    def __init__(self, slots: int, waiting_each: int) -> None:
        """At most `waiting_each` calls of one tenant wait."""
        self.free = slots
        self._waiting_each = waiting_each
        self._turns = Turns()
        self._lines: dict[str, dict[Ticket, None]] = {}  # by tenant, none empty; each in the order they came
        self._joined = 0

    def __repr__(self) -> str:
        return f"<FairSlots {self.free} free, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return sum(map(len, self._lines.values()))

    def join(self, party: Party) -> Ticket:
        """Want a slot. It is `served` at once if one is free, else the result of a later `leave`.

        Raises:
            Overloaded: too many of the tenant's wait already.
        """
        line: Mapping[Ticket, None] = self._lines.get(party.tenant, {})
        if len(line) >= self._waiting_each:
            raise Overloaded(f"{len(line)} calls wait for this server", retry_after=COME_AGAIN_SECONDS)
        self._joined += 1
        ticket = Ticket(party, self._joined)
        if self.free:  # then nobody waits
            self.free -= 1
            self._serve(ticket)
        else:
            self._lines.setdefault(party.tenant, {})[ticket] = None
        return ticket

    def leave(self, ticket: Ticket) -> Ticket | None:
        """Give the slot back, or give up waiting: who is served now, if anybody."""
        if not ticket.served:
            self._unqueue(ticket)
            return None
        if not self._lines:
            self.free += 1
            return None
        heads = (next(iter(line)) for line in self._lines.values())
        following = min(heads, key=lambda head: (self._turns.tag(head.party.tenant), head.number))
        self._unqueue(following)
        self._serve(following)
        return following

    def _serve(self, ticket: Ticket) -> None:
        ticket.served = True
        self._turns.served(ticket.party)

    def _unqueue(self, ticket: Ticket) -> None:
        line = self._lines[ticket.party.tenant]
        del line[ticket]
        if not line:
            del self._lines[ticket.party.tenant]
