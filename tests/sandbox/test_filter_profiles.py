"""Any JSON is a profile or one error that names the place; overlays do what they say, in whatever order."""

import copy
import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import FilterInvalid
from sandbox.seccomp import bpf, filters
from sandbox.seccomp.bpf import ALLOW, ARCHITECTURES, ERRNO, Comparison, Condition, simulate
from sandbox.seccomp.filter_profiles import Overlay, Profile, overlaid, read_overlay, read_profile

CALLS = filters.call_names()
DEFAULT = json.loads((Path(filters.__file__).parent / "profiles" / "default.json").read_text())
DEFAULT["allow"] = DEFAULT["allow"][:8]
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False)
JSON = st.recursive(
    SCALARS | st.sampled_from(["read", "any-of", "EPERM", "0x10", 32, 64]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def places(value: object, path: tuple = ()) -> list[tuple]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


def replaced(value: object, path: tuple, new: object) -> object:
    if not path:
        return new
    copied = copy.copy(value)
    copied[path[0]] = replaced(value[path[0]], path[1:], new)
    return copied


@settings(max_examples=300)
@given(st.data())
def test_a_profile_with_anything_in_any_place_is_one_or_is_refused_there(data):
    everywhere = places(DEFAULT)
    deep = [place for place in everywhere if place[:1] == ("conditions",)]
    path = data.draw(st.sampled_from(everywhere) | st.sampled_from(deep))
    for reads, value in (
        (read_profile, replaced(DEFAULT, path, data.draw(JSON))),
        (read_overlay, data.draw(JSON)),
    ):
        try:
            reads(value, CALLS)
        except FilterInvalid:
            continue


NAMES = st.sampled_from(["read", "write", "socket", "kill"])
WIDE = st.builds(
    lambda values, negated: Condition(
        ((Comparison(0, tuple(values), 2**32 - 1, 32, negated=negated),),), ERRNO | 97
    ),
    st.lists(st.integers(0, 4), min_size=1, max_size=3),
    st.booleans(),
)
OVERLAYS = st.builds(
    Overlay,
    allow=st.frozensets(NAMES, max_size=2),
    widen=st.dictionaries(NAMES, WIDE, max_size=2),
    narrow=st.dictionaries(NAMES, WIDE, max_size=2),
    refuse=st.dictionaries(NAMES, st.just(ERRNO | 1), max_size=1),
)
RULES = st.dictionaries(NAMES, st.just(ALLOW) | st.just(ERRNO | 13) | WIDE, max_size=4)


@given(RULES, st.lists(OVERLAYS, max_size=3), NAMES, st.integers(0, 6))
def test_what_overlays_let_through_does_not_depend_on_their_order(rules, overlays, call, argument):
    profile = Profile("any", rules, ERRNO | 1, ERRNO | 38)

    def lets(chosen: list[Overlay]) -> bool:
        rule = overlaid(profile, chosen).rule(call)
        arguments = (argument, 0, 0, 0, 0, 0)
        return (rule.answer(arguments) if isinstance(rule, Condition) else rule) == ALLOW

    assert lets(overlays) == lets(overlays[::-1])
    assert not (lets(overlays) and any(call in overlay.refuse for overlay in overlays))
    for narrowed in (overlay.narrow.get(call) for overlay in overlays):
        if narrowed is not None and lets(overlays):
            assert narrowed.answer((argument, 0, 0, 0, 0, 0)) == ALLOW


@settings(max_examples=60)
@given(
    st.sampled_from(filters.SHIPPED),
    st.sampled_from(sorted(CALLS)),
    st.tuples(*[st.integers(0, 2**64 - 1)] * 6),
)
def test_a_counting_filter_lets_through_what_the_plain_one_does_and_asks_about_the_rest(
    name, call, arguments
):
    for machine in ARCHITECTURES:
        number = filters.numbers(machine).get(call)
        both = filters.filter_for(name, machine, frozenset())
        if number is None:
            continue
        plain, asked = (
            simulate(each, ARCHITECTURES[machine], number, arguments) for each in (both.plain, both.counting)
        )
        if asked == bpf.NOTIFY:
            assert both.refusals[number] == (call, plain ^ ERRNO)
        else:
            assert asked == plain
            assert plain in {ALLOW, ERRNO, ERRNO | 38}
