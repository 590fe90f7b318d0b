"""A server's own requests that wait for an answer: under which id it asked, and for which request of ours."""

from typing import Final

# Questions of one worker that wait for an answer. A client is shown each of them, and sees one request at a time or,
# where a server gathers input, a handful; past this they are refused.
MAX_QUESTIONS: Final = 32
# What they hold together. A server may send an image along, and the client's context may be long.
MAX_QUESTION_BYTES: Final = 16 * 1024 * 1024


class Questions:
    """The open questions of one worker, by the server's own ids as they were written."""

    def __init__(self) -> None:
        self._open: dict[bytes, tuple[int, int]] = {}  # the request it belongs to, and its bytes
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<Questions {len(self._open)} open>"

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, key: bytes) -> bool:
        return key in self._open

    def open(self, key: bytes, owner: int, size: int) -> bool:
        """Keep a new question; false where a bound is reached and it is not kept."""
        if len(self._open) >= MAX_QUESTIONS or self._bytes + size > MAX_QUESTION_BYTES:
            return False
        self._open[key] = owner, size
        self._bytes += size
        return True

    def close(self, key: bytes) -> bool:
        """Forget a question; whether it was open."""
        owner, size = self._open.pop(key, (0, 0))
        self._bytes -= size
        return owner > 0

    def close_all(self, owner: int) -> tuple[bytes, ...]:
        """Forget the questions of one request; gives their ids."""
        keys = (
            tuple(key for key, (asked_for, _) in self._open.items() if asked_for == owner)
            if self._open
            else ()
        )
        for key in keys:
            self.close(key)
        return keys

    def clear(self) -> None:
        """Forget all."""
        self._open.clear()
        self._bytes = 0
