"""Tasks of modern servers through the runtime: under ids of ours, for whoever they were given to, at their own process."""

from typing import Any

import anyio
import pytest

from harness import (
    SECONDS,
    Answer,
    ModernClient,
    Served,
    fixture_server,
    make_policy,
    serving,
    shapes_server,
    tenant_entry,
    token_of,
    until,
)
from listeners import listen

pytestmark = pytest.mark.kernel

EXTENSION = {"io.modelcontextprotocol/tasks": {}}
META = {"io.modelcontextprotocol/clientCapabilities": {"extensions": EXTENSION, "elicitation": {}}}


def tasks_server(**settings: Any) -> dict[str, Any]:
    return fixture_server("--era", "dual", **settings)


async def call(client: ModernClient, tool: str, **arguments: Any) -> Answer:
    return await client.request("tools/call", {"name": tool, "arguments": arguments}, **META)


async def ask(client: ModernClient, method: str, task: str, **params: Any) -> Answer:
    return await client.request(method, {"taskId": task, **params}, **META)


async def wait_for(client: ModernClient, task: str, status: str) -> dict[str, Any]:
    with anyio.fail_after(SECONDS):
        while True:
            result = (await ask(client, "tasks/get", task)).result
            if result["status"] == status:
                return result
            await anyio.sleep(0.02)


@pytest.mark.parametrize(("path", "prefix"), [("fix", ""), ("/mcp", "fix__")])
async def test_a_task_lives_under_one_id_from_its_creation_to_its_result(path: str, prefix: str) -> None:
    async with serving(
        make_policy({"fix": tasks_server(), "old": fixture_server("--era", "legacy")})
    ) as served:
        client = served.modern(path)
        offered = (await client.request("server/discover")).result["capabilities"]
        assert offered["extensions"] == EXTENSION
        created = (await call(client, f"{prefix}confirm_delete", filename="a")).result
        assert created["resultType"] == "task"
        task = created["taskId"]
        asking = await wait_for(client, task, "input_required")
        assert (asking["taskId"], asking["resultType"]) == (task, "complete")
        [(key, question)] = asking["inputRequests"].items()
        assert question["method"] == "elicitation/create"
        answers = {key: {"action": "accept", "content": {"confirm": True}}}
        assert (await ask(client, "tasks/update", task, inputResponses=answers)).result[
            "resultType"
        ] == "complete"
        done = await wait_for(client, task, "completed")
        assert (done["taskId"], done["result"]["content"][0]["text"]) == (task, "confirmed: True")


async def test_a_task_is_cancelled_and_fails_under_its_id() -> None:
    async with serving(make_policy({"fix": tasks_server()})) as served:
        client = served.modern("/mcp")
        slow = (await call(client, "fix__slow_compute", seconds=60)).result["taskId"]
        assert (await ask(client, "tasks/cancel", slow)).result["resultType"] == "complete"
        await wait_for(client, slow, "cancelled")
        failing = (await call(client, "fix__protocol_error_job")).result["taskId"]
        assert (await wait_for(client, failing, "failed"))["error"]["code"] == -32603


async def test_a_tool_may_ask_before_it_becomes_a_task() -> None:
    async with serving(make_policy({"fix": tasks_server()})) as served:
        client = served.modern("/mcp")
        asking = (await call(client, "fix__test_tool_with_task")).result
        assert asking["resultType"] == "input_required"
        [key] = asking["inputRequests"]
        params = {
            "name": "fix__test_tool_with_task",
            "arguments": {},
            "inputResponses": {key: {"action": "accept", "content": {"name": "Ada"}}},
            "requestState": asking["requestState"],
        }
        created = (await client.request("tools/call", params, **META)).result
        assert created["resultType"] == "task"
        done = await wait_for(client, created["taskId"], "completed")
        assert done["result"]["content"][0]["text"] == "Worked for Ada."


@pytest.mark.parametrize(("path", "prefix"), [("fix", ""), ("/mcp", "fix__")])
async def test_who_listens_is_told_of_its_own_tasks_under_the_ids_that_it_named(
    path: str, prefix: str
) -> None:
    async with serving(make_policy({"fix": tasks_server()})) as served:
        client = served.modern(path)
        mine, other = [
            (await call(client, f"{prefix}slow_compute", seconds=60)).result["taskId"] for _ in range(2)
        ]
        async with listen(client, {"taskIds": [mine, "forged"]}, **META) as ear:
            assert ear.heard[0]["params"]["notifications"] == {"taskIds": [mine]}
            for task in (other, mine):
                await ask(client, "tasks/cancel", task)
            await ear.wait_told(mine)
            assert ear.told == [mine]
            assert ear.heard[-1]["params"]["status"] == "cancelled"
        async with listen(client, {"taskIds": [mine]}) as ear:
            assert ear.heard[0]["error"]["code"] == -32021


async def test_an_id_serves_nobody_else_and_no_other_endpoint() -> None:
    app = {
        "tokens": [
            *tenant_entry("acme")["tokens"],
            {"id": "app", "sha256": tenant_entry("app")["tokens"][0]["sha256"]},
        ]
    }
    tenants = {"acme": tenant_entry("acme") | app, "globex": tenant_entry("globex")}
    servers = {"fix": tasks_server(scope="shared")}
    async with serving(make_policy(servers, tenants)) as served:
        mine = served.modern("fix")
        task = (await call(mine, "slow_compute", seconds=60)).result["taskId"]
        colleague = served.modern("fix", "app")
        assert token_of("app") in colleague.headers("tasks/get", task)["Authorization"]
        for other in (served.modern("fix", "globex"), colleague, served.modern("/mcp")):
            for method in ("tasks/get", "tasks/update", "tasks/cancel"):
                answer = await ask(other, method, task, inputResponses={})
                assert (answer.status, answer.error["code"]) == (400, -32602), (other, method)
        for forged in ("", "task-1", task[:-2] + "AA", task + "A"):
            assert (await ask(mine, "tasks/get", forged)).error["code"] == -32602
        assert (await mine.request("tasks/get", {}, **META)).status == 400
        assert (await ask(mine, "tasks/get", task)).result["status"] == "working"


async def test_a_task_ends_with_its_process_and_is_unknown_then() -> None:
    async with serving(make_policy({"fix": tasks_server()})) as served:
        client = served.modern("fix")
        task = (await call(client, "slow_compute", seconds=60)).result["taskId"]
        await replace_worker(served)
        assert (await ask(client, "tasks/get", task)).error["code"] == -32602


async def test_a_process_for_one_call_is_kept_for_its_task() -> None:
    async with serving(make_policy({"fix": tasks_server(scope="call")})) as served:
        client = served.modern("fix")
        task = (await call(client, "slow_compute", seconds=0.2)).result["taskId"]
        await wait_for(client, task, "completed")


async def test_who_does_not_declare_tasks_waits_for_the_result_and_who_has_to_is_told(
    client_era: str,
) -> None:
    async with serving(make_policy({"fix": tasks_server()})) as served:
        client = await served.client(client_era, "fix")
        assert (await client.call("slow_compute", seconds=0, label="x")).text == "computed x"
        refusals = [await client.call("failing_job")]
        if client_era == "modern":
            methods = ("tasks/get", "tasks/update", "tasks/cancel")
            refusals += [await client.request(method, {"taskId": "t"}) for method in methods]
        for refused in refusals:
            assert refused.error["code"] == -32021
            assert refused.error["data"] == {"requiredCapabilities": {"extensions": EXTENSION}}


async def test_where_no_server_has_tasks_they_do_not_exist(client_era: str) -> None:
    servers = {
        "old": fixture_server("--era", "legacy"),
        "v1": shapes_server(era="legacy", tools=[{"name": "t", "execution": {"taskSupport": "optional"}}], capabilities={"tasks": {}}),
    }  # fmt: skip
    async with serving(make_policy(servers)) as served:
        client = await served.client(client_era, "/mcp")
        if client_era == "modern":
            offered = (await client.request("server/discover")).result["capabilities"]
        else:
            offered = (await client.initialize()).result["capabilities"]
        assert not {"tasks", "extensions"} & set(offered)
        listed = (await client.request("tools/list")).result["tools"]
        assert not any("execution" in tool for tool in listed)
        for method in ("tasks/get", "tasks/list", "tasks/result"):
            answer = await client.request(method, {"taskId": "t"})
            assert answer.error["code"] == -32601, method


async def replace_worker(served: Served) -> None:
    workers = served.worker_set("fix")
    before = workers.worker
    await before.kill("killed")
    await until(lambda: workers.worker not in {None, before}, "another worker")
