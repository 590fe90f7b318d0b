"""Requests of ours that wait for an answer, and those whose answer is no longer wanted."""

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")

# A server may still answer a call that was cancelled; that is no fault of its own. So many ids are remembered.
MAX_ABANDONED = 1024


class Pending(Generic[T]):
    """Ids in flight on one connection, each with what belongs to it.

    Ids are ours and never a client's: two clients may use the same id at once, and a server may guess.
    """

    def __init__(self) -> None:
        self._next = 1
        self._waiting: dict[int, T] = {}
        self._abandoned: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def __repr__(self) -> str:
        return f"<Pending {len(self._waiting)} waiting, next id {self._next}>"

    def reserve(self) -> int:
        """A fresh id, for a message that must name itself."""
        identifier = self._next
        self._next += 1
        return identifier

    def add(self, identifier: int, entry: T) -> None:
        """Wait for the answer to a reserved id."""
        self._waiting[identifier] = entry

    def get(self, identifier: int) -> T | None:
        """What waits under an id."""
        return self._waiting.get(identifier)

    def take(self, identifier: int) -> T | None:
        """What waited under an id, now answered."""
        return self._waiting.pop(identifier, None)

    def abandon(self, identifier: int) -> T | None:
        """Stop waiting; a late answer to this id is no offence."""
        entry = self._waiting.pop(identifier, None)
        if entry is not None:
            self._abandoned[identifier] = None
            if len(self._abandoned) > MAX_ABANDONED:
                self._abandoned.popitem(last=False)
        return entry

    def was_abandoned(self, identifier: int) -> bool:
        """Whether an answer to this id may still arrive; asked once per id."""
        return self._abandoned.pop(identifier, self) is None

    def is_abandoned(self, identifier: int) -> bool:
        """Whether an id was abandoned and no answer to it has come yet."""
        return identifier in self._abandoned

    def drain(self) -> list[T]:
        """Everything that waits, waiting no more."""
        entries = list(self._waiting.values())
        self._waiting.clear()
        return entries
