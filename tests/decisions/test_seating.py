"""Who gets which process: against examples, and against what must hold whatever there is and whoever waits."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from mcphost.decisions.seating import Seat, Seating, SeatState, Waiter, arrange

A, B = Waiter("a"), Waiter("b")


def seat(name: int, state: SeatState = "idle", kind: str = "a", **more: bool) -> Seat:
    return Seat(name, kind, state, **more)


def test_an_idle_process_of_the_kind_is_given_and_otherwise_one_is_started() -> None:
    assert arrange([A, B], [seat(1)], 2) == Seating(given={0: 1}, start=[1])


def test_one_that_starts_is_promised_to_the_first_and_the_second_has_another() -> None:
    assert arrange([A], [seat(1, "starting")], 4) == Seating()
    assert arrange([A, A], [seat(1, "starting")], 4) == Seating(start=[1])


def test_one_that_ends_makes_room_for_the_first_who_waits() -> None:
    assert arrange([A], [seat(1, "ending")], 1) == Seating()
    assert arrange([A, B], [seat(1, "ending"), seat(2, "busy")], 2) == Seating()


def test_where_all_places_are_taken_an_idle_one_of_another_kind_ends_and_no_more_than_needed() -> None:
    full = [seat(1, "busy"), seat(2), seat(3)]
    assert arrange([B], full, 3) == Seating(end=[2])
    assert arrange([B], [seat(1, "busy"), seat(2, "ending"), seat(3)], 3) == Seating()


def test_the_first_in_line_has_its_room_before_a_later_one_has_its_kind() -> None:
    assert arrange([B, A], [seat(1)], 1) == Seating(end=[1])


def test_the_fixed_one_is_given_first_never_ended_and_not_counted() -> None:
    main = seat(0, fixed=True)
    assert arrange([A, A], [main], 1) == Seating(given={0: 0}, start=[1])
    assert arrange([B], [main, seat(1, "busy")], 1) == Seating()
    assert arrange([A], [replace(main, state="busy")], 0) == Seating()


def test_a_reserved_one_is_for_who_names_it_and_makes_room_last() -> None:
    kept = seat(1, reserved=True)
    assert arrange([A], [kept], 2) == Seating(start=[0])
    assert arrange([Waiter("x", pinned=1)], [kept], 2) == Seating(given={0: 1})
    assert arrange([B], [kept, seat(2)], 2) == Seating(end=[2])
    assert arrange([B], [kept], 1) == Seating(end=[1])
    assert arrange([Waiter("x", pinned=1), B], [kept], 1) == Seating(given={0: 1})


def test_who_names_a_busy_process_waits_for_it_and_one_that_is_ending_is_gone() -> None:
    wish = Waiter("a", pinned=1)
    assert arrange([wish], [seat(1, "busy")], 4) == Seating()
    assert arrange([wish, wish], [seat(1)], 4) == Seating(given={0: 1})
    assert arrange([wish], [seat(1, "ending")], 4) == Seating(gone=[0])
    assert arrange([wish], [], 4) == Seating(gone=[0])


kinds = st.sampled_from("abc")
states: st.SearchStrategy[SeatState] = st.sampled_from(["starting", "idle", "busy", "ending"])
seats_of = st.lists(st.tuples(kinds, states, st.booleans()), max_size=5).map(
    lambda rows: [
        Seat(name, kind, state, reserved=reserved and state == "idle")
        for name, (kind, state, reserved) in enumerate(rows, 1)
    ]
)
waiters_of = st.lists(st.builds(Waiter, kinds, st.none() | st.none() | st.integers(0, 6)), max_size=6)


@settings(max_examples=300)
@given(waiters_of, seats_of, st.integers(0, 5))
def test_whatever_there_is_the_bounds_hold_and_nothing_is_given_twice(
    waiters: list[Waiter], seats: list[Seat], limit: int
) -> None:
    plan = arrange(waiters, seats, limit)
    by_name = {each.name: each for each in seats}
    assert len(set(plan.given.values())) == len(plan.given)
    assert not set(plan.given.values()) & set(plan.end)
    for place, name in plan.given.items():
        given_seat, waiter = by_name[name], waiters[place]
        assert given_seat.state == "idle"
        assert waiter.pinned in {None, name}
        assert waiter.pinned == name or (given_seat.kind == waiter.kind and not given_seat.reserved)
    assert all(by_name[name].state == "idle" for name in plan.end)
    assert len(seats) + len(plan.start) <= max(limit, len(seats))
    assert not {*plan.given} & {*plan.start, *plan.gone}


class World:
    """A small world that does what it is told, in steps."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting: list[tuple[int, str]] = []
        self.seats: list[Seat] = []
        self.served: dict[str, list[int]] = {}
        self.names = count(1)

    def turn(self, names: Iterable[int], state: SeatState) -> None:
        chosen = set(names)
        self.seats = [replace(each, state=state) if each.name in chosen else each for each in self.seats]

    def settle(self) -> None:
        while self.step():
            assert len(self.seats) <= self.limit

    def step(self) -> bool:
        self.seats = [each for each in self.seats if each.state != "ending"]
        self.turn([each.name for each in self.seats if each.state == "starting"], "idle")
        plan = arrange([Waiter(kind) for _, kind in self.waiting], self.seats, self.limit)
        self.turn(plan.end, "ending")
        self.turn(plan.given.values(), "busy")
        self.seats += [Seat(next(self.names), self.waiting[place][1], "starting") for place in plan.start]
        for place in plan.given:
            number, kind = self.waiting[place]
            self.served.setdefault(kind, []).append(number)
        self.waiting = [each for place, each in enumerate(self.waiting) if place not in plan.given]
        return plan != Seating()

    def free(self, index: int) -> None:
        busy = [each.name for each in self.seats if each.state == "busy"]
        if busy:
            self.turn([busy[index % len(busy)]], "idle")


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), kinds, st.integers(0, 9)), max_size=30), st.integers(1, 3))
def test_everybody_is_served_and_of_one_kind_nobody_overtakes_however_calls_come_and_go(
    steps: list[tuple[bool, str, int]], limit: int
) -> None:
    world = World(limit)
    for number, (comes, kind, index) in enumerate(steps):
        if comes:
            world.waiting.append((number, kind))
        else:
            world.free(index)
        world.settle()
    for _ in steps:
        world.free(0)
        world.settle()
    assert world.waiting == []
    assert all(order == sorted(order) for order in world.served.values())
