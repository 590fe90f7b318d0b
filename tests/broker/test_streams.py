"""Streams: a legacy session's own, opened by GET, and modern responses that last."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from msgspec import Raw

from events import EventReader, messages
from fronts import FakeBroker, asked, fronting
from harness import SECONDS, LegacyClient, ModernClient, until
from mcphost.broker import Client, Reply
from mcphost.decisions.sessions import SessionLimits
from mcphost.protocol import jsonrpc
from mcphost.protocol.envelope import Inbound
from mcphost.transports import exchange, mail, sse


def note(what: object) -> bytes:
    return jsonrpc.raw_bytes({"jsonrpc": "2.0", "method": "notifications/x", "params": {"what": what}})


IDLE = 0.1
CHANGED = jsonrpc.raw_bytes({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})


@asynccontextmanager
async def got(client: LegacyClient, **headers: str) -> AsyncIterator[tuple[httpx.Response, Any]]:
    """A GET stream: the response, and its messages as they come."""
    sent = {**client.headers("", None), "Accept": "text/event-stream", **headers}
    with anyio.fail_after(SECONDS):
        async with client.http.stream("GET", client.path, headers=sent) as response:
            yield response, messages(response.aiter_raw())


async def status(client: LegacyClient, method: str = "GET", **headers: str) -> int:
    """The status of a request whose body is not wanted."""
    sent = {**client.headers("", None), **headers}
    async with client.http.stream(method, client.path, headers=sent) as response:
        return response.status_code


def sender(broker: FakeBroker) -> Any:
    session = broker.clients[-1].session
    assert session is not None
    return session.send


# --- the GET stream -------------------------------------------------------------------------------------


async def test_a_get_opens_the_sessions_stream_and_carries_what_is_sent_to_it() -> None:
    async with fronting() as fronted:
        client = await fronted.legacy()
        send = sender(fronted.broker)
        send(note("before it was opened"))
        async with got(client) as (response, stream):
            assert response.status_code == 200
            assert response.headers["content-type"] == "text/event-stream"
            assert response.headers["cache-control"] == "no-cache, no-transform"
            assert response.headers["x-accel-buffering"] == "no"
            assert (await anext(stream))["params"] == {"what": "before it was opened"}
            send(note("while it is open"))
            assert (await anext(stream))["params"] == {"what": "while it is open"}


async def test_a_session_has_one_stream_at_a_time_and_another_after_it() -> None:
    async with fronting() as fronted:
        client, other = await fronted.legacy(), await fronted.legacy()
        async with got(client):
            assert await status(client) == 409
            async with got(other) as (response, _):
                assert response.status_code == 200
        with anyio.fail_after(SECONDS):
            while (opened := await status(client)) == 409:
                pass  # the front has not seen yet that the client went away
        assert opened == 200


async def test_each_message_goes_to_its_own_session_only() -> None:
    async with fronting() as fronted:
        one = await fronted.legacy()
        send_one = sender(fronted.broker)
        two = await fronted.legacy()
        send_two = sender(fronted.broker)
        async with got(one) as (_, of_one), got(two) as (_, of_two):
            send_two(note("two"))
            send_one(note("one"))
            assert (await anext(of_one))["params"]["what"] == "one"
            assert (await anext(of_two))["params"]["what"] == "two"


@pytest.mark.parametrize("bound", ["MAX_MESSAGES", "MAX_BYTES"])
async def test_what_waits_is_bounded_and_the_newest_is_kept(
    monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(mail, bound, 3 if bound == "MAX_MESSAGES" else 3 * len(note(0)))
    async with fronting() as fronted:
        client = await fronted.legacy()
        send = sender(fronted.broker)
        for number in range(10):
            send(note(number % 10))
        send(note("far too large" * 1000) if bound == "MAX_BYTES" else CHANGED)
        async with got(client) as (_, stream):
            seen = [await anext(stream) for _ in range(3)]
            kept = [each.get("params", {}).get("what") for each in seen]
            assert kept == ([8, 9, None] if bound == "MAX_MESSAGES" else [7, 8, 9])


async def test_that_a_list_changed_waits_once_however_often_it_did() -> None:
    async with fronting() as fronted:
        client = await fronted.legacy()
        send = sender(fronted.broker)
        for _ in range(100):
            send(CHANGED)
        send(note("last"))
        async with got(client) as (_, stream):
            assert (await anext(stream))["method"] == "notifications/tools/list_changed"
            assert (await anext(stream))["params"]["what"] == "last"
            send(CHANGED)
            assert (await anext(stream))["method"] == "notifications/tools/list_changed", "news again"


async def test_line_breaks_between_tokens_never_make_a_second_event() -> None:
    async with fronting() as fronted:
        client = await fronted.legacy()
        sender(fronted.broker)(b'{"jsonrpc":"2.0",\r\n\r\n"method":\n"notifications/x"}')
        async with got(client) as (_, stream):
            assert (await anext(stream)) == {"jsonrpc": "2.0", "method": "notifications/x"}


async def test_the_stream_ends_with_its_session() -> None:
    async with fronting() as fronted:
        client = await fronted.legacy()
        async with got(client) as (_, stream):
            assert await status(client, "DELETE") == 200
            assert [each async for each in stream] == []
        sender(fronted.broker)(note("to nobody"))
        assert await status(client) == 404


async def test_the_stream_ends_when_the_runtime_drains() -> None:
    async with fronting() as fronted:
        client = await fronted.legacy()
        async with got(client) as (_, stream):
            fronted.front.drain()
            assert [each async for each in stream] == []


async def test_streams_without_an_end_of_their_own_do_not_keep_the_runtime_from_stopping() -> None:
    async with fronting(listen, drain_seconds=1000) as fronted:
        client = await fronted.legacy()
        async with got(client) as (_, of_session), listening(fronted.modern()) as (_, of_request):
            await anext(of_request)
            assert fronted.listener is not None
            fronted.front.drain()
            fronted.listener.stop()
            assert [each async for each in of_session] == []
            assert [each async for each in of_request][-1]["result"] == {"over": True}
            await fronted.http.aclose()
            with anyio.fail_after(SECONDS):
                await fronted.listener.wait_stopped()


async def test_the_stream_ends_when_the_token_that_opened_it_expires() -> None:
    async with fronting(wall=lambda: 1e9, expires_at=1e9 + 0.1) as fronted:
        client = await fronted.legacy()
        async with got(client) as (_, stream):
            assert [each async for each in stream] == []


async def test_a_stream_on_which_nothing_happens_gets_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 0.01)
    async with fronting() as fronted:
        client = await fronted.legacy()
        async with got(client) as (response, _):
            reader, comments = EventReader(), 0
            async for piece in response.aiter_raw():
                comments += sum(event.is_comment for event in reader.feed(piece))
                if comments >= 2:
                    break


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"MCP-Protocol-Version": "2026-07-28"}, 405),
        ({"MCP-Protocol-Version": "2019-01-01"}, 400),
        ({"MCP-Protocol-Version": "2025-06-18"}, 400),
        ({"Mcp-Session-Id": "none"}, 404),
        ({"Accept": "application/json"}, 406),
        ({"Accept": "text/event-stream;q=0"}, 406),
        ({"Authorization": "Bearer other"}, 401),
        ({"Authorization": "Bearer the-token-of-other"}, 404),
    ],
    ids=str,
)
async def test_a_get_that_opens_nothing(headers: dict[str, str], expected: int) -> None:
    async with fronting() as fronted:
        client = await fronted.legacy()
        assert await status(client, **headers) == expected
        async with got(client) as (response, _):
            assert response.status_code == 200


async def test_methods_that_no_face_has_are_told_those_that_it_has() -> None:
    async with asked() as fronted:
        client = await fronted.legacy()
        for method in ("HEAD", "PUT", "OPTIONS", "PATCH"):
            response = await client.http.request(method, client.path)
            assert (response.status_code, response.headers["allow"]) == (405, "GET, POST, DELETE")
        for method in ("GET", "DELETE", "HEAD", "OPTIONS"):
            headers = {"MCP-Protocol-Version": "2026-07-28"}
            response = await client.http.request(method, client.path, headers=headers)
            assert (response.status_code, response.headers["allow"]) == (405, "POST")


async def test_a_get_or_delete_without_a_session_is_asked_for_one() -> None:
    async with asked() as fronted:
        client = await fronted.legacy()
        client.session = None
        assert await status(client) == 400
        assert await status(client, "DELETE") == 400


# --- one session's bounds and ends ------------------------------------------------------------------------


async def test_a_listening_session_is_not_idle_and_one_that_is_ends_by_itself() -> None:
    async with fronting(limits=SessionLimits(10, IDLE)) as fronted:
        client = await fronted.legacy()
        session = fronted.broker.clients[-1].session
        async with got(client) as (_, stream):
            idle_at = anyio.current_time() + IDLE
            await until(lambda: anyio.current_time() > idle_at, "it would be idle if it were not listening")
            assert fronted.legacy_face.open_sessions("acme") == 1
            sender(fronted.broker)(note("still here"))
            assert (await anext(stream))["params"]["what"] == "still here"
        await until(lambda: not fronted.legacy_face.open_sessions("acme"), "it became idle")
        assert fronted.broker.ended == [session]


# --- modern streams -----------------------------------------------------------------------------------------


@asynccontextmanager
async def listening(client: ModernClient) -> AsyncIterator[tuple[httpx.Response, Any]]:
    body = client.body("subscriptions/listen", {}, {})
    headers = client.headers("subscriptions/listen", None)
    with anyio.fail_after(SECONDS):
        async with client.http.stream("POST", client.path, json=body, headers=headers) as response:
            yield response, messages(response.aiter_raw())


async def listen(_: Inbound, client: Client) -> Raw:
    client.notify(note("acknowledged"))
    await client.ending.wait()
    client.notify(note("last"))
    return jsonrpc.raw({"over": True})


async def test_a_response_that_lasts_begins_with_its_first_message_and_is_answered_on_draining() -> None:
    async with fronting(listen) as fronted:
        async with listening(fronted.modern()) as (response, stream):
            assert response.headers["content-type"] == "text/event-stream"
            assert (await anext(stream))["params"]["what"] == "acknowledged"
            fronted.front.drain()
            assert (await anext(stream))["params"]["what"] == "last"
            assert (await anext(stream))["result"] == {"over": True}
            assert [each async for each in stream] == []


async def test_a_response_that_lasts_is_answered_when_its_token_expires() -> None:
    async with fronting(listen, wall=lambda: 1e9, expires_at=1e9 + 0.1) as fronted:
        async with listening(fronted.modern()) as (_, stream):
            assert [each.get("result") for each in [each async for each in stream]][-1] == {"over": True}


async def test_a_response_that_lasts_ends_rather_than_lose_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MAX_BACKLOG_BYTES", 1000)
    cancelled = anyio.Event()

    async def flood(inbound: Inbound, client: Client) -> Raw:
        if inbound.method != "subscriptions/listen":
            return jsonrpc.EMPTY_OBJECT
        try:
            for number in range(100):
                client.notify(note(number))
            await anyio.sleep_forever()
        finally:
            cancelled.set()
        raise AssertionError

    async with fronting(flood) as fronted:
        async with listening(fronted.modern()) as (_, stream):
            assert [each async for each in stream] == []
        with anyio.fail_after(SECONDS):
            await cancelled.wait()
        assert (await fronted.modern().call("any")).result == {}, "others are answered as ever"


async def test_a_stream_that_its_client_closes_cancels_the_request_and_nothing_more_is_sent() -> None:
    cancelled = anyio.Event()

    async def answer(_: Inbound, client: Client) -> Raw:
        client.notify(note("begun"))
        try:
            await anyio.sleep_forever()
        finally:
            client.notify(note("after the end"))
            cancelled.set()
        raise AssertionError

    async with fronting(answer) as fronted:
        async with listening(fronted.modern()) as (_, stream):
            await anext(stream)
        with anyio.fail_after(SECONDS):
            await cancelled.wait()


async def test_what_comes_before_an_answer_at_once_is_not_lost_to_json() -> None:
    async def answer(_: Inbound, client: Client) -> Raw:
        client.notify(note("first"))
        return jsonrpc.raw({"second": True})

    async with asked(answer) as fronted:
        for client in (fronted.modern(), await fronted.legacy()):
            answered = await client.call("any")
            assert answered.messages[0]["params"]["what"] == "first"
            assert answered.result == {"second": True}


async def test_an_answer_that_takes_long_becomes_a_stream_with_comments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_SECONDS", 0.01)
    go = anyio.Event()

    async def answer(_: Inbound, __: Client) -> Raw:
        await go.wait()
        return jsonrpc.EMPTY_OBJECT

    async with fronting(answer) as fronted, listening(fronted.modern()) as (response, stream):
        assert response.headers["content-type"] == "text/event-stream"
        go.set()
        assert (await anext(stream))["result"] == {}


async def test_nothing_is_sent_to_a_client_that_is_gone() -> None:
    """Seen from inside, for from outside a closed connection shows nothing."""
    sent: list[dict[str, Any]] = []
    begun = anyio.Event()

    async def receive() -> dict[str, Any]:
        if not begun.is_set():
            begun.set()
            return {"type": "http.request", "body": b""}
        await noted.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            noted.set()

    noted = anyio.Event()
    one = exchange.Exchange(send)

    async def answer() -> Reply:
        one.notify(note("first"))
        try:
            await anyio.sleep_forever()
        finally:
            one.notify(note("after the end"))
        raise AssertionError

    with anyio.fail_after(SECONDS):
        await one.run(answer, receive, one.cancel)
    assert [each["type"] for each in sent] == ["http.response.start", "http.response.body"]
    assert b"first" in sent[1]["body"]
