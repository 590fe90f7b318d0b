"""Who gives way where calls wait: whoever has the most, and nobody for another's sake who has one."""

from hypothesis import given
from hypothesis import strategies as st

from mcphost.decisions.crowding import gives_way
from mcphost.decisions.identity import Principal

ADA, BOB, EVE = (Principal("acme", name) for name in ("ada", "bob", "eve"))
principals = st.sampled_from([ADA, BOB, EVE])


def test_the_oldest_of_whoever_has_the_most_gives_way() -> None:
    assert gives_way([BOB, ADA, BOB, ADA, ADA], ()) == 1
    assert gives_way([BOB, ADA, ADA, BOB], ()) == 0


def test_an_only_call_gives_way_to_its_own_principal_and_to_nobody_else() -> None:
    assert gives_way([ADA, BOB], (EVE,)) is None
    assert gives_way([ADA, BOB], (EVE, BOB)) == 1
    assert gives_way([], (EVE,)) is None


@given(st.lists(principals, max_size=8), st.sets(principals))
def test_nobody_is_left_with_nothing_for_the_sake_of_others(
    parked: list[Principal], waiting: set[Principal]
) -> None:
    while (place := gives_way(parked, waiting)) is not None:
        owner = parked.pop(place)
        assert owner in parked or owner in waiting
