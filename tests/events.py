"""Server-sent events, read as the HTML Living Standard writes it (section 9.2.6), and not more kindly.

Every line is kept with its field, so that a test can see what a message smuggled into the stream would look like: an
id, a retry, a comment, or a second event.
"""

import json
import re
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass
class Event:
    """One block of lines: `fields` in their order, comments under the name of nothing."""

    fields: list[tuple[str, str]] = field(default_factory=list)

    @property
    def data(self) -> str:
        return "\n".join(value for name, value in self.fields if name == "data")

    @property
    def is_comment(self) -> bool:
        return all(not name for name, _ in self.fields)

    @property
    def message(self) -> dict[str, Any]:
        return json.loads(self.data)


class EventReader:
    """Bytes in any pieces become events. A line end that is the last byte waits, for it may be half of CR LF."""

    def __init__(self) -> None:
        self._held = b""
        self._event = Event()

    def feed(self, data: bytes) -> list[Event]:
        self._held += data
        events = []
        while (end := LINE_END.search(self._held)) is not None:
            if end.group() == b"\r" and end.end() == len(self._held):
                break
            line, self._held = self._held[: end.start()], self._held[end.end() :]
            if line:
                self._event.fields.append(_field(line.decode()))
            elif self._event.fields:
                events.append(self._event)
                self._event = Event()
        return events


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    return name, value.removeprefix(" ") if colon else ""


def read_events(data: bytes) -> list[Event]:
    """The events of a whole stream; whatever is left behind the last one must be nothing."""
    reader = EventReader()
    events = reader.feed(data)
    assert not reader._held.strip(), f"an event without an end: {reader._held!r}"
    assert not reader._event.fields, f"an event without an end: {reader._event}"
    return events


async def messages(pieces: AsyncIterable[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The JSON-RPC messages of a stream as they come."""
    reader = EventReader()
    async for piece in pieces:
        for event in reader.feed(piece):
            if not event.is_comment and event.data:
                yield event.message
