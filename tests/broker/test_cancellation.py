"""A call that is given up is given up everywhere, wherever it waits: at the server, at the client, in every count.

One test for each place where a call waits: for its process, for a list, for the server's answer, for a round to be complete, for
the client's answers on its stream, and for the client to come back (in `test_parking`).
"""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from answering import asked_client
from events import messages
from harness import LegacyClient, ModernClient, Served, fixture_server, make_policy, serving, until

pytestmark = pytest.mark.kernel

INSISTENT = Path(__file__).parent.parent / "servers" / "insistent.py"
YES = {"action": "accept", "content": {"answer": "yes"}}
NOTHING: dict[str, Any] = {}
CALL_ID = "the-call"


@pytest.fixture(params=["legacy", "modern"])
def worker_era(request: pytest.FixtureRequest) -> str:
    return request.param


def under_way(served: Served) -> int:
    """Places that the tenant's calls hold."""
    return served.runtime._broker._tenants["acme"].gate.under_way


def working(served: Served) -> int:
    """Requests that the main process has not answered."""
    worker = served.worker_set("fix").worker
    return 0 if worker is None else worker.in_flight


async def gone(served: Served) -> None:
    """Nothing of any call is left."""
    await until(lambda: not under_way(served), "the call's place is free")
    assert len(served.runtime._broker._calls._parking) == 0
    workers = served.worker_set("fix").worker
    assert workers is None or not workers.in_flight


class Streamed:
    """A legacy client's call, whose stream is read message by message."""

    def __init__(self, client: LegacyClient, tool: str, **arguments: Any) -> None:
        self.client = client
        self.params = {"name": tool, "arguments": arguments}
        self.seen: list[dict[str, Any]] = []
        self.ended = anyio.Event()

    async def run(self) -> None:
        body = {**self.client.body("tools/call", self.params, {}), "id": CALL_ID}
        headers = self.client.headers("tools/call", None)
        async with self.client.http.stream("POST", self.client.path, json=body, headers=headers) as response:
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                async for message in messages(response.aiter_raw()):
                    self.seen.append(message)
            elif content := await response.aread():
                self.seen.append(json.loads(content))
        self.ended.set()

    def of(self, method: str) -> list[dict[str, Any]]:
        return [each for each in self.seen if each.get("method") == method]

    async def cancel(self) -> None:
        await self.client.notify("notifications/cancelled", {"requestId": CALL_ID})


async def vanish(call: Callable[[], Awaitable[Any]], holds: Callable[[], Any]) -> None:
    """Begin a call and let its client go away once something holds."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await until(holds, "the call has come so far")
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


def requesting(client: ModernClient, meta: dict[str, Any], tool: str, **arguments: Any) -> Any:
    params = {"name": tool, "arguments": arguments}
    return lambda: client.request("tools/call", params, **meta)


# --- for its process --------------------------------------------------------------------------------------


NEVER_READY = {
    "command": "python3",
    "args": ["-c", "import time; time.sleep(600)"],
    "timeouts": {"start": "60s"},
}


@pytest.mark.parametrize("capabilities", [NOTHING, {"roots": {}}])
async def test_a_modern_client_goes_while_a_process_is_started(capabilities: dict[str, Any]) -> None:
    async with serving(make_policy({"fix": NEVER_READY})) as served:
        client, meta = await asked_client(served, "modern", "fix", capabilities=capabilities)
        await vanish(requesting(client, meta, "ask"), lambda: under_way(served))
        await gone(served)


async def test_a_legacy_client_cancels_while_a_process_is_started() -> None:
    """The one that shakes hands with whoever cannot be asked anything, and with nobody else."""
    shy = {"command": "python3", "args": [str(INSISTENT), "--shy"], "timeouts": {"start": "60s"}}
    async with serving(make_policy({"fix": shy})) as served:
        client, _ = await asked_client(served, "legacy", "fix")
        call = Streamed(client, "insist", how="many")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call.run)
            await until(lambda: under_way(served), "the call is under way")
            await call.cancel()
        assert call.seen == []
        await gone(served)


async def test_a_modern_client_goes_while_all_processes_are_taken() -> None:
    policy = make_policy({"fix": fixture_server("--era", "legacy", leases=1)})
    async with serving(policy) as served:
        async with anyio.create_task_group() as tasks:
            call = await asked_on_a_stream(served, tasks)
            client, meta = await asked_client(served, "modern", "fix")
            await vanish(requesting(client, meta, "ask"), lambda: under_way(served) == 2)
            await until(lambda: under_way(served) == 1, "the place of the call that waited is free")
            assert not call.ended.is_set()
            await call.cancel()
        await gone(served)


async def test_a_modern_client_goes_while_a_process_that_many_share_has_no_place(worker_era: str) -> None:
    policy = make_policy({"fix": fixture_server("--era", worker_era, concurrency=1)})
    async with serving(policy) as served:
        client, meta = await asked_client(served, "modern", "fix", capabilities=NOTHING)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(requesting(client, meta, "sleep", seconds=60))
            await until(lambda: working(served), "the only place is taken")
            await vanish(requesting(client, meta, "echo", text="x"), lambda: under_way(served) == 2)
            await until(lambda: under_way(served) == 1, "the place of the call that waited is free")
            assert working(served) == 1
            tasks.cancel_scope.cancel()
        await gone(served)
        assert (await client.call("echo", text="x")).text == "x"


# --- for a list -------------------------------------------------------------------------------------------


# Lists its tools when it starts, and then not before it was told that somebody no longer wants to know.
RETICENT = """
import json, sys
def answer(result): print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
info = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "r", "version": "1"}}
willing = True
for line in sys.stdin:
    asked = json.loads(line)
    match asked.get("method"):
        case "initialize": answer(info)
        case "notifications/cancelled": willing = True
        case "tools/list" if willing:
            answer({"tools": [{"name": "any", "inputSchema": {"type": "object"}}]})
            willing = False
        case "tools/call": answer({"content": [{"type": "text", "text": "here"}]})
"""


async def test_a_modern_client_goes_while_the_servers_list_is_waited_for() -> None:
    """A call needs the list for the schema of its tool. The server is told, and the next call has the list."""
    async with serving(make_policy({"fix": {"command": "python3", "args": ["-c", RETICENT]}})) as served:
        client = served.modern("fix")
        await vanish(lambda: client.call("any"), lambda: under_way(served) and working(served))
        await until(lambda: not under_way(served), "the call's place is free")
        assert (await client.call("any")).text == "here"


# --- for the server's answer ------------------------------------------------------------------------------


@pytest.mark.parametrize("capabilities", [NOTHING, {"roots": {}}])
async def test_a_modern_client_goes_while_the_server_works(
    worker_era: str, capabilities: dict[str, Any]
) -> None:
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        client, meta = await asked_client(served, "modern", "fix", capabilities=capabilities)
        await client.request("tools/call", {"name": "echo", "arguments": {"text": "x"}}, **meta)
        await vanish(requesting(client, meta, "sleep", seconds=60), lambda: under_way(served))
        await gone(served)
        if worker_era == "modern":  # else it was the call's own process, which is no more
            assert len(json.loads((await served.modern("fix").call("cancelled")).text)) == 1


async def test_a_modern_client_goes_in_a_later_round() -> None:
    async with serving(make_policy({"odd": {"command": "python3", "args": [str(INSISTENT)]}})) as served:
        client, meta = await asked_client(served, "modern", "odd")
        params = {"name": "insist", "arguments": {"how": "deaf"}}
        first = (await client.request("tools/call", params, **meta)).result
        retry = params | {
            "inputResponses": dict.fromkeys(first["inputRequests"], YES),
            "requestState": first["requestState"],
        }
        parking = served.runtime._broker._calls._parking
        await vanish(lambda: client.request("tools/call", retry, **meta), lambda: not len(parking))
        await until(lambda: not under_way(served), "the call's place is free")


# --- for a round to be complete ---------------------------------------------------------------------------


async def test_a_modern_client_goes_while_the_server_keeps_asking() -> None:
    async with serving(make_policy({"odd": {"command": "python3", "args": [str(INSISTENT)]}})) as served:
        client, meta = await asked_client(served, "modern", "odd")
        running = served.runtime._broker._calls._parking.running
        asking = requesting(client, meta, "insist", how="often")
        await vanish(asking, lambda: any(each.shown() for each in running))
        await until(lambda: not under_way(served) and not running, "nothing of the call is left")


# --- for the client's answers on its stream ---------------------------------------------------------------


async def asked_on_a_stream(served: Served, tasks: Any, **arguments: Any) -> Streamed:
    client, _ = await asked_client(served, "legacy", "fix")
    call = Streamed(client, "ask", message="?", **arguments)
    tasks.start_soon(call.run)
    await until(lambda: call.of("elicitation/create"), "the client is asked")
    return call


def withdrawn(call: Streamed) -> bool:
    """Whether the client was told that the one question it was asked needs no answer any more."""
    (question,) = call.of("elicitation/create")
    return [each["params"]["requestId"] for each in call.of("notifications/cancelled")] == [question["id"]]


async def test_a_legacy_client_cancels_while_it_is_asked(worker_era: str) -> None:
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        async with anyio.create_task_group() as tasks:
            call = await asked_on_a_stream(served, tasks)
            await call.cancel()
        assert withdrawn(call)
        assert "id" not in call.seen[-1], "a cancelled call has no answer"
        await gone(served)


async def test_a_legacy_client_ends_its_session_while_it_is_asked(worker_era: str) -> None:
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        async with anyio.create_task_group() as tasks:
            call = await asked_on_a_stream(served, tasks)
            headers = call.client.headers("", None)
            assert (await served.http.delete(call.client.path, headers=headers)).status_code == 200
        await gone(served)


async def test_a_legacy_client_that_does_not_answer_loses_its_call(worker_era: str) -> None:
    policy = make_policy(
        {"fix": fixture_server("--era", worker_era)}, runtime={"limits": {"answerTime": "200ms"}}
    )
    async with serving(policy) as served:
        async with anyio.create_task_group() as tasks:
            call = await asked_on_a_stream(served, tasks)
        assert withdrawn(call)
        assert call.seen[-1]["error"]["data"]["reason"] == "unanswered"
        await gone(served)


async def test_a_legacy_client_that_refuses_one_question_is_asked_no_other() -> None:
    async with serving(make_policy({"fix": fixture_server("--era", "modern")})) as served:
        client, _ = await asked_client(served, "legacy", "fix")
        call = Streamed(client, "ask_all", caller="me")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call.run)
            await until(lambda: call.of("roots/list"), "everything is asked")
            (refused,) = call.of("sampling/createMessage")
            reply = {"jsonrpc": "2.0", "id": refused["id"], "error": {"code": -1, "message": "no"}}
            headers = client.headers("", None)
            assert (await served.http.post(client.path, json=reply, headers=headers)).status_code == 202
        others = {each["id"] for each in call.of("elicitation/create") + call.of("roots/list")}
        assert {each["params"]["requestId"] for each in call.of("notifications/cancelled")} == others
        assert call.seen[-1]["error"] == {"code": -1, "message": "no"}
        await gone(served)


async def test_a_server_that_takes_its_question_back_has_the_client_told() -> None:
    async with serving(make_policy({"fix": {"command": "python3", "args": [str(INSISTENT)]}})) as served:
        client, _ = await asked_client(served, "legacy", "fix")
        call = Streamed(client, "insist", how="withdraw")
        await call.run()
        assert withdrawn(call)
        assert call.seen[-1]["result"]["content"][0]["text"] == "without an answer"
        await gone(served)
