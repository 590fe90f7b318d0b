"""Run the whole suite in the machine and print what holds: `make vm`."""

import json
import sys

from vm import machine, suite


def results(answer: machine.Answer) -> dict[tuple[str, str], dict[str, object]]:
    """By mode and check, what the suite said; a line of another kind is shown with the one that is missing."""
    found = {}
    for line in answer.lines:
        if line.startswith("{"):
            said = json.loads(line)
            found[said["mode"], said["check"]] = said
    return found


def main() -> int:
    answer = machine.run(["python3", "-m", "vm.suite"])
    found = results(answer)
    missing = {"holds": False, "seen": "\n".join(answer.lines[-20:]), "seconds": 0}
    failed = 0
    for mode, name in suite.names():
        said = found.get((mode, name), missing)
        failed += not said["holds"]
        print(
            f"{'holds' if said['holds'] else 'FAILS'}  {mode:4}  {said['seconds']:5} s  {name.replace('_', ' ')}"
        )
        if not said["holds"]:
            print(said["seen"])
    print(f"{len(suite.names()) - failed} hold, {failed} fail")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
