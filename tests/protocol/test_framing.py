"""Lines on stdio: however bytes are cut, the same lines come out, and no more is held than was allowed."""

import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcphost.protocol.framing import LineReader, LineTooLong

pieces = st.lists(st.sampled_from([b"\n", b"\r\n", b" \t", b"{}", b""]) | st.binary(max_size=6), max_size=12)


def read(reader: LineReader, chunks: Iterable[bytes]) -> tuple[list[bytes], bool]:
    """The lines that came, and whether the reader gave up."""
    lines: list[bytes] = []
    try:
        for chunk in chunks:
            for line in reader.feed(chunk):
                lines.append(line)  # noqa: PERF402 - what came before the failure counts too
    except LineTooLong:
        return lines, True
    return lines, False


def expected(data: bytes, limit: int) -> tuple[list[bytes], bool]:
    lines = []
    *whole, tail = data.split(b"\n")
    for line in whole:
        if len(line) > limit:
            return lines, True
        if line.strip():
            lines.append(line)
    return lines, len(tail) > limit


@given(pieces, st.integers(1, 20))
def test_chunking_never_matters(chunks: list[bytes], limit: int) -> None:
    data = b"".join(chunks)
    one_by_one = [data[i : i + 1] for i in range(len(data))]
    assert read(LineReader(limit), chunks) == expected(data, limit)
    assert read(LineReader(limit), [data]) == expected(data, limit)
    assert read(LineReader(limit), one_by_one) == expected(data, limit)


@given(pieces, st.integers(0, 20))
def test_what_is_held_is_the_unfinished_line_and_never_beyond_the_limit(
    chunks: list[bytes], limit: int
) -> None:
    reader = LineReader(limit)
    data = b""
    for chunk in chunks:
        data += chunk
        _, failed = read(reader, [chunk])
        assert reader.held_bytes <= limit
        if failed:
            assert reader.held_bytes == 0
            return
        assert reader.held_bytes == len(data.rpartition(b"\n")[2])


@pytest.mark.parametrize("chunks", [[b"12345\n"], [b"12", b"345\n"], [b"12345", b"\n"], [b"1", b"2345\n"]])
def test_a_line_of_exactly_the_limit_passes_and_one_byte_more_does_not(chunks: list[bytes]) -> None:
    assert read(LineReader(5), chunks) == ([b"12345"], False)
    assert read(LineReader(4), chunks) == ([], True)


def test_lines_before_one_that_is_too_long_are_given_first() -> None:
    assert read(LineReader(4), [b"1\n22\n55555\n1\n"]) == ([b"1", b"22"], True)


@given(st.lists(st.sampled_from([b"\n", b"\r\n", b" \n", b"\t\r \n"])))
def test_blank_lines_are_passed_over(blanks: list[bytes]) -> None:
    assert read(LineReader(100), [*blanks, b"{}\n", *blanks]) == ([b"{}"], False)


def test_a_line_written_two_bytes_at_a_time_costs_about_what_it_holds() -> None:
    reader = LineReader(1_000_000)
    tracemalloc.start()
    try:
        for number in range(50_000):
            assert not list(reader.feed(b"%02x" % (number & 255)))
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.held_bytes == 100_000
    assert used < 300_000


def test_the_repr_tells_how_much_is_held() -> None:
    reader = LineReader(10)
    assert not list(reader.feed(b"abc"))
    assert repr(reader) == "<LineReader 3 of 10 bytes held>"
