"""No tenant takes another's turn: fair lines at shared servers, limits on single tools, quotas, and what else costs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import httpx
import pytest

from harness import (
    SECONDS,
    Answer,
    ModernClient,
    Served,
    fixture_server,
    make_policy,
    serving,
    tenant_entry,
    until,
)
from mcphost.decisions.turns import Party
from mcphost.workers.owners import Need
from mcphost.workers.supervisor import WorkerSet

pytestmark = pytest.mark.kernel

NOTHING: dict[str, Any] = {}
ROOTS = {"roots": {}}
GENEROUS = {"rate": "100000/s", "burst": 100000, "concurrency": 500}


def tenants(**limits: Any) -> dict[str, Any]:
    acme = tenant_entry("acme", limits={**GENEROUS, **limits})
    return {"acme": acme, "globex": tenant_entry("globex")}


def shared(*, queue: str = "30s", limits: dict[str, Any] | None = None, **server: Any) -> dict[str, Any]:
    """One server for both tenants, with a single slot."""
    settings = {"scope": "shared", "concurrency": 1, **server}
    runtime = {"limits": {"queueTime": queue}}
    return make_policy({"fix": fixture_server(**settings)}, tenants(**(limits or {})), runtime=runtime)


async def calling(client: ModernClient, tool: str, asked: dict[str, Any], **arguments: Any) -> Answer:
    meta = {"io.modelcontextprotocol/clientCapabilities": asked}
    return await client.request("tools/call", {"name": tool, "arguments": arguments}, **meta)


@asynccontextmanager
async def serving_one(policy: dict[str, Any]) -> AsyncIterator[tuple[Served, WorkerSet]]:
    """A runtime whose server is ready and known, and clients that open as many connections as they like."""
    async with serving(policy) as served:
        for asked in NOTHING, ROOTS, NOTHING:  # what was listed while it started is read again
            await calling(served.modern("fix"), "sleep", asked, seconds=0)
        unlimited = httpx.Limits(max_connections=None)
        base = served.http.base_url
        async with httpx.AsyncClient(base_url=base, timeout=SECONDS, limits=unlimited) as http:
            yield Served(served.runtime, http), served.worker_set("fix")


class Calls:
    """Calls that are under way at once, and the order in which they were answered."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self.tasks = tasks
        self.answered: list[str] = []
        self.statuses: set[int] = set()

    def start(self, client: ModernClient, many: int, tool: str, **arguments: Any) -> None:
        async def one() -> None:
            answer = await client.call(tool, **arguments)
            self.answered.append(client.tenant)
            self.statuses.add(answer.status)

        for _ in range(many):
            self.tasks.start_soon(one)


async def test_a_call_is_next_in_turn_behind_a_hundred_of_another_tenant(client_era: str) -> None:
    async with serving_one(shared()) as (served, workers), anyio.create_task_group() as tasks:
        greedy, patient = (
            await served.client(client_era, "fix"),
            await served.client("modern", "fix", "globex"),
        )
        calls = Calls(tasks)
        async with workers.lease(Need(party=Party("acme"))):
            calls.start(greedy, 100, "sleep", seconds=0.01)
            await until(lambda: workers.waiting == 100, "all wait")
            calls.start(patient, 1, "echo", text="b")
            await until(lambda: workers.waiting == 101, "it waits, too")
        await until(lambda: "globex" in calls.answered, "it is answered")
        assert calls.answered.index("globex") <= 1  # the answers of two that follow each other can cross
        await until(lambda: len(calls.answered) == 101, "the rest is served, too")
        assert calls.statuses == {200}


async def test_a_tenant_of_three_times_the_weight_has_three_times_the_turns() -> None:
    async with serving_one(shared(limits={"weight": 3})) as (served, workers):
        async with anyio.create_task_group() as tasks:
            calls = Calls(tasks)
            async with workers.lease(Need()):
                calls.start(served.modern("fix", "globex"), 12, "sleep", seconds=0.02)
                calls.start(served.modern("fix"), 12, "sleep", seconds=0.02)
                await until(lambda: workers.waiting == 24, "all wait")
            await until(lambda: len(calls.answered) >= 12, "twelve are answered")
            assert 8 <= calls.answered[:12].count("acme") <= 10
            tasks.cancel_scope.cancel()


async def test_who_waits_too_long_for_a_turn_is_told_when_to_come_again(client_era: str) -> None:
    async with serving_one(shared(queue="200ms")) as (served, workers):
        client = await served.client(client_era, "fix", "globex")
        async with workers.lease(Need()):
            refused = await client.call("echo", text="a")
            assert (refused.status, refused.error["data"]["reason"]) == (503, "overloaded")
            assert "busy for 0.2 s" in refused.error["message"]
            assert int(refused.headers["retry-after"]) >= 1
            assert workers.waiting == 0
        assert (await client.call("echo", text="a")).text == "a"


@pytest.mark.parametrize("asked", [NOTHING, ROOTS])  # a call of a client that can be asked may be parked
async def test_waiting_for_a_turn_leaves_the_call_its_own_time(asked: dict[str, Any]) -> None:
    policy = shared(timeouts={"call": "30s", "tools": {"echo": "300ms"}})
    async with serving_one(policy) as (served, workers), anyio.create_task_group() as tasks:
        texts = []

        async def call() -> None:
            params = {"name": "echo", "arguments": {"text": "late"}}
            meta = {
                "io.modelcontextprotocol/clientCapabilities": asked
            }  # one that can be asked may be parked
            texts.append((await served.modern("fix").request("tools/call", params, **meta)).text)

        async with workers.lease(Need()):
            tasks.start_soon(call)
            await until(lambda: workers.waiting == 1, "it waits")
            await anyio.sleep(0.4)  # longer than the call may take
            assert workers.waiting == 1
        await until(lambda: texts == ["late"], "it is answered")


async def test_calls_whose_clients_go_away_leave_their_slot_and_their_place_in_line() -> None:
    async with serving_one(shared()) as (served, workers):
        client = served.modern("fix")
        async with anyio.create_task_group() as tasks:
            calls = Calls(tasks)
            calls.start(client, 21, "sleep", seconds=60)
            await until(lambda: workers.waiting == 20, "all but one wait")
            tasks.cancel_scope.cancel()
        assert (await served.modern("fix", "globex").call("echo", text="b")).text == "b"
        gate = served.runtime._broker._tenants["acme"].gate
        await until(lambda: gate.under_way == 0, "all places are free")
        assert workers.waiting == 0


# --- limits of single tools, and of a day ---------------------------------------------------------------


async def test_a_limit_on_one_tool_is_no_limit_on_another(client_era: str) -> None:
    limits = {"tools": {"fix/ec*": {"rate": "1/h"}, "fix/sleep": {"concurrency": 1}}}
    async with serving(make_policy({"fix": fixture_server()}, tenants(**limits))) as served:
        client = await served.client(client_era, "fix")
        assert (await client.call("echo", text="a")).text == "a"
        refused = await client.call("echo", text="a")
        assert (refused.status, refused.error["data"]["reason"]) == (429, "rate-limited")
        assert "fix/ec*" in refused.error["message"]
        assert int(refused.headers["retry-after"]) > 3000
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: client.call("sleep", seconds=30))
            await until(lambda: served.worker_set("fix").worker.in_flight, "the first call is in flight")
            refused = await client.call("sleep", seconds=0)
            assert (refused.status, refused.error["data"]["reason"]) == (503, "overloaded")
            assert (await client.call("big", bytes=3)).text
            other = await served.client(client_era, "fix", "globex")
            assert (await other.call("sleep", seconds=0)).text == "slept"
            tasks.cancel_scope.cancel()
        if client_era == "modern":
            await until(lambda: not served.worker_set("fix").worker.in_flight, "the slot is free")
            assert (await client.call("sleep", seconds=0)).text == "slept"


async def test_past_its_quota_a_tenant_is_told_when_the_next_day_begins() -> None:
    async with serving(make_policy({"fix": fixture_server()}, tenants(quota="3/day"))) as served:
        client = served.modern("fix")
        answers = [await client.request("tools/list") for _ in range(5)]
        assert [answer.status for answer in answers] == [200] * 3 + [429] * 2
        assert answers[-1].error["data"]["reason"] == "quota"
        assert 0 < int(answers[-1].headers["retry-after"]) <= 86_400


# --- what costs as much as a call -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/list", {}),
        ("server/discover", {}),
        ("subscriptions/listen", {"notifications": {"toolsListChanged": True}}),
        ("no/such", {}),
    ],
)
async def test_lists_streams_and_nonsense_cost_rate(method: str, params: dict[str, Any]) -> None:
    policy = make_policy({"fix": fixture_server()}, tenants(rate="1/h", burst=1))
    async with serving(policy) as served:
        client = served.modern("fix")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: client.request(method, params))
            limiter = served.runtime._broker._tenants["acme"].gate._limiter
            await until(lambda: limiter.wait(anyio.current_time()), "it was counted")
            assert (await client.call("echo", text="a")).status == 429
            tasks.cancel_scope.cancel()


async def test_posted_messages_that_are_no_requests_cost_rate_and_are_refused_past_it(
    client_era: str,
) -> None:
    policy = make_policy({"fix": fixture_server()}, tenants(rate="1/h", burst=6))
    async with serving(policy) as served:
        client = await served.client(client_era, "fix")
        stray = [
            {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"},
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 77}},
        ]
        if client_era == "legacy":
            stray.append({"jsonrpc": "2.0", "id": "made-up", "result": {}})
        else:
            for each in stray:
                each["params"] = client.body("x", each.get("params", {}), {})["params"]
        responses = []
        for body in stray * 4:
            headers = client.headers(body.get("method", "none"), None)
            responses.append(await client.http.post(client.path, json=body, headers=headers))
        statuses = [response.status_code for response in responses]
        passed = 4 if client_era == "legacy" else 6  # of a handshake both messages count
        assert statuses == [202] * passed + [429] * (len(statuses) - passed)
        assert responses[-1].headers["retry-after"]


async def test_taking_back_a_call_costs_nothing() -> None:
    policy = make_policy({"fix": fixture_server()}, tenants(rate="1/h", burst=3))
    async with serving(policy) as served, anyio.create_task_group() as tasks:
        client = await served.legacy("fix")
        body = {**client.body("tools/call", {"name": "sleep", "arguments": {"seconds": 60}}, {}), "id": 77}
        tasks.start_soon(lambda: client.http.post(client.path, json=body, headers=client.headers("", None)))
        await until(lambda: served.worker_set("fix").worker.in_flight, "the call is in flight")
        assert (await client.call("echo", text="a")).status == 429
        await client.notify("notifications/cancelled", {"requestId": 77})  # asserts 202
        await until(lambda: not served.worker_set("fix").worker.in_flight, "the call is over")
