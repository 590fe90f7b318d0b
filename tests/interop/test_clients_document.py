"""The table of clients in the manual is what the tests try."""

import re

from interop.catalogue import ROOT
from interop.clients import RUNS, Run
from interop.steps import FEATURES

CLIENTS = (ROOT / "docs" / "clients.md").read_text()
ROW = re.compile(
    r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| (\d{4}-\d\d-\d\d) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE
)


def tried(run: Run) -> tuple[str, str, str, str, str]:
    left = [feature for feature, steps in FEATURES.items() if not steps <= run.tries]
    return run.client.name, run.mode, run.version, run.revision, ", ".join(left) or "-"


def test_the_table_of_clients_says_what_is_tried_with_which_version():
    assert [cells[:5] for cells in ROW.findall(CLIENTS)] == list(map(tried, RUNS.values()))


def test_whatever_is_not_tried_has_its_reason():
    for cells in ROW.findall(CLIENTS):
        assert (cells[4] == "-") == (cells[5] == "-"), cells
