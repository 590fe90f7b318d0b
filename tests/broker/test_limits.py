"""Limits are answered, not suffered: rate, concurrency, time and size, each with its own refusal."""

import json

import anyio
import pytest

from harness import fixture_server, make_policy, serving, tenant_entry, until

pytestmark = pytest.mark.kernel


def limited(**limits: object) -> dict:
    return {"acme": tenant_entry("acme", limits=limits), "globex": tenant_entry("globex")}


async def test_past_its_rate_a_tenant_is_told_when_to_come_again_and_others_go_on(client_era: str) -> None:
    tenants = limited(rate="1/h", burst=4)
    async with serving(make_policy({"fix": fixture_server()}, tenants)) as served:
        client = await served.client(client_era, "fix")
        statuses = [(await client.call("echo", text="a")) for _ in range(6)]
        refused = [answer for answer in statuses if answer.status == 429]
        assert len(refused) == (
            4 if client_era == "legacy" else 2
        )  # both messages of a legacy client's handshake count too
        assert refused[0].error["code"] == 429
        assert refused[0].error["data"]["reason"] == "rate-limited"
        assert 0 < int(refused[0].headers["retry-after"]) <= 3600
        other = await served.client(client_era, "fix", tenant="globex")
        assert (await other.call("echo", text="b")).text == "b"


async def test_past_its_concurrency_a_tenant_is_refused_and_the_slot_is_free_afterwards(
    client_era: str,
) -> None:
    tenants = limited(rate="1000/s", burst=1000, concurrency=1)
    async with serving(make_policy({"fix": fixture_server()}, tenants)) as served:
        client = await served.client(client_era, "fix")
        await client.call("echo", text="warm")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: client.call("sleep", seconds=30))
            await until(lambda: served.worker_set("fix").worker.in_flight, "the first call is in flight")
            refused = await client.call("echo", text="a")
            assert (refused.status, refused.error["data"]["reason"]) == (503, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
            tasks.cancel_scope.cancel()
        if client_era == "modern":
            await until(lambda: not served.worker_set("fix").worker.in_flight, "the slot is free")
            assert (await client.call("echo", text="a")).text == "a"


async def test_a_call_past_its_deadline_is_cancelled_in_the_worker(client_era: str) -> None:
    server = fixture_server(timeouts={"call": "30s", "tools": {"sleep": "300ms"}})
    async with serving(make_policy({"fix": server})) as served:
        client = await served.client(client_era, "fix")
        answer = await client.call("sleep", seconds=30)
        assert answer.status == 200
        assert (answer.error["code"], answer.error["data"]["reason"]) == (504, "timeout")
        assert len(json.loads((await client.call("cancelled")).text)) == 1
        assert (await client.call("echo", text="still here")).text == "still here"


async def test_a_server_takes_no_more_calls_at_once_than_it_should_and_the_rest_wait(client_era: str) -> None:
    async with serving(make_policy({"fix": fixture_server(concurrency=2)})) as served:
        client = await served.client(client_era, "fix")
        await client.call("echo", text="warm")
        seen: list[int] = []
        answers: list[str] = []

        async def one() -> None:
            answers.append((await client.call("sleep", seconds=0.1)).text)

        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(one)
            while len(answers) < 6:
                seen.append(served.worker_set("fix").worker.in_flight)
                await anyio.sleep(0.005)
        assert answers == ["slept"] * 6
        assert max(seen) == 2


async def test_a_message_beyond_its_limit_ends_the_worker_and_only_its_calls(client_era: str) -> None:
    profile = {"default": {"resources": {"limits": {"message": "64Ki"}}}}
    async with serving(make_policy({"fix": fixture_server()}, profiles=profile)) as served:
        client = await served.client(client_era, "fix")
        assert len((await client.call("big", bytes=30_000)).text) == 30_000
        answer = await client.call("big", bytes=200_000)
        assert (answer.status, answer.error["data"]["reason"]) == (200, "worker-died")
        assert "limit" in answer.error["message"]
        assert (await client.call("echo", text="fresh")).text == "fresh"


async def test_a_message_just_within_its_limit_goes_through_whole(client_era: str) -> None:
    async with serving(make_policy({"fix": fixture_server()})) as served:
        client = await served.client(client_era, "fix")
        assert len((await client.call("big", bytes=7_000_000)).text) == 7_000_000
        text = "x" * 3_500_000
        assert (await client.call("echo", text=text)).text == text
