"""A function of this package in a short-lived interpreter of its own, which answers in JSON and leaves nothing."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from sandbox.errors import SpawnerGone

# A trial takes tens of milliseconds; the bound is for a machine that swaps.
TIMEOUT_SECONDS = 20.0

_MAX_SHOWN = 300  # characters of its last words

# The package's own folder goes last, so that nothing beside it can stand in for a module of the standard library.
_BOOT = "import sys; sys.path.append(sys.argv[1]); from sandbox.{module} import main; main(*sys.argv[2:])"


def ask(module: str, *arguments: str) -> object:
    """What `main` of one of this package's modules prints, decoded.

    Raises:
        SpawnerGone: it could not run, or did not answer with JSON in time.
    """
    boot = _BOOT.format(module=module)
    folder = str(Path(__file__).resolve().parent.parent)
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-I", "-S", "-X", "utf8", "-c", boot, folder, *arguments],
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )
        if done.returncode:
            raise SpawnerGone(f"the trial process {_ended(done)}")
        return json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise SpawnerGone(f"the trial process did not answer: {type(error).__name__}") from None


def _ended(done: "subprocess.CompletedProcess[bytes]") -> str:
    if done.returncode < 0:
        return f"was killed by {signal.Signals(-done.returncode).name}"
    last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
    return f"ended with status {done.returncode}: {last[:_MAX_SHOWN]}"
