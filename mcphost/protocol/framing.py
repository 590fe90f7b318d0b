"""Lines on stdio: bytes in any pieces become whole messages, and no line is held beyond its limit."""

from collections.abc import Iterator


class LineTooLong(Exception):
    """A line is longer than its limit; the rest of the stream cannot be trusted."""


class LineReader:
    """Collects newline-delimited messages (2026-07-28, basic/transports/stdio).

    Holds at most `max_bytes` and the piece given to `feed`. Blank lines are passed over.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # One buffer and no list of pieces: a server that writes byte by byte would make a list of many small
        # objects, each far larger than what it holds.
        self._held = bytearray()
        self.blank_lines = 0  # passed over so far

    def __repr__(self) -> str:
        return f"<LineReader {len(self._held)} of {self._max_bytes} bytes held>"

    @property
    def held_bytes(self) -> int:
        """Bytes of an unfinished line."""
        return len(self._held)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give the lines that `data` completes, without their line breaks.

        Raises:
            LineTooLong: a line exceeds the limit. The reader is not to be used again.
        """
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            line = self._complete(data[start:end])
            start = end + 1
            if line and not line.isspace():
                yield line
            else:
                self.blank_lines += 1
        if start < len(data):
            self._hold(data[start:] if start else data)

    def _complete(self, tail: bytes) -> bytes:
        if not self._held:
            if len(tail) > self._max_bytes:
                raise LineTooLong
            return tail
        self._hold(tail)
        line = bytes(self._held)
        self._held.clear()
        return line

    def _hold(self, piece: bytes) -> None:
        if len(self._held) + len(piece) > self._max_bytes:
            self._held.clear()
            raise LineTooLong
        self._held += piece
