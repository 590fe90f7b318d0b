"""Pages of a merged list: together they are the list, and a changed part makes its positions stale."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcphost.decisions.paging import Position, StalePosition, cut


@dataclass(frozen=True)
class Part:
    server: str
    items: tuple[str, ...]

    @property
    def generation(self) -> str:
        return ",".join(self.items)


parts_of = st.lists(st.lists(st.text("ab", max_size=2), max_size=5), max_size=5).map(
    lambda lists: [Part(f"s{number}", tuple(items)) for number, items in enumerate(lists)]
)


@given(parts_of, st.integers(1, 7))
def test_the_pages_together_are_the_list_and_none_but_the_last_is_short(parts: list[Part], size: int) -> None:
    found: list[str] = []
    position = None
    while True:
        page, position = cut(parts, position, size)
        found += page
        if position is None:
            break
        assert len(page) == size
    assert found == [item for part in parts for item in part.items]


@given(parts_of, st.integers(1, 3), st.data())
def test_a_position_outlives_changes_of_other_parts(
    parts: list[Part], size: int, data: st.DataObject
) -> None:
    _, position = cut(parts, None, size)
    if position is None:
        return
    index = next(number for number, part in enumerate(parts) if part.server == position.server)
    others = [part for part in parts[:index] if data.draw(st.booleans())]
    later = [Part("new", ("x",)), *parts[index + 1 :]]
    whole = [*others, parts[index], *later]
    page, _ = cut(whole, position, 100)
    assert page == [*parts[index].items[position.offset :], *(item for part in later for item in part.items)]


@pytest.mark.parametrize("parts", [[], [Part("two", ("a", "b"))], [Part("one", ("a", "c"))]])
def test_a_position_into_what_has_changed_or_is_gone_is_stale(parts: list[Part]) -> None:
    _, position = cut([Part("one", ("a", "b"))], None, 1)
    assert position == Position("one", "a,b", 1)
    with pytest.raises(StalePosition):
        cut(parts, position, 1)
