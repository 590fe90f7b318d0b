"""Small files that the kernel makes up: read and written by plain system calls.

A file object asks the kernel half a dozen questions first, and `pathlib` takes paths apart; a start touches some fifty
such files, so both were a good part of its time.
"""

import os

_CHUNK_BYTES = 65536


def read(place: str) -> str:
    """All of a file, as text; what is no UTF-8 is kept (surrogateescape). Raises `OSError`."""
    fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, _CHUNK_BYTES):
            parts.append(part)
    finally:
        os.close(fd)
    return b"".join(parts).decode("utf-8", "surrogateescape")


def write(place: str, value: bytes, *, directory: int | None = None) -> None:
    """Write a value in one call, as these files want it; a relative `place` is under `directory`. Raises `OSError`."""
    fd = os.open(place, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)
