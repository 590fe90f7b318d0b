"""Files, read whole and bounded: the policy, what it includes, and the secrets it names."""

import os
import re
import stat

from mcphost.policy.faults import Fault

# What PyYAML's reader refuses (YAML 1.1, section 5.1), and the three line breaks of YAML 1.1 that no editor
# counts as one: with them every later line number would be wrong.
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)


class Unreadable(Exception):
    """The file could not be read; the text says why and does not repeat its name or content."""


class NotText(Unreadable):
    """The file is not plain UTF-8 text. `line` and `column` point at the first offence."""

    def __init__(self, why: str, *, line: int, column: int) -> None:
        super().__init__(why)
        self.line = line
        self.column = column


def read_bounded(path: str | os.PathLike[str], *, max_bytes: int) -> bytes:
    """The whole content of a regular file of at most `max_bytes`.

    Symbolic links are followed: that is how Kubernetes mounts secrets.

    Raises:
        Unreadable: missing, forbidden, no regular file, or too large.
    """
    try:
        # Non-blocking, because to open a FIFO would otherwise wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise Unreadable(_reason(error)) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Unreadable("is not a regular file")
        data = _read(fd, max_bytes + 1)
    except OSError as error:
        raise Unreadable(_reason(error)) from error
    finally:
        os.close(fd)
    if len(data) > max_bytes:
        raise Unreadable(f"is larger than {max_bytes} bytes")
    return data


def decode(data: bytes) -> str:
    """The text of UTF-8 bytes, without a byte order mark.

    Raises:
        NotText: other encodings, NUL and control characters.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise NotText("the file is UTF-16; save it as UTF-8", line=1, column=1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig")
        raise NotText("the file is not valid UTF-8", **_end_of(before)) from error
    check_characters(text)
    return text


def check_characters(text: str) -> None:
    """Raise `NotText` at the first character that has no business in a policy."""
    found = _UNPRINTABLE.search(text)
    if found is not None:
        why = f"the character U+{ord(found[0]):04X} cannot stand in a policy"
        raise NotText(why, **_end_of(text[: found.start()]))


def check_encodable(text: str) -> None:
    """Refuse what an escape sequence can smuggle into a string and no program could be given."""
    if "\0" in text:
        raise Fault("a NUL character cannot be passed to any program")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Fault("half of a surrogate pair is not a character")


def _read(fd: int, size: int) -> bytes:
    """Up to `size` bytes; fewer only at the end of the file."""
    chunks = bytearray()
    while len(chunks) < size and (chunk := os.read(fd, size - len(chunks))):
        chunks += chunk
    return bytes(chunks)


def _end_of(text: str) -> dict[str, int]:
    """Line and column of the character that would follow `text`."""
    lines = re.split("\r\n|\r|\n", text)
    return {"line": len(lines), "column": len(lines[-1]) + 1}


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or "cannot be read").lower() if isinstance(error, OSError) else "is not a path"
