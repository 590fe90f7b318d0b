"""`python -m fuzz.live --seconds 3600 --seed 1 [clients] [workers]`, from tests/: the product itself, alive, for so long each.

What is sent follows from the seed; in which order concurrent parts meet does not. Prints what came of it; exit status 1
and the broken promise where one was broken.
"""

import argparse
import logging
import sys

import anyio
import structlog

from fuzz import mad_clients, mad_workers

RUNS = {"clients": mad_clients.run, "workers": mad_workers.run}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="fuzz.live")
    parser.add_argument("--seconds", type=float, default=60, help="for each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"all by default: {', '.join(RUNS)}")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    failed = False
    for name in arguments.runs or RUNS:
        try:
            came = anyio.run(RUNS[name], arguments.seconds, arguments.seed)
        except BaseExceptionGroup as broken:
            failed = True
            print(f"{name}, seed {arguments.seed}: failed", flush=True)
            sys.excepthook(type(broken), broken, broken.__traceback__)
        else:
            print(f"{name}, seed {arguments.seed}: {dict(came)}, nothing found", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
