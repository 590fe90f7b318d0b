"""One connection, with or without a token, holds little and not for ever."""

import socket

import anyio
import pytest

from harness import fixture_server, make_policy, serving, token_of
from mcphost.transports import listener
from mcphost.transports.listener import bind

pytestmark = pytest.mark.kernel

HEAD = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


async def exchange(port: int, *pieces: str) -> bytes:
    """Send pieces, then read until the other side closes or has nothing to say for a while."""
    received = b""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        for piece in pieces:
            await stream.send(piece.encode())
        with anyio.move_on_after(5):
            try:
                while True:
                    received += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                received += b"<closed>"
    return received


async def test_a_token_behind_the_body_is_no_token() -> None:
    async with serving(make_policy({"fix": fixture_server()})) as served:
        answer = await exchange(
            served.http.base_url.port or 0,
            HEAD + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
            f"Authorization: Bearer {token_of('acme')}\r\n\r\n",
        )
        assert b" 401 " in answer


async def test_a_connection_whose_refused_body_does_not_end_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "LINGER_SECONDS", 0.2)
    async with serving(make_policy({"fix": fixture_server()})) as served:
        answer = await exchange(served.http.base_url.port or 0, HEAD + "Content-Length: 1000\r\n\r\n{")
        assert b" 401 " in answer
        assert answer.endswith(b"<closed>")


async def test_a_connection_whose_refused_body_does_end_goes_on() -> None:
    async with serving(make_policy({"fix": fixture_server()})) as served:
        head = HEAD + "Content-Length: 3\r\n\r\n"
        async with await anyio.connect_tcp("127.0.0.1", served.http.base_url.port or 0) as stream:
            for _ in range(3):
                await stream.send(head.encode())
                assert b" 401 " in await stream.receive()
                await stream.send(b"{ }")


async def test_pipelined_requests_are_answered_in_turn() -> None:
    async with serving(make_policy({"fix": fixture_server()})) as served:
        one = HEAD + "Content-Length: 2\r\n\r\n{}"
        answer = await exchange(served.http.base_url.port or 0, one + one + one[:-1], "}")
        assert answer.count(b" 401 ") == 3


async def test_who_sends_no_request_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(listener, "KEEP_ALIVE_SECONDS", 0.2)
    async with serving(make_policy({"fix": fixture_server()})) as served:
        port = served.http.base_url.port or 0
        assert await exchange(port, "POST /mcp HT") == b"<closed>"
        answered = await exchange(port, HEAD + "Content-Length: 2\r\n\r\n{}", "\r\n")
        assert b" 401 " in answered
        assert answered.endswith(b"<closed>")


async def test_connections_beyond_the_most_allowed_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 3)
    async with serving(make_policy({"fix": fixture_server()})) as served:
        port = served.http.base_url.port or 0
        held = [await anyio.connect_tcp("127.0.0.1", port) for _ in range(3)]
        assert await exchange(port, "POST") == b"<closed>"
        for stream in held:
            await stream.aclose()
        assert b" 401 " in await exchange(port, HEAD + "Content-Length: 2\r\n\r\n{}")


def test_answers_do_not_wait_for_acknowledgements() -> None:
    with bind("127.0.0.1", 0) as bound, socket.create_connection(bound.getsockname()):
        accepted, _ = bound.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
