"""`python -m chaos --rounds 200`: kill parts of a running product and print what was left, as JSON.

To be run as root, with tests/ and the repository on PYTHONPATH. `--user` runs the product as an ordinary user. Exits
with 1 when anything did not hold.
"""

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

from chaos import system
from chaos.rounds import KINDS, WEIGHTS, Chaos


def kinds(count: int, chance: random.Random) -> list[str]:
    """What to kill in each round: every kind at least once where there are enough of them, then by weight."""
    first = list(KINDS)[:count]
    return [*first, *chance.choices(KINDS, WEIGHTS, k=count - len(first))]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="chaos")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--user", action="store_true")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    planned = kinds(arguments.rounds, chance)
    chance.shuffle(planned)
    system.adopt_orphans()
    results = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        groups = system.OwnGroups()
        chaos = Chaos(folder, arguments.user, chance, groups)
        # Interrupted, it says what it has seen so far; the product goes in any case.
        with closing(chaos), suppress(KeyboardInterrupt):
            for number, kind in enumerate(planned):
                result = chaos.round(kind)
                results.append(result)
                if result["wrong"]:
                    print(number, result, (folder / "log").read_text()[-1500:], file=sys.stderr)
            # One more start, for groups of a fork server that was killed together with its runtime wait for that.
            chaos.settle()
        left = sorted(groups.names())
        groups.close()
        state = sorted(str(path.relative_to(folder)) for path in (folder / "state").rglob("*"))
    wrong = [result for result in results if result["wrong"]]
    report = {
        "rounds": len(results),
        "seed": arguments.seed,
        "user": arguments.user,
        "kinds": dict(Counter(str(result["kind"]) for result in results)),
        "calls": chaos.calls,
        "groups left after an orderly stop": left,
        "state": state,
        "wrong": wrong,
    }
    print(json.dumps(report, indent=1))
    sys.exit(bool(wrong or left))


if __name__ == "__main__":
    main()
