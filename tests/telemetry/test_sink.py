"""Logging never holds anything up, whatever becomes of the place the lines go to."""

import io
import json
import os
from contextlib import suppress

import pytest

from mcphost.telemetry.logs import printable
from mcphost.telemetry.sink import MAX_LINES, LogSink


def test_lines_are_written_in_their_order() -> None:
    stream = io.StringIO()
    sink = LogSink(stream)
    for number in range(100):
        sink.write(f"{number}\n")
    sink.close()
    assert stream.getvalue().splitlines() == [str(number) for number in range(100)]


def test_a_pipe_that_nobody_reads_blocks_nobody_and_the_loss_is_counted() -> None:
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w")
    sink = LogSink(stream)
    for _ in range(MAX_LINES * 2):
        sink.write("x" * 200 + "\n")
    with os.fdopen(reader) as taken:
        line = taken.readline()
        while "log_lines_dropped" not in line:
            sink.write("more\n")
            line = taken.readline()
    assert json.loads(line)["count"] >= 1
    sink.close()
    with suppress(BrokenPipeError):
        stream.close()


def test_a_stream_that_fails_fails_nobody() -> None:
    stream = open("/dev/full", "w")  # noqa: SIM115 - closed below, where it fails
    sink = LogSink(stream)
    for _ in range(100):
        sink.write("lost\n")
    sink.close()
    sink.write("after the end\n")
    sink.close()
    with pytest.raises(OSError, match="space"):
        stream.close()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\nb", "a\\nb"),
        ("ü", "ü"),
        ("\u202e", "\\u202e"),
    ],
)
def test_text_of_others_cannot_move_a_terminals_cursor(text: str, shown: str) -> None:
    assert printable(text) == shown
