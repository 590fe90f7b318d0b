"""Try every attack and print the table of what came of it. To be started as root.

`--mode v2` is for a machine with control groups of version 2; `--machine` starts such a one (`vm`) and takes what is
seen in it into the table. `--write FILE` writes the table as Markdown.
"""

import argparse
import json
import sys
from pathlib import Path

from attacks import catalogue, expect, machine, places, table


def main() -> int:
    """The exit status: 1 when something is not as it must be."""
    chosen = _arguments()
    modes = [mode for mode in places.MODES if mode != "v2"] if chosen.mode == "all" else [chosen.mode]
    reports = {mode: places.examine(mode, proofs=not chosen.no_proofs, only=chosen.only) for mode in modes}
    if chosen.machine:
        reports["v2"] = machine.examine(proofs=not chosen.no_proofs)
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
    parser.add_argument("--machine", action="store_true", help="also in a machine that is started for it")
    parser.add_argument("--no-proofs", action="store_true", help="only try with every wall standing")
    parser.add_argument("--only", default="", help="only attacks whose name has this in it")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
