"""Every cell passes what it is said to pass, and nothing that it is not said to: neither may change unseen."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.cells import CELLS, REVISIONS, Cell
from conformance.expected import REASONS, not_clean, vacuous
from conformance.judging import Runs, judging
from conformance.legs import LEG_SECONDS, scored, unscored
from conformance.report import line, row
from conformance.results import judge

DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance.md"

pytestmark = [pytest.mark.kernel, pytest.mark.interop, pytest.mark.timeout(2 * LEG_SECONDS)]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """All runs, begun at the first use."""
    with judging(tmp_path_factory.mktemp("conformance")) as all_runs:
        yield all_runs


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_cell_passes_what_is_expected_of_it_and_no_more(runs: Runs, cell: Cell) -> None:
    leg = runs.leg(cell)
    assert set(leg.outcomes) == scored(cell.revision) | unscored(cell.revision), leg.said
    fallen = {name: outcome.complaints for name, outcome in leg.outcomes.items() if not outcome.clean}
    assert fallen.keys() == not_clean(cell) | vacuous(cell.revision), fallen
    assert line(row(cell, leg.outcomes)) in DOCUMENT.read_text()


@pytest.mark.parametrize(("revision", "count"), [(REVISIONS[0], 30), (REVISIONS[1], 37)])
def test_the_sets_of_requirements_are_the_ones_that_were_frozen(revision: str, count: int) -> None:
    assert len(scored(revision)) == count


def test_what_is_not_clean_has_a_reason() -> None:
    unclean = [not_clean(cell) | vacuous(cell.revision) for cell in CELLS]
    assert REASONS.keys() == frozenset().union(*unclean)


def check(name: str, status: str) -> dict[str, str]:
    return {"id": name, "status": status, "errorMessage": "said why"}


def test_a_scenario_in_which_nothing_was_seen_to_hold_is_not_clean() -> None:
    understood = check("wire-schema-valid", "SUCCESS")
    skipped = judge([understood, check("a", "SKIPPED")])
    assert (skipped.passed, skipped.clean) == (True, False)
    assert judge([understood, check("a", "SUCCESS")]).clean
    warned = judge([check("a", "SUCCESS"), check("b", "WARNING")])
    assert (warned.passed, warned.clean, warned.complaints) == (True, False, ("b: said why",))
    assert not judge([check("a", "SUCCESS"), check("wire-schema-valid", "FAILURE")]).passed
