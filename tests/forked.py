"""A server whose workers are forked from a zygote, and ways to look at both from outside."""

import contextlib
import os
import select
from pathlib import Path

from sandbox import Exited, Spawned

CODE = "/code"

# What every server here begins with: lines in, lines out, each evaluated where the worker stands.
SERVER = """
import os, sys
def attempt(action):
    try:
        return action()
    except OSError as error:
        return error.strerror
def main():
    for line in sys.stdin:
        print(repr(eval(line)), flush=True)
"""


class Asked:
    """A running worker that evaluates what it is asked."""

    def __init__(self, conversation) -> None:
        self.conversation = conversation
        self.spawned = conversation.wait_for(Spawned)

    def __call__(self, expression: str) -> object:
        os.write(self.conversation.stdin, f"{expression}\n".encode())
        return eval(self.conversation.read_line())

    def ended(self) -> Exited:
        """How it ended; earlier tests' workers end about now, too."""
        while (event := self.conversation.wait_for(Exited)).worker != self.spawned.worker:
            pass
        return event

    @property
    def pid(self) -> int:
        """The worker itself: it shares its user namespace with its init alone, and is the other one."""
        return next(pid for pid in members(self.spawned.pid) if pid != self.spawned.pid)


def members(init: int) -> list[int]:
    """The processes in a process's user namespace."""
    wanted, found = os.readlink(f"/proc/{init}/ns/user"), []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(entry / "ns" / "user") == wanted:
                found.append(int(entry.name))
    return found


def zygotes() -> list[int]:
    """The zygotes on this machine: what runs with the stub, its program's text, as an argument."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            forked = (entry / "status").read_text().split("NSpid:")[1].splitlines()[0].split()
            if any(word.startswith(b'"""What runs in a server') for word in words) and len(forked) == 2:
                found.append(int(entry.name))
    return found


def parent(pid: int) -> int:
    """Whose child a process is; 0 when it has just ended."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/status").read_text().split("PPid:")[1].split()[0])
    return 0


def wait_gone(pid: int) -> None:
    """Until that process has ended."""
    with contextlib.suppress(ProcessLookupError):
        waiter = os.pidfd_open(pid)
        with os.fdopen(waiter):
            assert select.select([waiter], [], [], 20)[0], f"{pid} did not end"
