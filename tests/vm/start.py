"""In the machine: puts itself where a service manager would, becomes the user asked for, and runs the command."""

import json
import os
from pathlib import Path
from typing import NoReturn

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
        own = delegate("service", wanted["user"])
        # By hand: `subprocess` changes the user before it lets anything be done in the child.
        child = os.fork()
        if child == 0:
            become(wanted["command"], wanted["user"], own, answer.fileno())
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        answer.write(b"\n" + json.dumps({wanted["end"]: code}).encode() + b"\n")


def become(command: list[str], user: int, own: Path, answer: int) -> NoReturn:
    """The command as `user`, alone in the group `own`, as a service manager starts one; it writes to `answer`."""
    try:
        enter(own)
        null = os.open("/dev/null", os.O_RDONLY)
        for number, fd in enumerate((null, answer, answer)):
            os.dup2(fd, number)
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        os.execvpe(command[0], command, {**os.environ, "HOME": "/home/user", "PYTHONUNBUFFERED": "1"})
    except OSError as error:
        os.write(answer, f"{command[0]}: {error}\n".encode())
    finally:
        os._exit(127)


if __name__ == "__main__":
    main()
