"""The file of the audit: opened safely, gone on with where it ended, written in whole records, followed by its name.

Everything here waits for the disk and belongs into a thread of its own.
"""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, Self

import msgspec

from mcphost.decisions.auditchain import (
    BEGUN,
    FIRST,
    MAX_LINE_BYTES,
    RESUMED,
    Broken,
    Verifier,
    is_whole,
    read,
    seal,
    torn_digest,
)
from mcphost.errors import StartRefused

_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_MODE: Final = 0o600
_FOR_OTHERS: Final = 0o077
_WRITABLE_BY_OTHERS: Final = 0o022

# Enough for the last whole record and for what was cut off after it.
_TAIL_BYTES: Final = 2 * MAX_LINE_BYTES


class AuditFile:
    """The open file. `link` is its last record; None of its methods is for two threads at once."""

    def __init__(self, path: str, wall: Callable[[], float]) -> None:
        self.path = path
        self._wall = wall
        self._fd = -1
        self._is_empty = True
        self._rest = b""  # what a write that failed, or a runtime that was killed, left of records
        self._lead = False  # whether a line break is missing at the end
        self.link = FIRST
        self.trouble: OSError | None = None

    def __repr__(self) -> str:
        return f"<AuditFile {self.path} after {self.link.seq}>"

    @classmethod
    def open(cls, path: str, wall: Callable[[], float]) -> Self:
        """Open or make the file, and find where its chain goes on. `wall` gives seconds since the epoch.

        Raises:
            StartRefused: others could write it, another process does, or it does not end as a chain does.
        """
        file = cls(path, wall)
        try:
            file._open()
            file._find_end()
        except OSError as error:
            file.close()
            raise StartRefused(
                f"audit.file: {path} cannot be written: {error.strerror or error}; make its directory, or change audit.file"
            ) from None
        except StartRefused:
            file.close()
            raise
        return file

    def close(self) -> None:
        """Close it. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def sync(self) -> None:
        """Have the disk hold what was written (fdatasync(2)). Raises `OSError`."""
        if self._fd >= 0:
            os.fdatasync(self._fd)

    def append(self, contents: Sequence[bytes]) -> int:
        """Write records; gives how many are whole in the file, in their order.

        If these are fewer than all, `trouble` is what the disk said; the rest is for another try.
        """
        self.trouble = None
        try:
            self._follow()
        except OSError as error:
            self.trouble = error
            return 0
        notes = self._notes()
        data = bytearray(b"\n" if self._lead else b"")
        links, ends, link = [], [], self.link
        for content in (*notes, *contents):
            line, link = seal(link, content)
            data += line
            links.append(link)
            ends.append(len(data))
        written = self._write(bytes(data))
        # One that lacks nothing but its line break is whole.
        whole = sum(1 for end in ends if end - 1 <= written)
        if not whole:
            self._keep_rest(bytes(data[:written]))
            return 0
        self.link, self._is_empty = links[whole - 1], False
        self._rest = bytes(data[ends[whole - 1] : written])
        self._lead = bool(self._rest) or written < ends[whole - 1]
        return max(0, whole - len(notes))

    # --- opening ----------------------------------------------------------------------------------

    def _open(self) -> None:
        directory = os.path.dirname(self.path)
        owner = os.stat(directory)
        if owner.st_uid not in {0, os.geteuid()} or owner.st_mode & _WRITABLE_BY_OTHERS:
            raise StartRefused(
                f"audit.file: others than the runtime's user can write in {directory}; make it the runtime's, mode 0750 or less"
            )
        fd = os.open(self.path, _FLAGS, _MODE)
        try:
            self._check(fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise StartRefused(f"audit.file: another process writes {self.path}; give each its own") from None
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self._sync_directory(directory)

    def _check(self, fd: int) -> None:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise StartRefused(f"audit.file: {self.path} is not a file with one name")
        if found.st_uid != os.geteuid() or found.st_mode & _FOR_OTHERS:
            raise StartRefused(
                f"audit.file: {self.path} must belong to the runtime's user, mode 0600; others could read or change it"
            )

    @staticmethod
    def _sync_directory(directory: str) -> None:
        with suppress(OSError):  # some file systems cannot; the file itself is synced all the same
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def _find_end(self) -> None:
        size = os.fstat(self._fd).st_size
        if not size:
            return
        begin = max(0, size - _TAIL_BYTES)
        lines = os.pread(self._fd, _TAIL_BYTES, begin).split(b"\n")
        for index in range(len(lines) - 1, -1, -1):
            sealed = read(lines[index])
            if sealed is not None:
                self.link, self._is_empty = sealed.link, False
                self._settle(lines[index + 1 :], is_ended=index < len(lines) - 1)
                return
        if begin:
            raise self._no_end()
        self._settle(lines, is_ended=False)

    def _settle(self, after: list[bytes], *, is_ended: bool) -> None:
        """What stands behind the last whole record, which has its line break if `is_ended`."""
        if any(is_whole(piece) for piece in after):
            raise self._no_end()
        if not after:
            self._lead = not is_ended
            return
        self._lead = after[-1] != b""
        self._rest = b"\n".join(after if self._lead else after[:-1])

    def _no_end(self) -> StartRefused:
        return StartRefused(
            f"audit.file: {self.path} does not end with a record that is as it was written; look at it with"
            " `mcphost audit verify`, move it away, and start again"
        )

    # --- writing ----------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Go on in a new file where this one was renamed or removed. Raises `OSError`."""
        try:
            named = os.stat(self.path, follow_symlinks=False)
            own = os.fstat(self._fd)
            if (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino):
                return
        except FileNotFoundError:
            pass
        old = self._fd
        os.fdatasync(old)
        try:
            self._open()
        except StartRefused as error:
            raise OSError(0, str(error)) from None
        if os.fstat(self._fd).st_size:
            os.close(self._fd)
            self._fd = old
            raise OSError(0, "another file, which is not empty, has taken its name")
        os.close(old)
        self._is_empty, self._lead = True, False

    def _notes(self) -> tuple[bytes, ...]:
        """The record that has to come first: at a file's beginning, and after a piece of one."""
        if not (self._is_empty or self._rest):
            return ()
        note: dict[str, object] = {
            "kind": BEGUN if self._is_empty else RESUMED,
            "time": datetime.fromtimestamp(self._wall(), UTC),
        }
        if self._rest:
            note |= {"torn_bytes": len(self._rest), "torn_sha256": torn_digest(self._rest)}
        return (msgspec.json.encode(note),)

    def _write(self, data: bytes) -> int:
        """Write as much as can be; gives how much."""
        view, written = memoryview(data), 0
        try:
            while written < len(data):
                written += os.write(self._fd, view[written:])
        except OSError as error:
            self.trouble = error
        return written

    def _keep_rest(self, written: bytes) -> None:
        """No record became whole: what there is of it now stands behind what stood there."""
        if not written:
            return
        if self._lead:
            written = written[1:]
        if written:
            self._rest = b"\n".join((self._rest, written)) if self._rest else written
        self._lead = bool(written)


def verify(paths: Sequence[str], expected: str | None = None) -> Verifier:
    """Read a chain from its files, in the order given.

    Raises:
        Broken: with the file's name before the reason.
        OSError: a file cannot be read.
    """
    verifier = Verifier()
    path = ""
    try:
        for path in paths:
            verifier.begin_file()
            for line in _lines(path):
                verifier.take(line)
        verifier.finish(expected)
    except Broken as broken:
        place = f"{path}:{broken.line}" if broken.line else path
        raise Broken(broken.line, f"{place}: {broken}") from None
    return verifier


def _lines(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            yield line.removesuffix(b"\n")
