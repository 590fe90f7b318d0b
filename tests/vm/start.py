"""In the machine: puts itself where a service manager would, becomes the user asked for, and runs the command."""

import json
import os
import subprocess
import sys
from pathlib import Path

ANSWER = "/dev/ttyS1"
_TREE = Path("/sys/fs/cgroup")
CONTROLLERS = "+cpu +memory +pids"


def delegate(name: str, user: int) -> Path:
    """A group called `name` with everything handed down to it: what Delegate=yes gives a service.

    An ordinary user gets the directory and the three files that let it be divided (cgroup-v2.rst, "Model of Delegation").
    """
    (_TREE / "cgroup.subtree_control").write_text(CONTROLLERS)
    own = _TREE / name
    own.mkdir()
    for path in (own, *(own / name for name in ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control"))):
        os.chown(path, user, user)
    return own


def enter(group: Path) -> None:
    """Move this process into `group`."""
    (group / "cgroup.procs").write_text("0")


def main() -> None:
    wanted = json.loads(Path("/vm.json").read_text())
    with open(ANSWER, "wb", buffering=0) as answer:
        status: object = None
        try:
            own = delegate("service", wanted["user"])
            status = subprocess.run(
                wanted["command"],
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=answer,
                user=wanted["user"],
                group=wanted["user"],
                extra_groups=[],
                check=False,
                # Before the user changes, and the command alone, as a service manager has it.
                preexec_fn=lambda: enter(own),
                env={**os.environ, "HOME": "/home/user", "PYTHONUNBUFFERED": "1"},
            ).returncode
        except OSError as error:
            answer.write(f"{error}\n".encode())
        answer.write(b"\n" + json.dumps({wanted["end"]: status}).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
