"""`python -m sandbox`: which layers this machine and user can apply, why not more, and what to do about it."""

import argparse
import json
import shutil
import sys

from sandbox.doctor.report import diagnose, shown


def main() -> None:
    """Print the diagnosis. Exit status 0, whatever it says: nothing was required."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    as_json = parser.parse_args().json
    diagnosis = diagnose()
    if as_json:
        text = json.dumps(diagnosis.to_wire(), indent=1)
    else:
        text = shown(diagnosis, columns=shutil.get_terminal_size().columns)
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
