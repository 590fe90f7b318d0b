"""Fair queuing: to every backlogged tenant its share, nobody starved, nothing lost to who gives up."""

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mcphost.decisions.turns import COME_AGAIN_SECONDS, FairSlots, Party, Ticket, Turns
from mcphost.errors import Overloaded

WEIGHTS = {
    "one": 1,
    "two": 2,
    "five": 5,
    "seven": 7,
}  # they divide a call in virtual time, so shares are exact
PARTIES = {name: Party(name, weight) for name, weight in WEIGHTS.items()}
EACH = 5


class CallsComeAndGo(RuleBasedStateMachine):
    """Any pattern of arrivals, ends and cancellations, beside plain lists of who waits and who is served."""

    @initialize(slots=st.integers(1, 3))
    def begin(self, slots: int) -> None:
        self.slots = slots
        self.line = FairSlots(slots, EACH)
        self.waiting: list[Ticket] = []
        self.inside: list[Ticket] = []
        # Of each pair: what either was served since when both began to wait, as long as both still do.
        self.runs: dict[tuple[str, str], Counter[str]] = {}
        self.passed: dict[Ticket, Counter[str]] = {}  # who was served while one was the first of its tenant

    def waits(self, name: str) -> int:
        return sum(ticket.party.tenant == name for ticket in self.waiting)

    @rule(name=st.sampled_from(sorted(WEIGHTS)), many=st.integers(1, EACH))
    def join(self, name: str, many: int) -> None:
        for _ in range(many):
            if self.waits(name) == EACH:
                with pytest.raises(Overloaded, match="5 calls wait") as caught:
                    self.line.join(PARTIES[name])
                assert caught.value.retry_after == COME_AGAIN_SECONDS
                return
            ticket = self.line.join(PARTIES[name])
            assert ticket.served == (len(self.inside) < self.slots)
            (self.inside if ticket.served else self.waiting).append(ticket)
        self.note_runs()

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        ended = data.draw(st.sampled_from(self.inside))
        self.inside.remove(ended)
        following = self.line.leave(ended)
        assert (following is None) == (not self.waiting)
        if following is not None:
            self.served(following)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        assert self.line.leave(ticket) is None
        self.waiting.remove(ticket)
        self.passed.pop(ticket, None)
        self.note_runs()

    def served(self, ticket: Ticket) -> None:
        name = ticket.party.tenant
        assert ticket is next(
            each for each in self.waiting if each.party.tenant == name
        )  # in the order they came
        for run in self.runs.values():
            run[name] += 1
        for first, passed in self.passed.items():
            if first is not ticket:
                passed[name] += 1
        self.waiting.remove(ticket)
        self.inside.append(ticket)
        self.passed.pop(ticket, None)
        self.check_shares()
        self.note_runs()

    def note_runs(self) -> None:
        backlogged = sorted(name for name in WEIGHTS if self.waits(name))
        pairs = {(a, b) for a in backlogged for b in backlogged if a < b}
        self.runs = {pair: self.runs.get(pair, Counter()) for pair in pairs}
        for name in backlogged:
            first = next(each for each in self.waiting if each.party.tenant == name)
            self.passed.setdefault(first, Counter())

    def check_shares(self) -> None:
        for (a, b), run in self.runs.items():
            apart = abs(Fraction(run[a], WEIGHTS[a]) - Fraction(run[b], WEIGHTS[b]))
            assert apart <= Fraction(1, WEIGHTS[a]) + Fraction(1, WEIGHTS[b])

    @invariant()
    def nobody_waits_beside_a_free_slot(self) -> None:
        assert self.line.free == self.slots - len(self.inside)
        assert self.line.waiting == len(self.waiting)
        assert not (self.waiting and self.line.free)

    @invariant()
    def nobody_starves(self) -> None:
        for first, passed in self.passed.items():
            for name, times in passed.items():
                assert times <= WEIGHTS[name] / first.party.weight + 2


TestCallsComeAndGo = CallsComeAndGo.TestCase
TestCallsComeAndGo.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.sampled_from(sorted(WEIGHTS)), min_size=2, max_size=4, unique=True), st.integers(1, 60))
def test_who_wait_from_the_beginning_are_each_within_one_call_of_their_weight(
    names: list[str], calls: int
) -> None:
    line = FairSlots(1, 100)
    ticket = line.join(Party("somebody"))
    for _ in range(calls):
        for name in names:
            line.join(PARTIES[name])
    served: Counter[str] = Counter()
    for _ in range(calls):  # nobody's line runs out
        following = line.leave(ticket)
        assert following is not None
        ticket = following
        served[ticket.party.tenant] += 1
        turns = [Fraction(served[name], WEIGHTS[name]) for name in names]
        assert max(turns) - min(turns) <= max(Fraction(1, WEIGHTS[name]) for name in names)


def test_one_call_behind_a_hundred_of_another_tenant_is_next() -> None:
    line = FairSlots(1, 100)
    busy = [line.join(PARTIES["one"]) for _ in range(101)]
    late = line.join(Party("late"))
    assert line.leave(busy[0]) is late
    assert line.leave(late) is busy[1]


def test_who_was_away_has_saved_nothing_up() -> None:
    line = FairSlots(1, 100)
    ticket = line.join(PARTIES["one"])
    for _ in range(50):
        following = line.join(PARTIES["one"])
        assert line.leave(ticket) is following
        ticket = following
    for _ in range(4):
        line.join(Party("back"))
        line.join(PARTIES["one"])
    order = []
    while (following := line.leave(ticket)) is not None:
        ticket = following
        order.append(ticket.party.tenant)
    assert order == ["back", "one"] * 4


def test_calls_given_up_while_they_wait_have_cost_no_turns() -> None:
    line = FairSlots(1, 100)
    ticket = line.join(Party("somebody"))
    for each in [line.join(PARTIES["one"]) for _ in range(20)]:
        line.leave(each)
    other, own = line.join(PARTIES["two"]), line.join(PARTIES["one"])
    assert line.leave(ticket) is other
    assert line.leave(other) is own


@given(st.lists(st.sampled_from(sorted(WEIGHTS)), max_size=30), st.lists(st.sampled_from(sorted(WEIGHTS))))
def test_the_order_of_all_is_that_of_one_turn_after_the_other(waiting: list[str], before: list[str]) -> None:
    turns = Turns()
    for name in before:
        turns.served(PARTIES[name])
    order = turns.order([PARTIES[name] for name in waiting])
    assert sorted(order) == list(range(len(waiting)))
    left, one_by_one = dict(enumerate(waiting)), []
    while left:
        place = min(left, key=lambda each: (turns.tag(left[each]), each))
        turns.served(PARTIES[left.pop(place)])
        one_by_one.append(place)
    assert order == one_by_one


def test_the_reprs_tell_who_waits() -> None:
    line = FairSlots(1, 5)
    line.join(Party())
    line.join(Party())
    assert repr(line) == "<FairSlots 0 free, 1 waiting>"
    turns = Turns()
    turns.served(Party("a"))
    assert repr(turns) == "<Turns 1 tenants>"
