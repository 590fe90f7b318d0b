"""Become a user without any privilege and run a program: `python -m chaos.ordinary UID PROGRAM...`, as root.

An interpreter or a checkout may lie in a home that only its owner may enter. In a mount namespace of its own the folder
in the way is replaced by one that holds just what is needed, so that the user runs what the tests run.
"""

import os
import sys
import tempfile
from pathlib import Path

from sandbox import syscalls

ROOT = Path(__file__).resolve().parent.parent.parent


def closed_folder(path: Path) -> Path | None:
    """The outermost folder on the way to `path` that others may not enter."""
    return next((each for each in reversed(path.parents) if not each.stat().st_mode & 0o001), None)


def make_reachable(paths: set[Path]) -> None:
    """In this process's mount namespace: let everybody reach `paths`, and nothing else of the folders in the way."""
    for folder in {each for path in paths if (each := closed_folder(path))}:
        inside = [path for path in paths if path.is_relative_to(folder)]
        held = {path: syscalls.open_tree(-100, str(path)) for path in inside}
        syscalls.mount("chaos", str(folder), "tmpfs", 0, "size=64k,mode=0755")
        for path, tree in held.items():
            path.mkdir(parents=True, exist_ok=True)
            target = os.open(path, os.O_PATH)
            syscalls.move_mount(tree, target)
            os.close(target)
            os.close(tree)


def main() -> None:
    """See the module."""
    user, program = int(sys.argv[1]), sys.argv[2:]
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    needed = {Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), ROOT, Path(tempfile.gettempdir())}
    make_reachable({path for path in needed if path != Path("/")})
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
