"""Where log lines go: a bounded queue and a thread of its own, so that no reader of the log can hold up a call.

Standard error may be a pipe that nobody reads, or a full disk. Then lines are dropped, counted, and the count is
written as soon as something can be written again; the calls that the lines tell of go on.
"""

import queue
import threading
from typing import Final, TextIO

MAX_LINES: Final = 10_000  # waiting to be written; at some 300 bytes each about 3 MiB
CLOSE_SECONDS: Final = 2.0  # for what is left at the end


class LogSink:
    """A text stream that never blocks and never fails. Its thread starts with the first line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_LINES)
        self._thread: threading.Thread | None = None
        self._dropped = 0

    def __repr__(self) -> str:
        return f"<LogSink {self._lines.qsize()} waiting, {self._dropped} dropped>"

    def write(self, text: str) -> None:
        """Take a line; dropped if too many wait."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Nothing to do: the thread writes as soon as it can."""

    def close(self) -> None:
        """Give what is left a bounded time to be written. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            self._lines.put(None, timeout=CLOSE_SECONDS)
        except queue.Full:
            return
        thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                line = f'{{"event": "log_lines_dropped", "level": "warning", "count": {dropped}}}\n{line}'
            try:
                self._stream.write(line)
                if self._lines.empty():
                    self._stream.flush()
            except (OSError, ValueError):
                self._dropped += 1
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return
