"""Pages of a merged list, by position: which server's part, and how far into it.

A position survives what happens to the other parts: a server that comes up or goes down between two pages makes no
client begin again. It is stale when its own part has changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

# Many clients read the first page only, so one is larger than any list that a model can make use of.
PAGE_ITEMS: Final = 1000


class Listed(Protocol[T_co]):
    """One server's part of a list. Two of the same generation hold the same names in the same order."""

    @property
    def server(self) -> str:
        """Whose part it is."""
        ...

    @property
    def generation(self) -> str:
        """Tells whether an offset into the part still means what it meant."""
        ...

    @property
    def items(self) -> Sequence[T_co]:
        """What is listed."""
        ...


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page begins: `offset` items into the part of `server`, as it was in that generation."""

    server: str
    generation: str
    offset: int


class StalePosition(Exception):
    """The part that the position points into is another by now, or is not there."""


def cut(parts: Sequence[Listed[T]], start: Position | None, size: int) -> tuple[list[T], Position | None]:
    """The page of at most `size` items that begins at `start`, and where the next one begins, None after the last.

    Raises:
        StalePosition: the list is to be read from its beginning.
    """
    index, offset = _located(parts, start)
    found: list[T] = []
    for part in parts[index:]:
        room = size - len(found)
        if len(part.items) - offset > room:
            return [*found, *part.items[offset : offset + room]], Position(
                part.server, part.generation, offset + room
            )
        found.extend(part.items[offset:])
        offset = 0
    return found, None


def _located(parts: Sequence[Listed[T]], start: Position | None) -> tuple[int, int]:
    if start is None:
        return 0, 0
    for index, part in enumerate(parts):
        if part.server == start.server and part.generation == start.generation:
            return index, start.offset
    raise StalePosition
