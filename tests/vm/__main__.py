"""Run everything in the machine and print what holds: `make vm`. The report of the attacks is kept for their table."""

import json
import sys

from attacks import catalogue, expect, table
from vm import image, machine, suite

# Both in one machine, since its start takes longer than most of what is tried in it.
EVERYTHING = ["sh", "-c", "python3 -m vm.suite; python3 -m attacks --mode v2 --json --no-proofs"]
REPORT = image.CACHE / "attacks-v2.json"


def results(answer: machine.Answer) -> dict[tuple[str, str], dict[str, object]]:
    """By mode and check, what the suite said."""
    said = [json.loads(line) for line in answer.lines if line.startswith('{"mode"')]
    return {(one["mode"], one["check"]): one for one in said}


def attacked(answer: machine.Answer) -> dict[str, dict]:
    """What came of the attacks, as `attacks` reports it; empty if it did not get so far."""
    reports = [json.loads(line) for line in answer.lines if line.startswith('{"v2"')]
    return reports[0] if reports else {}


def mistakes(reports: dict[str, dict]) -> list[str]:
    """What of the attacks is not as it must be."""
    if not reports:
        return ["the attacks were not reported"]
    return [
        f"{attack.title}: {mistake}"
        for attack in catalogue.ATTACKS
        for mistake in expect.mistakes(attack, reports["v2"])
    ]


def main() -> int:
    answer = machine.run(EVERYTHING)
    found, reports = results(answer), attacked(answer)
    failed = 0
    for mode, name in suite.names():
        said = found.get((mode, name), {"holds": False, "seen": "not reported", "seconds": 0})
        failed += not said["holds"]
        words = name.replace("_", " ")
        print(f"{'holds' if said['holds'] else 'FAILS'}  {mode:4}  {said['seconds']:5} s  {words}")
        if not said["holds"]:
            print(said["seen"])
    print(f"{len(suite.names()) - failed} hold, {failed} fail")
    if reports:
        REPORT.write_text(json.dumps(reports))
        print("attacks:", dict(table.totals(catalogue.ATTACKS, reports)["v2"]))
    wrong = mistakes(reports)
    print("".join(f"{line}\n" for line in wrong), end="")
    if failed or not reports:
        print("the end of the answer:", *answer.lines[-20:], sep="\n")
    return 1 if failed or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
