"""Cancellation reaches the worker, and only where the client meant it."""

import json

import anyio
import pytest

from harness import Answer, fixture_server, make_policy, serving, until

pytestmark = pytest.mark.kernel


async def test_a_legacy_cancellation_reaches_the_worker_and_ends_the_stream_without_an_answer() -> None:
    async with serving(make_policy({"fix": fixture_server()})) as served:
        client = await served.legacy("fix")
        await client.call("echo", text="warm")
        got: list[Answer] = []

        async def cancelled_call() -> None:
            body = {
                **client.body("tools/call", {"name": "sleep", "arguments": {"seconds": 60}}, {}),
                "id": "mine",
            }
            response = await served.http.post(client.path, json=body, headers=client.headers("", None))
            got.append(Answer(response.status_code, response.headers, [], response.content))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancelled_call)
            await until(lambda: served.worker_set("fix").worker.in_flight, "the call is in flight")
            await client.notify("notifications/cancelled", {"requestId": "mine", "reason": "no more"})
        assert got[0].status == 200
        assert b"data:" not in got[0].raw
        assert len(json.loads((await client.call("cancelled")).text)) == 1


async def test_a_session_cannot_cancel_anothers_call_by_its_id() -> None:
    async with serving(make_policy({"fix": fixture_server()})) as served:
        owner, stranger = await served.legacy("fix"), await served.legacy("fix")
        await owner.call("echo", text="warm")
        texts: list[str] = []

        async def call() -> None:
            body = {
                **owner.body("tools/call", {"name": "sleep", "arguments": {"seconds": 0.5}}, {}),
                "id": 99,
            }
            response = await served.http.post(owner.path, json=body, headers=owner.headers("", None))
            texts.append(response.json()["result"]["content"][0]["text"])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await until(lambda: served.worker_set("fix").worker.in_flight, "the call is in flight")
            for requested in (99, 1, 2, 3, 4, 5):
                await stranger.notify("notifications/cancelled", {"requestId": requested})
        assert texts == ["slept"]


async def test_a_modern_client_that_goes_away_cancels_its_call_in_the_worker() -> None:
    async with serving(make_policy({"fix": fixture_server()})) as served:
        client = served.modern("fix")
        await client.call("echo", text="warm")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: client.call("sleep", seconds=60))
            await until(lambda: served.worker_set("fix").worker.in_flight, "the call is in flight")
            tasks.cancel_scope.cancel()
        await until(lambda: not served.worker_set("fix").worker.in_flight, "the call was given up")
        assert len(json.loads((await client.call("cancelled")).text)) == 1


async def test_a_legacy_client_that_goes_away_cancels_nothing() -> None:
    async with serving(make_policy({"fix": fixture_server()})) as served:
        client = await served.legacy("fix")
        await client.call("echo", text="warm")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: client.call("sleep", seconds=0.5))
            await until(lambda: served.worker_set("fix").worker.in_flight, "the call is in flight")
            tasks.cancel_scope.cancel()
        await until(lambda: not served.worker_set("fix").worker.in_flight, "the call is over")
        assert json.loads((await client.call("cancelled")).text) == []


async def test_a_posted_cancellation_in_the_modern_era_is_accepted_and_ignored() -> None:
    async with serving(make_policy({"fix": fixture_server()})) as served:
        client = served.modern("fix")
        body = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
        headers = client.headers("notifications/cancelled", None)
        response = await served.http.post(client.path, json=body, headers=headers)
        assert (response.status_code, response.content) == (202, b"")
