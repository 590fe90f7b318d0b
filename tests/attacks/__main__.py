"""Try every attack and print the table of what came of it. To be started as root.

`--mode v2` is for the machine with control groups of version 2, where it gives the report as JSON; `--v2 FILE` takes
such a report into the table. `--write FILE` writes the table as Markdown.
"""

import argparse
import json
import sys
from pathlib import Path

from attacks import catalogue, expect, places, table


def main() -> int:
    """The exit status: 1 when something is not as it must be."""
    chosen = _arguments()
    modes = [mode for mode in places.MODES if mode != "v2"] if chosen.mode == "all" else [chosen.mode]
    reports = {mode: places.examine(mode, proofs=not chosen.no_proofs, only=chosen.only) for mode in modes}
    if chosen.v2 and chosen.v2.exists():
        reports["v2"] = json.loads(chosen.v2.read_text("utf-8"))["v2"]
    attacks = tuple(attack for attack in catalogue.ATTACKS if chosen.only in attack.name)
    sys.stdout.write(json.dumps(reports) + "\n" if chosen.json else table.plain(attacks, reports))
    if chosen.write:
        chosen.write.write_text(table.markdown(attacks, reports), "utf-8")
    wrong = [
        f"{mode}: {attack.title}: {mistake}"
        for mode, report in reports.items()
        if mode != "bubblewrap"
        for attack in attacks
        for mistake in expect.mistakes(attack, report)
    ]
    sys.stderr.write("".join(f"{line}\n" for line in wrong))
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="attacks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=[*places.MODES, "all"], default="all")
    parser.add_argument("--json", action="store_true", help="print the reports as JSON")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table as Markdown")
    parser.add_argument("--v2", type=Path, metavar="FILE", help="a report of --mode v2 --json")
    parser.add_argument("--no-proofs", action="store_true", help="only try with every wall standing")
    parser.add_argument("--only", default="", help="only attacks whose name has this in it")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
