"""Who gets which process of a worker set, where calls need one to themselves: in the order they are given.

A pure decision over what there is and who waits. It is made anew whenever either changes, and may say nothing.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

SeatState = Literal["starting", "idle", "busy", "ending"]


@dataclass(frozen=True, slots=True)
class Seat:
    """One process that serves one call chain at a time. Processes of one `kind` can stand in for each other.

    `fixed` is one that is always there, and neither counted nor ended here. `reserved` waits for the call chain that
    it served before, and is given to nobody else.
    """

    name: int
    kind: Hashable
    state: SeatState
    fixed: bool = False
    reserved: bool = False


@dataclass(frozen=True, slots=True)
class Waiter:
    """A call that waits for a process of a kind, or for the one named by `pinned`."""

    kind: Hashable
    pinned: int | None = None


@dataclass(slots=True)
class Seating:
    """What to do. Waiters are meant by their places, seats by their names.

    `given` says which seat each gets; a process is to be started for each of `start`; the seats of `end` make room;
    `gone` wait for a seat that is no more.
    """

    given: dict[int, int] = field(default_factory=dict)
    start: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)


def arrange(waiters: Sequence[Waiter], seats: Sequence[Seat], limit: int) -> Seating:
    """Seat those who can be seated. `waiters` in the order of their turns, `seats` in the order of preference.

    Nobody is seated before somebody whose turn is earlier and could have had the same place. A process that is starting or
    ending is promised to the first who can use what it becomes. When all `limit` places are taken an idle process makes
    room, the first in `seats`, and a reserved one only if there is no other.
    """
    plan = Seating()
    free = [seat for seat in seats if seat.state in {"starting", "idle"} and not seat.reserved]
    ending = sum(seat.state == "ending" and not seat.fixed for seat in seats)
    taken = sum(not seat.fixed for seat in seats)
    claimed: set[int] = set()
    for place, waiter in enumerate(waiters):
        if waiter.pinned is not None:
            _seat_pinned(plan, place, waiter.pinned, seats, claimed)
            continue
        seat = _best(waiter.kind, [each for each in free if each.name not in claimed])
        if seat is not None:
            claimed.add(seat.name)
            if seat.state == "idle":
                plan.given[place] = seat.name
        elif ending:
            ending -= 1  # its place is the waiter's as soon as it has ended
        elif taken < limit:
            taken += 1
            plan.start.append(place)
        else:
            room = _room(seats, claimed)
            if room is not None:
                claimed.add(room)
                plan.end.append(room)
    return plan


def _best(kind: Hashable, free: list[Seat]) -> Seat | None:
    """An idle one if there is any, else one that will be."""
    fitting = [seat for seat in free if seat.kind == kind]
    return next((seat for seat in fitting if seat.state == "idle"), fitting[0] if fitting else None)


def _room(seats: Sequence[Seat], claimed: set[int]) -> int | None:
    """The idle process that can best be done without."""
    idle = [each for each in seats if each.state == "idle" and not each.fixed and each.name not in claimed]
    idle.sort(key=lambda each: each.reserved)  # stable
    return idle[0].name if idle else None


def _seat_pinned(plan: Seating, place: int, name: int, seats: Sequence[Seat], claimed: set[int]) -> None:
    seat = next((each for each in seats if each.name == name and each.state != "ending"), None)
    if seat is None:
        plan.gone.append(place)
    elif seat.state == "idle" and name not in claimed:
        claimed.add(name)
        plan.given[place] = name
