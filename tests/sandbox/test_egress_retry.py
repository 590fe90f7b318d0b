"""A second ClientHello is held to the name of the first, in whatever pieces and between whatever records it comes."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_hello import real_hello
from sandbox import HelloReader, HelloRefused, RetryWatch

RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
CHANGE, EARLY_DATA = b"\x14\x03\x03\0\x01\x01", b"\x17\x03\x03\0\x05early"
KEYS = b"\x16\x03\x03\0\x05\x10\0\0\x01x"


OWN, OTHER, NONE = real_hello("a.example"), real_hello("b.example"), real_hello(None)


def server_hello(random: bytes) -> bytes:
    body = b"\x03\x03" + random + b"\0\x13\x01\0\0\0"
    message = b"\x02" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x03" + len(message).to_bytes(2, "big") + message


def passes(data: bytes, cuts: Iterable[int] = (), watch: RetryWatch | None = None) -> bool:
    """Whether what a client sends after its first hello goes on."""
    watch = watch or RetryWatch("a.example")
    edges = [0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    try:
        for start, end in itertools.pairwise(edges):
            watch.from_client(data[start:end])
    except HelloRefused:
        return False
    return True


@pytest.mark.parametrize(
    ("data", "passed"),
    [
        (OWN, True),
        (OTHER, False),
        (NONE, False),
        (CHANGE + OWN, True),
        (CHANGE + OTHER, False),
        (EARLY_DATA * 3 + CHANGE + OTHER, False),
        (CHANGE + EARLY_DATA * 3, True),
        (KEYS + CHANGE, True),
        (KEYS + OTHER, True),  # after its keys no server takes a hello in the clear
        (b"GET / HTTP/1.1\r\n", False),
        (b"\x16\x02\0\0\x01x", False),
        (b"\x17\x03\x03\xff\xff", False),
        (b"\x16\x03\x03\0\0", False),
        (b"", True),
    ],
)
def test_a_second_hello_goes_only_where_the_first_did(data, passed):
    assert passes(data) is passed
    assert passes(data, range(len(data))) is passed


def test_a_second_hello_may_be_cut_by_other_records():
    inner = OTHER[5:]
    cut = b"".join(
        b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part + CHANGE for part in (inner[:9], inner[9:])
    )
    assert not passes(cut)


def test_a_server_that_goes_on_ends_the_watch_and_one_that_asks_again_does_not():
    watch = RetryWatch("a.example")
    for byte in server_hello(RETRY):
        watch.from_server(bytes([byte]))
    assert watch.watching
    assert not passes(OTHER, watch=watch)
    watch = RetryWatch("a.example")
    watch.from_server(server_hello(bytes(32)) + bytes(1000))
    assert not watch.watching
    assert passes(b"\x16\x03\x03\0\x05\x01\xff\xff\xff\xff", watch=watch)


@pytest.mark.parametrize(
    "answer", [b"", b"\x15\x03\x03\0\x02\x02\x28" + bytes(99), server_hello(bytes(32))[:42], b"x" * 99]
)
def test_an_answer_that_is_none_leaves_the_watch_on(answer):
    watch = RetryWatch("a.example")
    watch.from_server(answer)
    assert not passes(OTHER, watch=watch)


PIECES = st.lists(st.sampled_from([CHANGE, EARLY_DATA, OWN, OTHER, KEYS, b"\x16\x03", b"x"]), max_size=4).map(
    b"".join
)


@given(PIECES | st.binary(max_size=80), st.lists(st.integers(1, 900), max_size=6))
def test_any_bytes_have_one_outcome_however_they_are_cut(data, cuts):
    assert passes(data, cuts) == passes(data)


def test_what_came_behind_the_first_hello_is_known():
    hello = HelloReader().feed(OWN + CHANGE + OTHER)
    assert hello is not None
    assert hello.after == CHANGE + OTHER
