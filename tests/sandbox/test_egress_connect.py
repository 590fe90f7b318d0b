"""The request that a worker makes of the proxy: one form, one request, a bounded head, however it is cut."""

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandbox import ConnectReader, ConnectRefused, ConnectRequest, answer
from sandbox.egress.connect_request import MAX_FIELDS, MAX_HEAD_BYTES

GOOD = b"CONNECT Api.Example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\nUser-Agent: x\r\n\r\n"


def outcome_of(data: bytes, cuts: tuple[int, ...] = ()) -> ConnectRequest | int | None:
    """The request, the status of a refusal, or None while more is wanted; what is left uncut follows the request."""
    reader = ConnectReader()
    edges = [0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    for start, end in itertools.pairwise(edges):
        try:
            if (request := reader.feed(data[start:end])) is not None:
                return ConnectRequest(request.host, request.port, request.rest + data[end:])
        except ConnectRefused as refused:
            return refused.status
    return None


@pytest.mark.parametrize(
    ("target", "host", "port"),
    [
        ("api.example.com:443", "api.example.com", 443),
        ("API.example.com.:8443", "api.example.com", 8443),
        ("1.1.1.1:443", "1.1.1.1", 443),
        ("[2606:4700::1111]:443", "2606:4700::1111", 443),
    ],
)
def test_a_request_says_where_to_go(target, host, port):
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()
    assert outcome_of(head + b"rest") == ConnectRequest(host, port, b"rest")


def test_a_client_of_http_1_0_need_not_say_host():
    assert outcome_of(b"CONNECT a.example:443 HTTP/1.0\r\n\r\n") == ConnectRequest("a.example", 443, b"")
    assert outcome_of(b"CONNECT a.example:443 HTTP/1.1\r\n\r\n") == 400


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "connect", "PRI"])
def test_another_method_is_told_what_is_carried(method):
    assert outcome_of(f"{method} http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n".encode()) == 405
    assert b"Allow: CONNECT\r\n" in answer(405, "why")


HOST = b"Host: a.example:443\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT a.example HTTP/1.1\r\n" + HOST,
        b"CONNECT a.example:0 HTTP/1.1\r\n" + HOST,
        b"CONNECT a.example:65536 HTTP/1.1\r\n" + HOST,
        b"CONNECT :443 HTTP/1.1\r\n" + HOST,
        b"CONNECT http://a.example:443 HTTP/1.1\r\n" + HOST,
        b"CONNECT user@a.example:443 HTTP/1.1\r\n" + HOST,
        b"CONNECT 127.1:443 HTTP/1.1\r\n" + HOST,
        b"CONNECT [::1%lo]:443 HTTP/1.1\r\n" + HOST,
        b"CONNECT a.example:443 HTTP/2.0\r\n" + HOST,
        b"CONNECT  a.example:443 HTTP/1.1\r\n" + HOST,
        b"CONNECT a.example:443 HTTP/1.1 \r\n" + HOST,
        b"CONNECT a.example:443\r\n" + HOST,
        b"CONNECT a\x00.example:443 HTTP/1.1\r\n" + HOST,
        b"CONNECT b\xc3\xbccher.example:443 HTTP/1.1\r\n" + HOST,
        b"\r\nCONNECT a.example:443 HTTP/1.1\r\n" + HOST,
        b"CONNECT a.example:443 HTTP/1.1\r\n" + HOST + HOST,
        b"CONNECT a.example:443 HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\n" + HOST + b"X: a\r\n folded\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\n" + HOST + b"X : a\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\n" + HOST + b"no colon\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\n" + HOST + b"X: a\nHost: b\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\n" + HOST + b"X: a\rHost: b\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\n" + HOST + b"X: a\r\n" * MAX_FIELDS,
        b"CONNECT a.example:443 HTTP/1.1\r\nX: " + b"a" * MAX_HEAD_BYTES,
        b"\x16\x03\x01\x02\x00",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(head):
    assert outcome_of(head + b"\r\n") == 400


def test_a_second_request_is_only_bytes_of_the_tunnel():
    assert outcome_of(GOOD + GOOD) == ConnectRequest("api.example.com", 443, GOOD)


PIECES = st.sampled_from(
    [
        b"CONNECT ",
        b"GET ",
        b"a.example",
        b":443",
        b" HTTP/1.1",
        b"\r\n",
        b"\n",
        b"\r",
        b"Host: a",
        b": ",
        b"x" * 3000,
    ]
)
HEADS = st.lists(PIECES, max_size=12).map(b"".join) | st.binary(max_size=200) | st.just(GOOD + b"\x16\x03")


@given(HEADS, st.lists(st.integers(1, MAX_HEAD_BYTES + 10), max_size=6))
@example(GOOD, list(range(len(GOOD))))
@example(b"C" * 3 * MAX_HEAD_BYTES, [MAX_HEAD_BYTES - 1, MAX_HEAD_BYTES])
def test_any_bytes_have_one_outcome_however_they_are_cut(data, cuts):
    assert outcome_of(data, tuple(cuts)) == outcome_of(data)


@given(HEADS, st.integers(1, 5000))
def test_no_more_is_held_than_a_head_and_one_read(data, size):
    reader = ConnectReader()
    for start in range(0, len(data), size):
        try:
            if reader.feed(data[start : start + size]) is not None:
                return
        except ConnectRefused:
            return
        assert len(reader._held) < MAX_HEAD_BYTES + size


@given(st.sampled_from([400, 403, 405, 502, 504]), st.text(max_size=50))
def test_an_answer_has_the_length_it_says_and_nothing_else_in_its_head(status, reason):
    head, _, body = answer(status, reason).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert re.search(rb"Content-Length: (\d+)", head)[1] == str(len(body)).encode()
