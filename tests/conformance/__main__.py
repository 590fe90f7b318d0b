"""`python -m conformance --write docs/conformance.md`: judge every cell and write down what came out.

To be run with tests/ and the repository on PYTHONPATH. Exits with 1 when a cell is not as it is expected to be.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from conformance import legs
from conformance.cells import CELLS, endpoints
from conformance.expected import not_clean, vacuous
from conformance.judging import judging
from conformance.product import ANSWER_TIME, PARKED, WARM
from conformance.report import document
from mcphost import __version__


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="conformance")
    parser.add_argument("--write", type=Path, required=True, help="the file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="conformance-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with judging(folder, everything=True) as runs:
            results = {cell: runs.leg(cell).outcomes for cell in CELLS}
            everything = {
                served: runs.everything(served).outcomes for served in endpoints() if served.is_plain
            }
    told = {
        "suite": legs.version(),
        "node": legs.node_version(),
        "product": __version__,
        "answer_time": ANSWER_TIME,
        "parked": PARKED,
        "warm": WARM,
        "tries": legs.TRIES,
    }
    arguments.write.write_text(document(results, everything, told))
    wrong = 0
    for cell, outcomes in results.items():
        fallen = {scenario for scenario, outcome in outcomes.items() if not outcome.clean}
        unexpected = fallen ^ (not_clean(cell) | vacuous(cell.revision))
        wrong += bool(unexpected)
        print(cell, "unexpected: " + ", ".join(sorted(unexpected)) if unexpected else "as expected")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
