"""The runtime's own key below `stateDir`: made once, kept in a file of ours, and shown to no worker.

A policy that grants any part of `stateDir` to a server is refused, so the file is never among what a worker sees. It is
there whole or not at all, also when two runtimes start at once: both then have the one that was there first.
"""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from mcphost.errors import StartRefused
from mcphost.workers.keeping import descend

_DIRECTORY: Final = "keys"
_NAME: Final = "seal"


def kept_key(state_dir: str, size_bytes: int, random_bytes: Callable[[int], bytes]) -> bytes:
    """The key in `state_dir`, which has to be there; made from `random_bytes` where there is none yet.

    Raises:
        StartRefused: it cannot be made or read, is not ours alone, or is no key.
    """
    path = f"{state_dir}/{_DIRECTORY}/{_NAME}"
    try:
        directory = descend(state_dir, (_DIRECTORY,))
        try:
            os.fchmod(directory, 0o700)
            with suppress(FileNotFoundError):
                return _read(directory, path, size_bytes)
            _make(directory, random_bytes(size_bytes), random_bytes(8).hex())
            return _read(directory, path, size_bytes)
        finally:
            os.close(directory)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartRefused(f"{path} cannot be kept: {reason}; choose another runtime.stateDir") from None


def _read(directory: int, path: str, size_bytes: int) -> bytes:
    # Not to wait for a pipe that somebody put there.
    opened = os.open(_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        facts = os.fstat(opened)
        ours = stat.S_ISREG(facts.st_mode) and facts.st_uid == os.geteuid()
        if not ours or facts.st_mode & 0o077:
            raise StartRefused(f"{path} is not a file of ours alone; remove it, and another key is made")
        key = os.read(opened, size_bytes + 1)
    finally:
        os.close(opened)
    if len(key) != size_bytes:
        raise StartRefused(f"{path} is no key; remove it, and another is made")
    return key


def _make(directory: int, key: bytes, mark: str) -> None:
    """Write beside it and link: a link fails where a key came to be meanwhile, and that one counts."""
    beside = f"{_NAME}.{mark}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = os.open(beside, flags, 0o600, dir_fd=directory)
    try:
        try:
            os.write(opened, key)
            os.fsync(opened)
        finally:
            os.close(opened)
        with suppress(FileExistsError):
            os.link(beside, _NAME, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    finally:
        os.unlink(beside, dir_fd=directory)
    os.fsync(directory)
