"""Requests in flight: ids are ours, used once, and what is remembered of cancelled ones is bounded."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mcphost.protocol.pending import MAX_ABANDONED, Pending


class PendingAgainstTwoDicts(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pending: Pending[str] = Pending()
        self.waiting: dict[int, str] = {}
        self.abandoned: set[int] = set()
        self.used: list[int] = []

    some_id = st.integers(-1, 12)

    @rule()
    def add(self) -> None:
        identifier = self.pending.reserve()
        assert identifier not in self.used
        self.used.append(identifier)
        self.waiting[identifier] = f"entry {identifier}"
        self.pending.add(identifier, self.waiting[identifier])

    @rule(identifier=some_id)
    def take(self, identifier: int) -> None:
        assert self.pending.take(identifier) == self.waiting.pop(identifier, None)

    @rule(identifier=some_id)
    def abandon(self, identifier: int) -> None:
        entry = self.waiting.pop(identifier, None)
        assert self.pending.abandon(identifier) == entry
        if entry is not None:
            self.abandoned.add(identifier)

    @rule(identifier=some_id)
    def answer_late(self, identifier: int) -> None:
        assert self.pending.was_abandoned(identifier) == (identifier in self.abandoned)
        self.abandoned.discard(identifier)

    @rule()
    def drain(self) -> None:
        assert self.pending.drain() == list(self.waiting.values())
        self.waiting.clear()

    @invariant()
    def agree(self) -> None:
        assert len(self.pending) == len(self.waiting)
        for identifier in range(-1, 13):
            assert self.pending.get(identifier) == self.waiting.get(identifier)
            assert self.pending.is_abandoned(identifier) == (identifier in self.abandoned)


TestPendingAgainstTwoDicts = PendingAgainstTwoDicts.TestCase
TestPendingAgainstTwoDicts.settings = settings(max_examples=40, stateful_step_count=30)


def test_ids_are_never_used_twice_whatever_becomes_of_them() -> None:
    pending: Pending[str] = Pending()
    seen = set()
    for number in range(300):
        identifier = pending.reserve()
        assert identifier not in seen
        seen.add(identifier)
        pending.add(identifier, "entry")
        (pending.take if number % 3 else pending.abandon)(identifier)


def test_the_memory_of_abandoned_ids_is_bounded_and_forgets_the_oldest() -> None:
    pending: Pending[str] = Pending()
    ids = [pending.reserve() for _ in range(MAX_ABANDONED + 5)]
    for identifier in ids:
        pending.add(identifier, "entry")
        pending.abandon(identifier)
    remembered = [identifier for identifier in ids if pending.was_abandoned(identifier)]
    assert remembered == ids[5:]


def test_the_repr_tells_how_many_wait() -> None:
    pending: Pending[str] = Pending()
    pending.add(pending.reserve(), "entry")
    assert repr(pending) == "<Pending 1 waiting, next id 2>"
