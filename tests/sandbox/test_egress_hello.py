"""The name in a ClientHello: found in those of real clients, held to the one asked for, and never guessed."""

import itertools
import ssl
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from client_hello import real_hello
from sandbox import HelloReader, HelloRefused, name_refusal
from sandbox.egress.tls_hello import MAX_HELLO_BYTES, MAX_RAW_BYTES


def vector(width: int, data: bytes) -> bytes:
    return len(data).to_bytes(width, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(2, data)


def server_name(*names: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(2, b"".join(bytes([kind]) + vector(2, name) for name in names)))


def message(
    extensions: Iterable[bytes] | None, *, suites: bytes = b"\x13\x01", session: bytes = b""
) -> bytes:
    body = b"\x03\x03" + bytes(32) + vector(1, session) + vector(2, suites) + vector(1, b"\0")
    if extensions is not None:
        body += vector(2, b"".join(extensions))
    return b"\x01" + vector(3, body)


def records(data: bytes, size: int = 2**14) -> bytes:
    return b"".join(
        b"\x16\x03\x01" + vector(2, data[start : start + size]) for start in range(0, len(data), size)
    )


def read(data: bytes, cuts: Iterable[int] = ()) -> str | None:
    """The name; `no name`, `refused`, or None while more is wanted."""
    reader = HelloReader()
    edges = [0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    for start, end in itertools.pairwise(edges):
        try:
            if (hello := reader.feed(data[start:end])) is not None:
                assert hello.raw == data[:end]
                assert data[:end].endswith(hello.after)
                return hello.name or "no name"
        except HelloRefused:
            return "refused"
    return None


def test_the_name_of_a_real_client_is_found():
    assert read(real_hello("api.example.com")) == "api.example.com"
    assert read(real_hello("API.Example.Com")) == "api.example.com"
    assert read(real_hello("a.example", maximum_version=ssl.TLSVersion.TLSv1_2)) == "a.example"
    assert read(real_hello(None)) == "no name"


def test_a_hello_may_be_cut_over_records_as_over_reads():
    hello = message([server_name(b"a.example"), extension(0x2A2A, b""), extension(16, b"x" * 500)])
    for size in (1, 2, 3, 7, 200):
        assert read(records(hello, size)) == "a.example"
    whole = records(hello)
    assert read(whole, range(1, len(whole))) == "a.example"
    assert read(whole[:-1]) is None


def test_what_tls_reserves_to_keep_others_tolerant_is_passed_over():
    assert read(records(message([extension(0x0A0A, b""), server_name(b"a.example"), extension(0xFAFA, b"x")],
                                suites=b"\x1a\x1a\x13\x01"))) == "a.example"  # fmt: skip


@pytest.mark.parametrize(
    "hello",
    [
        message([server_name(b"a.example"), server_name(b"b.example")]),
        message([extension(16, b""), server_name(b"a.example"), extension(16, b"")]),
        message([server_name(b"a.example", b"b.example")]),
        message([server_name(b"a.example", kind=1)]),
        message([server_name(b"")]),
        message([server_name(b"a\0.example")]),
        message([server_name("ü.example".encode())]),
        message([extension(0, b"")]),
        message([extension(0, vector(2, b"\0" + vector(2, b"a")) + b"x")]),
        message([server_name(b"a.example"), extension(0xFE0D, b"\0" * 40)]),
        message([server_name(b"a.example"), b"\0"]),
        message([server_name(b"a.example")], suites=b""),
        message([server_name(b"a.example")], suites=b"\x13"),
        message([server_name(b"a.example")], session=b"x" * 33),
        message([server_name(b"a.example")])[:-1] + b"xx",
        b"\x01" + vector(3, message([server_name(b"a.example")])[4:] + b"x"),
        b"\x02" + message([server_name(b"a.example")])[1:],
        b"\x01" + vector(3, b"\x02\x00" + bytes(40)),
        b"\x01" + (MAX_HELLO_BYTES + 1).to_bytes(3, "big"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(hello):
    assert read(records(hello)) == "refused"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", b"\x80\x2e\x01\x03\x01", b"\x17\x03\x03\x00\x01x", b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x03\x01\x00\x00", b"\x16\x03\x01\xff\xff", b"\x16\x02\x00\x00\x05", b"\0",
    ],
)  # fmt: skip
def test_what_is_not_tls_is_refused_at_once(data):
    assert read(data) == "refused"


def test_a_hello_in_very_many_records_is_refused_before_it_is_held():
    hello = message([server_name(b"a.example"), extension(21, bytes(MAX_HELLO_BYTES - 100))])
    assert read(records(hello)) == "a.example"
    assert read(records(hello, 1)) == "refused"


@pytest.mark.parametrize(
    ("name", "host", "passes"),
    [
        ("a.example", "a.example", True),
        ("b.example", "a.example", False),
        ("www.a.example", "a.example", False),
        ("a.example.", "a.example", False),
        (None, "a.example", False),
        (None, "1.1.1.1", True),
        ("a.example", "1.1.1.1", False),
        ("1.1.1.1", "1.1.1.1", False),
    ],
)
def test_a_hello_goes_only_where_its_name_was_asked_for(name, host, passes):
    assert (name_refusal(name, host) is None) is passes


WHOLE = records(message([server_name(b"a.example"), extension(16, b"x" * 20)]))
BYTES = st.one_of(
    st.binary(max_size=300),
    st.integers(0, len(WHOLE) - 1).flatmap(
        lambda at: st.integers(0, 255).map(lambda value: WHOLE[:at] + bytes([value]) + WHOLE[at + 1 :])
    ),
    st.binary(max_size=60).map(lambda body: records(b"\x01" + vector(3, body), 7)),
    st.binary(max_size=60).map(lambda body: records(message([body]), 5)),
    st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=9)), max_size=4).map(
        lambda pairs: records(message([extension(*pair) for pair in pairs]))
    ),
)


@settings(max_examples=400)
@given(BYTES, st.lists(st.integers(1, 300), max_size=8))
@example(WHOLE, list(range(len(WHOLE))))
def test_any_bytes_have_one_outcome_however_they_are_cut(data, cuts):
    assert read(data, cuts) == read(data)


@given(BYTES, st.integers(1, 100))
def test_no_more_is_held_than_the_bound_and_one_read(data, size):
    reader = HelloReader()
    for start in range(0, len(data), size):
        try:
            if reader.feed(data[start : start + size]) is not None:
                return
        except HelloRefused:
            return
        assert len(reader._raw) <= MAX_RAW_BYTES + size
