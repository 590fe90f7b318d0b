"""Runs a command in a machine of its own: a kernel with control groups of version 2, started, asked, switched off.

`run(["python3", "-m", "vm.suite"])` gives what the command wrote, line by line. The repository is the working folder
in there, it and its tests are importable; Python is Debian's, with the standard library only. The machine is emulated
in software (QEMU's TCG): behaviour in it is proof, durations are not. `MCPHOST_VM_ACCEL=kvm` uses the processor's own
support instead; it is not chosen by itself, for on a machine that is itself virtual it may hang rather than fail.

    python -m vm.machine [--user UID] COMMAND...
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sandbox import syscalls
from vm import image
from vm.image import CannotMake

# All that is tried takes two minutes on an idle machine; a busy one may take several times that.
SECONDS = 600.0
_MEMORY_MIB = 1536
_END = "the machine's end"
EX_UNAVAILABLE = 69  # sysexits.h: this machine lacks what the other is made of
# The answer of a runaway command must not fill the disk; a suite writes some kilobytes.
_MAX_ANSWER_BYTES = 16 * 1024 * 1024


class MachineFailed(Exception):
    """The machine did not come to its end; the text holds the end of its console."""


@dataclass(frozen=True)
class Answer:
    """What a command wrote, and its exit status: negative for a signal, 127 where it could not be run."""

    lines: list[str]
    status: int


def run(command: list[str], *, user: int = 0, seconds: float = SECONDS) -> Answer:
    """Run `command` as `user` in a group of its own that is delegated to that user.

    Raises:
        CannotMake: this machine lacks a program or package for it.
        MachineFailed: no end within `seconds`, or the machine broke.
    """
    if shutil.which("qemu-system-x86_64") is None:
        raise CannotMake("qemu-system-x86 is not installed")
    config = json.dumps({"command": command, "user": user, "end": _END}).encode()
    with tempfile.TemporaryDirectory(prefix="mcphost-vm-") as folder:
        place = Path(folder)
        kernel = image.kernel()
        (place / "files").write_bytes(image.first_files(config))
        console, answer = place / "console", place / "answer"
        _boot(kernel, place / "files", console, answer, seconds)
        return _read(answer, console)


def _boot(kernel: Path, files: Path, console: Path, answer: Path, seconds: float) -> None:
    accel = os.environ.get("MCPHOST_VM_ACCEL", "tcg")
    arguments = [
        *("-accel", accel, "-cpu", "max", "-smp", "1", "-m", str(_MEMORY_MIB)),
        *("-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"),
        *("-serial", f"file:{console}", "-serial", f"file:{answer}"),
        *("-kernel", str(kernel), "-initrd", str(files)),
        # Every mitigation of a processor's flaws costs time, and there is no processor here to have them.
        *("-append", "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off random.trust_cpu=on"),
    ]
    try:
        subprocess.run(
            ["qemu-system-x86_64", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=True,
            preexec_fn=_bound,
        )
    except subprocess.TimeoutExpired:
        raise MachineFailed(f"no end after {seconds:g} s; {_tail(console)}{_tail(answer)}") from None
    except subprocess.CalledProcessError as error:
        raise MachineFailed(
            f"qemu: {error.stderr.decode(errors='replace')[-1000:]}; {_tail(console)}"
        ) from None


def _bound() -> None:
    """In qemu's process: what it may write, and that it does not outlive whoever waits for it."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_ANSWER_BYTES, _MAX_ANSWER_BYTES))
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)


def _read(answer: Path, console: Path) -> Answer:
    lines = answer.read_text("utf-8", "replace").replace("\r\n", "\n").splitlines()
    for number, line in enumerate(lines):
        if line.startswith(f'{{"{_END}"'):
            return Answer([kept for kept in lines[:number] if kept], json.loads(line)[_END])
    raise MachineFailed(f"the machine ended without saying so; {_tail(console)}{_tail(answer)}")


def _tail(path: Path) -> str:
    text = path.read_text("utf-8", "replace") if path.exists() else ""
    return f"the end of its {path.name}:\n{text[-3000:]}\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m vm.machine")
    parser.add_argument("--user", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    try:
        answer = run(options.command, user=options.user, seconds=options.seconds)
    except CannotMake as error:
        print(error, file=sys.stderr)
        return EX_UNAVAILABLE
    print("\n".join(answer.lines))
    return answer.status


if __name__ == "__main__":
    sys.exit(main())
