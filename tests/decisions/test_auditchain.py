"""The chain of the audit: nothing of it can be changed unnoticed, but its end, which `expected` holds."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcphost.decisions.auditchain import BEGUN, FIRST, RESUMED, Broken, Link, Verifier, read, seal


def chain(count: int, link: Link = FIRST) -> list[bytes]:
    lines = []
    for number in range(count):
        content = {"kind": "call" if number else BEGUN, "name": f"tool {number}"}
        line, link = seal(link, json.dumps(content).encode())
        lines.append(line.removesuffix(b"\n"))
    return lines


def verified(*files: list[bytes], expected: str | None = None) -> Verifier:
    verifier = Verifier()
    for lines in files:
        verifier.begin_file()
        for line in lines:
            verifier.take(line)
    verifier.finish(expected)
    return verifier


def last_hash(lines: list[bytes]) -> str:
    sealed = read(lines[-1])
    assert sealed is not None
    return sealed.hash


def test_a_record_says_its_number_the_hash_before_and_its_own() -> None:
    first, second = (json.loads(line) for line in chain(2))
    assert (first["seq"], first["prev"], second["seq"], second["prev"]) == (0, "0" * 64, 1, first["hash"])
    covered = chain(2)[1].partition(b',"hash":')[0]
    assert hashlib.sha256(covered).hexdigest() == second["hash"]


@given(st.integers(1, 12))
def test_a_chain_as_written_is_whole(count: int) -> None:
    lines = chain(count)
    assert verified(lines, expected=last_hash(lines)).records == count


@given(st.data())
def test_any_edit_of_any_byte_is_found(data: st.DataObject) -> None:
    lines = chain(5)
    number = data.draw(st.integers(0, 4))
    at = data.draw(st.integers(0, len(lines[number]) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda it: it != lines[number][at]))
    edited = lines[number][:at] + bytes([byte]) + lines[number][at + 1 :]
    lines[number : number + 1] = edited.split(b"\n")
    with pytest.raises(Broken):
        verified(lines)


@given(st.data())
def test_any_record_removed_doubled_moved_or_added_is_found(data: st.DataObject) -> None:
    lines = chain(6)
    number = data.draw(st.integers(0, 5))
    match data.draw(st.sampled_from(["remove", "double", "swap", "foreign", "cut"])):
        case "remove":
            del lines[min(number, 4)]  # without the end, of which the next test is
        case "double":
            lines.insert(number, lines[number])
        case "swap":
            other = data.draw(st.integers(0, 5).filter(lambda it: it != number))
            lines[number], lines[other] = lines[other], lines[number]
        case "foreign":
            lines.insert(number, data.draw(st.sampled_from([b"", b"{}", b"x" * 300, chain(1)[0]])))
        case "cut":
            at = data.draw(st.integers(0, len(lines[number]) - 1))
            lines[number] = lines[number][:at]
    with pytest.raises(Broken):
        verified(lines)


@given(st.integers(1, 5))
def test_an_end_that_is_missing_is_found_by_the_hash_that_was_kept_elsewhere(kept: int) -> None:
    lines = chain(6)
    assert verified(lines[:kept]).records == kept
    with pytest.raises(Broken, match="not the one expected"):
        verified(lines[:kept], expected=last_hash(lines))


def test_the_line_that_is_named_is_the_first_that_is_wrong() -> None:
    lines = chain(5)
    lines[3] = lines[3].replace(b"tool 3", b"tool 9")
    with pytest.raises(Broken, match="not as it was written") as caught:
        verified(lines)
    assert caught.value.line == 4


def test_a_chain_goes_on_in_the_next_file_and_a_file_between_that_is_missing_is_found() -> None:
    first = chain(3)
    second = chain(2, Link(2, last_hash(first)))
    third = chain(2, Link(4, last_hash(second)))
    assert verified(first, second, third).records == 7
    assert verified(second, third).begins == Link(2, last_hash(first))
    with pytest.raises(Broken, match="does not follow"):
        verified(first, third)


def test_a_piece_is_taken_only_where_the_next_record_names_it() -> None:
    lines = chain(2)
    piece = b'{"seq":2,"pr'
    named = {"kind": RESUMED, "torn_bytes": 12, "torn_sha256": hashlib.sha256(piece).hexdigest()}
    resumed = seal(Link(1, last_hash(lines)), json.dumps(named).encode())[0].removesuffix(b"\n")
    assert verified([*lines, piece, resumed]).torn == 1
    for wrong in ([*lines, piece], [*lines, resumed], [*lines, piece[1:], resumed], [piece, *lines, resumed]):
        with pytest.raises(Broken):
            verified(wrong)


def test_nothing_is_no_chain() -> None:
    with pytest.raises(Broken, match="no record"):
        verified([])
