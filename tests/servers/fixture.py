#!/usr/bin/env python3
"""A stdio MCP server that can prove what a runtime in front of it did.

One single-threaded loop over standard input and a heap of timers; a tool that has to wait is a generator that
yields what it waits for, so that any number of calls are in flight without a thread (threads would count
against the worker's process limit). Standard library only: its start time is part of many tests.

`--era legacy`   speaks `initialize` and answers `server/discover` with -32601
`--era silent`   the same, but answers nothing at all before `initialize`
`--era modern`   speaks 2026-07-28 only, and answers `initialize` with -32022
`--era dual`     speaks either, and is pinned to one by the first message that tells which

Every tool, prompt and resource works in either era. What the official conformance suite calls by name is there,
too; a question to the client is a request of the server on a legacy wire and an `input_required` result on a modern
one. There a tool runs from its start again with every answer, so what it does before it asks is done each time.
"""

import argparse
import os
import sys
import time
from pathlib import Path

# The folder is not on the path where Python is told to be isolated (-I).
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fixture_parts import asking, suite, tools  # noqa: F401 - what is imported registers its tools
from fixture_parts.server import Server


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--era", choices=("legacy", "dual", "modern", "silent"), default="dual")
    parser.add_argument("--name", default="fixture", help="what serverInfo says")
    parser.add_argument("--delay-start", type=float, default=0, metavar="SECONDS")
    parser.add_argument("--fail-start", action="store_true", help="exit at once with status 3")
    parser.add_argument("--exit-after", type=int, metavar="N", help="exit after answering N tool calls")
    parser.add_argument("--no-tools", action="store_true")
    parser.add_argument("--page-size", type=int, default=0, help="cut every list into pages of that size")
    parser.add_argument("--stderr-noise", action="store_true")
    return parser.parse_args(argv)


def main() -> int:
    options = parse(sys.argv[1:])
    if options.stderr_noise:
        os.write(2, b"fixture: starting \xff\xfe\n" + b"n" * 5000 + b"\n")
    if options.fail_start:
        os.write(2, b"fixture: told to fail\n")
        return 3
    time.sleep(options.delay_start)
    Server(options).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
