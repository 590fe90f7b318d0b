"""Questions to legacy clients: asked on the stream of the request they belong to, answered within their session."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from msgspec import Raw

from events import messages
from fronts import asked, fronting
from harness import SECONDS, LegacyClient
from mcphost.broker import Client
from mcphost.errors import CannotAsk
from mcphost.protocol import jsonrpc
from mcphost.protocol.envelope import Inbound
from mcphost.transports import questions
from mcphost.transports.exchange import MAX_BACKLOG_BYTES

PARAMS = jsonrpc.raw({"message": "name?\n"})


@asynccontextmanager
async def posted(client: LegacyClient, **changes: Any) -> AsyncIterator[tuple[httpx.Response, Any]]:
    """A call whose stream the test reads: the response, and its messages as they come."""
    body = {**client.body("tools/call", {"name": "ask"}, {}), **changes}
    request = client.http.stream("POST", client.path, json=body, headers=client.headers("", None))
    with anyio.fail_after(SECONDS):
        async with request as response:
            yield response, messages(response.aiter_raw())


async def respond(client: LegacyClient, identifier: object, **outcome: Any) -> None:
    body = {"jsonrpc": "2.0", "id": identifier, **outcome}
    response = await client.http.post(client.path, json=body, headers=client.headers("", None))
    assert (response.status_code, response.content) == (202, b"")


async def ask_once(_: Inbound, client: Client) -> Raw:
    answer = await client.ask("elicitation/create", PARAMS)
    return jsonrpc.raw({"kind": answer.kind, "body": answer.body})


async def test_a_question_turns_its_calls_response_into_a_stream_and_a_posted_answer_ends_it() -> None:
    async with fronting(ask_once) as fronted:
        client = await fronted.legacy(elicitation={})
        async with posted(client) as (response, stream):
            assert response.headers["content-type"] == "text/event-stream"
            assert response.headers["cache-control"] == "no-cache, no-transform"
            assert response.headers["x-accel-buffering"] == "no"
            question = await anext(stream)
            assert question["method"] == "elicitation/create"
            assert question["params"] == {"message": "name?\n"}
            await respond(client, question["id"], result={"action": "accept"})
            final = await anext(stream)
            assert final["result"] == {"kind": "result", "body": {"action": "accept"}}
            assert [message async for message in stream] == []


async def test_a_refusal_of_the_client_is_its_answer() -> None:
    async with fronting(ask_once) as fronted:
        client = await fronted.legacy()
        async with posted(client) as (_, stream):
            question = await anext(stream)
            await respond(client, question["id"], error={"code": -1, "message": "no"})
            assert (await anext(stream))["result"] == {"kind": "error", "body": {"code": -1, "message": "no"}}


async def test_ids_are_never_the_same_and_hold_128_random_bits() -> None:
    async def ask_many(_: Inbound, client: Client) -> Raw:
        async with anyio.create_task_group() as tasks:
            for _number in range(3):
                tasks.start_soon(client.ask, "roots/list", Raw())
        return jsonrpc.EMPTY_OBJECT

    async with fronting(ask_many) as fronted:
        client = await fronted.legacy()
        async with posted(client) as (_, stream):
            asked = [await anext(stream) for _ in range(3)]
            assert len({each["id"] for each in asked}) == 3
            assert all(len(each["id"]) == 32 for each in asked)
            assert all(each["params"] == {} for each in asked)
            for each in reversed(asked):
                await respond(client, each["id"], result={"roots": []})
            assert (await anext(stream))["result"] == {}


async def test_an_answer_counts_only_in_the_session_that_was_asked_and_only_once() -> None:
    async with fronting(ask_once) as fronted:
        client, stranger = await fronted.legacy(), await fronted.legacy()
        async with posted(client) as (_, stream):
            question = await anext(stream)
            await respond(stranger, question["id"], result={"from": "a stranger"})
            await respond(client, "made-up", result={"from": "nobody"})
            await respond(client, 1, result={"from": "nobody"})
            await respond(client, question["id"], result={"from": "its own"})
            await respond(client, question["id"], result={"from": "its own, late"})
            assert (await anext(stream))["result"]["body"] == {"from": "its own"}
        charged = fronted.broker.charged
        await respond(client, question["id"], result={"from": "its own, very late"})
        assert fronted.broker.charged == charged + 1  # it answers nothing, so it costs its tenant


async def test_a_question_that_is_given_up_is_taken_back_before_the_answer() -> None:
    async def ask_in_vain(_: Inbound, client: Client) -> Raw:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.ask, "elicitation/create", PARAMS)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        return jsonrpc.raw({"gave": "up"})

    async with fronting(ask_in_vain) as fronted:
        client = await fronted.legacy()
        async with posted(client) as (_, stream):
            question, taken_back, final = [message async for message in stream]
            assert taken_back["method"] == "notifications/cancelled"
            assert taken_back["params"]["requestId"] == question["id"]
            assert final["result"] == {"gave": "up"}


async def test_a_call_that_its_client_cancels_takes_its_question_back_and_has_no_answer() -> None:
    async with fronting(ask_once) as fronted:
        client = await fronted.legacy()
        async with posted(client, id="mine") as (_, stream):
            question = await anext(stream)
            await client.notify("notifications/cancelled", {"requestId": "mine"})
            (taken_back,) = [message async for message in stream]
            assert taken_back["params"]["requestId"] == question["id"]


async def test_a_stream_that_is_gone_fails_its_questions_and_not_its_call() -> None:
    reasons: list[str] = []
    finished = anyio.Event()

    async def ask_twice(_: Inbound, client: Client) -> Raw:
        for _number in range(2):
            try:
                await client.ask("elicitation/create", PARAMS)
            except CannotAsk as error:
                reasons.append(str(error))
        finished.set()
        return jsonrpc.EMPTY_OBJECT

    async with fronting(ask_twice) as fronted:
        client = await fronted.legacy()
        async with posted(client) as (_, stream):
            await anext(stream)
        with anyio.fail_after(SECONDS):
            await finished.wait()
        assert "closed before it answered" in reasons[0]
        assert "is closed, so it cannot be asked" in reasons[1]


async def test_a_session_owes_no_more_answers_than_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(questions, "MAX_QUESTIONS", 2)
    reasons: list[str] = []

    async def ask_too_much(_: Inbound, client: Client) -> Raw:
        async def ask() -> None:
            try:
                await client.ask("roots/list", Raw())
            except CannotAsk as error:
                reasons.append(str(error))

        async with anyio.create_task_group() as tasks:
            for _number in range(3):
                tasks.start_soon(ask)
        return jsonrpc.EMPTY_OBJECT

    async with fronting(ask_too_much) as fronted:
        client = await fronted.legacy()
        async with posted(client) as (_, stream):
            for _ in range(2):
                await respond(client, (await anext(stream))["id"], result={})
            assert (await anext(stream))["result"] == {}
        assert reasons == ["the client has 2 questions open in this session"]


async def test_questions_larger_than_what_may_wait_are_asked_one_after_another() -> None:
    large = jsonrpc.raw({"messages": "x" * MAX_BACKLOG_BYTES})

    async def ask_at_length(_: Inbound, client: Client) -> Raw:
        async with anyio.create_task_group() as tasks:
            for _number in range(3):
                tasks.start_soon(client.ask, "sampling/createMessage", large)
        return jsonrpc.EMPTY_OBJECT

    async with fronting(ask_at_length) as fronted:
        client = await fronted.legacy()
        async with posted(client) as (_, stream):
            asked = [await anext(stream) for _ in range(3)]
            for each in asked:
                await respond(client, each["id"], result={})
            assert (await anext(stream))["result"] == {}


async def test_modern_clients_are_not_asked_so() -> None:
    reasons: list[str] = []

    async def ask(_: Inbound, client: Client) -> Raw:
        try:
            await client.ask("roots/list", Raw())
        except CannotAsk as error:
            reasons.append(str(error))
        return jsonrpc.EMPTY_OBJECT

    async with asked(ask) as fronted:
        assert (await fronted.modern().call("any")).result == {}
        assert reasons == ["this client cannot be sent roots/list"]


async def test_what_a_client_declared_and_told_of_itself_comes_with_each_of_its_requests() -> None:
    async with asked() as fronted:
        client = await fronted.legacy(sampling={"tools": {}}, experimental={"x": {}})
        await client.call("any")
        seen = fronted.broker.clients[-1]
        assert bytes(seen.capabilities) == b'{"sampling":{"tools":{}},"experimental":{"x":{}}}'
        assert seen.declared.parts == (("sampling", ("tools",)),)
        assert bytes(seen.info or b"") == b'{"name":"tests","version":"1"}'
        assert seen.session is not None
        assert seen.session is fronted.broker.clients[0].session, (
            "known to the broker from its first request on"
        )


async def test_capabilities_beyond_their_bound_are_reduced_to_what_decides() -> None:
    async with asked() as fronted:
        client = await fronted.legacy(roots={"listChanged": True}, experimental={"x": "y" * 1000})
        await client.call("any")
        assert bytes(fronted.broker.clients[-1].capabilities) == b'{"roots":{}}'
        assert len(client.session or "") < 2048


async def test_notifications_that_mean_nothing_here_are_accepted() -> None:
    async with asked() as fronted:
        client = await fronted.legacy(roots={"listChanged": True})
        for method in ("notifications/roots/list_changed", "notifications/initialized", "notifications/x"):
            await client.notify(method)
        assert len(fronted.broker.clients) == 1, "the broker heard of `initialize` only"


async def test_the_broker_is_told_of_the_end_of_a_session() -> None:
    async with asked() as fronted:
        client = await fronted.legacy()
        await client.call("any")
        session = fronted.broker.clients[-1].session
        await client.http.delete(client.path, headers=client.headers("", None))
        assert fronted.broker.ended == [session]
