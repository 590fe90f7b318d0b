"""Directories that the runtime makes for what workers keep, made so that no planted link leads elsewhere.

Everything lies below `stateDir`, of which the last directory of a path may be a worker's to write in, and nothing
above it. Still no step follows a link, and every directory on the way has to be ours: a mistake in a policy, or in
somebody's permissions, must not become a file of ours in a place of theirs.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from mcphost.errors import StartRefused

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_state(state_dir: str) -> None:
    """Make `state_dir` and, below it, the directories of all tenants, closed to everybody but us.

    What lies in them belongs to workers, who can give it any mode; only the way there is ours to close.

    Raises:
        StartRefused: they cannot be made, or are somebody else's.
    """
    try:
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
        for part in ("data", "volumes"):
            closed = descend(state_dir, (part,))
            try:
                os.fchmod(closed, 0o700)
            finally:
                os.close(closed)
    except OSError as error:
        raise _cannot(state_dir, error) from None


def make_kept(state_dir: str, directory: str, *, sized: bool, other: str) -> None:
    """Make the place of one volume: `directory` itself, or with `sized` all above it, for it is to be an image.

    `other` is where the same volume lies without its size, or with it. Content there is never left aside unseen.

    Raises:
        StartRefused: it cannot be made, is not ours, or the volume lies in its other form already.
    """
    *way, last = os.path.relpath(directory, state_dir).split("/")
    try:
        parent = descend(state_dir, way)
        try:
            if not sized:
                with suppress(FileExistsError):
                    os.mkdir(last, mode=0o700, dir_fd=parent)
                os.close(os.open(last, _DIRECTORY, dir_fd=parent))
            if _has_content(parent, os.path.basename(other)):
                kept = "without a size" if sized else "with a size"
                raise StartRefused(
                    f"{other} was kept {kept}; write that again, or move its content and then it"
                )
        finally:
            os.close(parent)
    except OSError as error:
        raise _cannot(directory, error) from None


def descend(state_dir: str, way: Sequence[str]) -> int:
    """The directory below `state_dir`, made where it is missing; the caller closes it."""
    here = os.open(state_dir, _DIRECTORY)
    try:
        for part in way:
            with suppress(FileExistsError):
                os.mkdir(part, mode=0o700, dir_fd=here)
            below = os.open(part, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
            _check_owner(here, f"{state_dir}/{'/'.join(way)}")
    except BaseException:
        os.close(here)
        raise
    return here


def _check_owner(directory: int, path: str) -> None:
    if os.fstat(directory).st_uid != os.geteuid():
        raise StartRefused(f"{path} belongs to another user; remove it or choose another runtime.stateDir")


def _has_content(parent: int, name: str) -> bool:
    """Whether anything but an empty directory has this name."""
    try:
        facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(facts.st_mode):
            return True
        directory = os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return False
    try:
        return bool(os.listdir(directory))
    finally:
        os.close(directory)


def _cannot(path: str, error: OSError) -> StartRefused:
    reason = error.strerror or str(error)
    return StartRefused(f"{path} cannot be made: {reason}; choose another runtime.stateDir")
