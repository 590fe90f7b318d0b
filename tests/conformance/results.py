"""What the suite wrote down about one run, reduced to what counts."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# What the suite itself adds to every scenario: that it understood the messages. No scenario passes by that alone.
ALWAYS_THERE = frozenset({"wire-schema-valid"})
# A result's folder is the scenario's name between this and a time, which has 25 characters with its dash.
PREFIX, TIME_LENGTH = "server-", 25


@dataclass(frozen=True, slots=True)
class Outcome:
    """One scenario: how many checks of it passed, failed and warned, and what the last two said."""

    passes: int
    failures: int
    warnings: int
    complaints: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """As the suite itself counts: nothing failed."""
        return self.failures == 0

    @property
    def clean(self) -> bool:
        """As we count: nothing failed, nothing warned, and something was seen to hold."""
        return self.passed and self.warnings == 0 and self.passes > 0


def read(folder: Path) -> Mapping[str, Outcome]:
    """The outcome of every scenario that wrote its checks below a folder (`-o`)."""
    found = {}
    for file in sorted(folder.glob(f"{PREFIX}*/checks.json")):
        scenario = file.parent.name.removeprefix(PREFIX)[:-TIME_LENGTH]
        found[scenario] = judge(json.loads(file.read_text()))
    return found


def judge(checks: list[dict]) -> Outcome:
    """Count the checks of one scenario."""
    counts = Counter(check["status"] for check in checks if check["id"] not in ALWAYS_THERE)
    failed = [check for check in checks if check["status"] == "FAILURE"]
    warned = [check for check in checks if check["status"] == "WARNING"]
    complaints = tuple(f"{check['id']}: {check.get('errorMessage', '')}" for check in failed + warned)
    return Outcome(counts["SUCCESS"], len(failed), len(warned), complaints)
