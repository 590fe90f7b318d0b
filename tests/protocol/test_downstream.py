"""What we say to clients in our own name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mcphost.protocol import downstream, jsonrpc
from mcphost.protocol.downstream import Face

INFO = Raw(b'{"name":"mcphost","version":"1"}')
FACE = Face({"tools": {}}, INFO, "be kind")


@pytest.mark.parametrize(
    ("asked", "version"),
    [
        (b'"2025-06-18"', "2025-06-18"),
        (b'"2026-07-28"', "2025-11-25"),
        (b"5", "2025-11-25"),
        (b"null", "2025-11-25"),
    ],
)
def test_initialize_is_answered_with_a_revision_that_is_spoken(asked: bytes, version: str) -> None:
    negotiated, result = downstream.initialize_result({"protocolVersion": Raw(asked)}, FACE)
    assert negotiated == version
    assert json.loads(bytes(result)) == {
        "protocolVersion": version,
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "mcphost", "version": "1"},
        "instructions": "be kind",
    }


def test_initialize_without_a_revision_is_answered_with_the_latest_legacy_one() -> None:
    negotiated, _ = downstream.initialize_result({}, FACE)
    assert negotiated == "2025-11-25"


def test_discover_is_answered_with_all_that_the_modern_face_owes() -> None:
    assert json.loads(bytes(downstream.discover_result(FACE))) == {
        "supportedVersions": ["2026-07-28", "2025-11-25", "2025-06-18", "2024-11-05"],
        "capabilities": {"tools": {}},
        "instructions": "be kind",
        "resultType": "complete",
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "mcphost", "version": "1"}},
    }


@pytest.mark.parametrize("nothing", [None, ""])
def test_where_there_are_no_instructions_none_are_sent(nothing: str | None) -> None:
    face = Face({}, INFO, nothing)
    assert "instructions" not in json.loads(bytes(downstream.initialize_result({}, face)[1]))
    assert "instructions" not in json.loads(bytes(downstream.discover_result(face)))


@given(
    st.integers() | st.text('aé\n"', max_size=5),
    st.dictionaries(st.text("abc"), st.integers() | st.text("\r\n")),
)
def test_progress_goes_out_under_the_clients_token_on_one_line(token: object, extra: dict) -> None:
    params = {key: jsonrpc.raw(value) for key, value in extra.items()} | {
        "progressToken": Raw(b"3"), "data": Raw(b"[1,\r2]"),
    }  # fmt: skip
    line = downstream.progress(params, jsonrpc.raw(token))
    assert not set(b"\r\n") & set(line)
    assert json.loads(line) == {
        "jsonrpc": "2.0",
        "method": "notifications/progress",
        "params": {**extra, "progressToken": token, "data": [1, 2]},
    }


@pytest.mark.parametrize("token", [b'"a"', b"0", b"-5", b'""', b"12345678901234567890"])
def test_strings_and_integers_are_progress_tokens(token: bytes) -> None:
    assert bytes(downstream.progress_token({"progressToken": Raw(token)}) or b"") == token


@pytest.mark.parametrize("token", [b"null", b"1.5", b"[]", b"{}", b"true", b'"%b"' % (b"a" * 2000)])
def test_anything_else_asks_for_no_progress(token: bytes) -> None:
    assert downstream.progress_token({"progressToken": Raw(token)}) is None
    assert downstream.progress_token({}) is None
