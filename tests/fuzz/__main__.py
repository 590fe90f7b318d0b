"""`python -m fuzz --seconds 60 [TARGET...]`: every target for so long, or until it fails.

With atheris (`make fuzz` installs it) libFuzzer looks for input that reaches code not reached before; without, there is
only chance. An input that made a target fail is written to the folder `crashes` and printed.
"""

import argparse
import importlib.util
import os
import random
import sys
import tempfile
import time
from pathlib import Path

if HAS_ATHERIS := importlib.util.find_spec("atheris") is not None:
    import atheris

    with atheris.instrument_imports(include=["sandbox", "mcphost.protocol", "mcphost.decisions", "fuzz"]):
        from fuzz.seeds import seeds
        from fuzz.targets import TARGETS
else:
    from fuzz.seeds import seeds
    from fuzz.targets import TARGETS
from fuzz.mutants import MOST_CHANGES, TOKENS, mutants

MAX_INPUT_BYTES = 40_000


def by_chance(name: str, seconds: float, seed: int) -> int:
    """Feed the target mutants for `seconds`; how many. Whatever it raises comes out."""
    fed, end = 0, time.monotonic() + seconds
    for data in mutants(seeds()[name], random.Random(seed)):
        try:
            TARGETS[name](data)
        except BaseException:
            print(f"{name} failed with {data!r}", file=sys.stderr)
            raise
        fed += 1
        if time.monotonic() > end:
            break
    return fed


def by_coverage(name: str, seconds: float, seed: int) -> int:
    """The same with libFuzzer, in a process of its own, which it ends; its exit status."""
    child = os.fork()
    if child == 0:
        crashes = Path("crashes")
        crashes.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fuzz-") as corpus:
            for number, data in enumerate(seeds()[name]):
                Path(corpus, f"seed-{number}").write_bytes(data)
            for number, data in zip(range(300), mutants(seeds()[name], random.Random(seed)), strict=False):
                Path(corpus, f"mutant-{number}").write_bytes(data)
            words = Path(corpus, "..", f"{Path(corpus).name}.words")
            words.write_text(
                "".join('"' + "".join(f"\\x{byte:02x}" for byte in token) + '"\n' for token in TOKENS)
            )
            options = [
                f"-max_total_time={seconds:.0f}",
                f"-seed={seed}",
                f"-max_len={MAX_INPUT_BYTES}",
                f"-dict={words}",
                f"-mutate_depth={MOST_CHANGES}",
                f"-artifact_prefix={crashes}/{name}-",
                "-print_final_stats=1",
                "-verbosity=0",
                corpus,
            ]
            atheris.Setup([sys.argv[0], *options], TARGETS[name])
            atheris.Fuzz()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"all by default: {', '.join(TARGETS)}")
    arguments = parser.parse_args()
    failed = False
    for name in arguments.targets or TARGETS:
        if HAS_ATHERIS:
            status = by_coverage(name, arguments.seconds, arguments.seed)
            failed |= status != 0
            print(f"{name}: {'failed' if status else 'nothing found'}", flush=True)
        else:
            print(
                f"{name}: {by_chance(name, arguments.seconds, arguments.seed)} inputs, nothing found",
                flush=True,
            )
    sys.exit(failed)


if __name__ == "__main__":
    main()
