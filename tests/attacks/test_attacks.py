"""Every attack in every place, by what the attacker saw: with all walls, with each alone, and with none of them.

The attacks are in the modules of `catalogue`, what must come of them is decided in `expect`.
"""

import platform
from functools import cache
from pathlib import Path

import pytest

from attacks import catalogue, expect, machine, places, table

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

PAGE = Path(__file__).parents[2] / "docs/attacks.md"
OURS = ("root", "user", "degraded")
V2 = pytest.param(
    "v2", marks=pytest.mark.skipif(platform.machine() != "x86_64", reason="needs a kernel package for amd64")
)


@cache
def report(mode: str):
    """One trial for all tests of a place."""
    if mode == "v2":
        # Without proofs, which take minutes there; `make attacks` has them.
        return machine.examine(proofs=False)
    return places.examine(mode)


@pytest.mark.parametrize("attack", catalogue.ATTACKS, ids=lambda attack: attack.name)
@pytest.mark.parametrize("mode", [*OURS, V2])
def test_an_attack_is_stopped_by_each_of_its_walls_and_by_nothing_else(mode, attack):
    assert expect.mistakes(attack, report(mode)) == []


@pytest.mark.parametrize("mode", [*OURS, V2])
def test_the_fork_server_serves_after_everything(mode):
    assert report(mode)["serves"]


@pytest.mark.parametrize("mode", ["root", "user", V2])
def test_everything_is_blocked_but_what_is_accepted(mode):
    left = {name for name, row in report(mode)["rows"].items() if row["with"][0] != "blocked"}
    assert left == {attack.name for attack in catalogue.ATTACKS if attack.accepted}


@pytest.mark.parametrize("mode", ["root", "user"])
def test_hardly_anything_is_left_unproved(mode):
    unproved = [attack.name for attack in catalogue.ATTACKS if table.unprovable(attack, report(mode))]
    assert len(unproved) <= 5, unproved


def test_bubblewrap_in_its_usual_form_stops_fewer():
    count = table.totals(catalogue.ATTACKS, {mode: report(mode) for mode in ("user", "bubblewrap")})
    assert count["bubblewrap"]["blocked"] < count["user"]["blocked"]


def test_there_are_as_many_attacks_as_promised_and_none_twice():
    names = [attack.name for attack in catalogue.ATTACKS]
    assert len(names) == len(set(names)) >= 150


def test_the_page_names_every_attack_and_no_other():
    lines = [line.split(" | ") for line in PAGE.read_text("utf-8").splitlines() if line.count(" | ") > 4]
    rows = [line[0].removeprefix("| ") for line in lines]
    assert [row for row in rows if row not in {"attack", "place", "---"}] == [
        attack.title for attack in catalogue.ATTACKS
    ]
