"""Nothing crosses from one tenant to another: not memory, not files, not secrets, not answers."""

import json
import secrets

import anyio
import httpx
import pytest

TENANTS = ("red", "blue")
CALLS = 200
LIMITS = {"rate": "1000000/min", "burst": 10000, "concurrency": 500}


@pytest.fixture(scope="module")
def canaries() -> dict[str, str]:
    return {tenant: f"{tenant}-{secrets.token_hex(8)}" for tenant in TENANTS}


@pytest.fixture(scope="module")
def product(start_product, python_server, canaries):
    env = {"CANARY": "${secret:canary}"}
    policy = {
        "mcpServers": {
            "legacy": python_server("fixture.py", "--era", "legacy", env=env),
            "modern": python_server("fixture.py", "--era", "modern", env=env),
            "red-only": python_server("fixture.py", env=env),
        },
        "tenants": {
            "red": {
                "secrets": {"canary": {"fromEnv": "RED_CANARY"}},
                "allow": ["legacy/*", "modern/*", "red-only/*"],
                "limits": LIMITS,
            },
            "blue": {
                "secrets": {"canary": {"fromEnv": "BLUE_CANARY"}},
                "allow": ["legacy/*", "modern/*"],
                "deny": ["*/crash"],
                "limits": LIMITS,
            },
        },
    }
    environment = {f"{tenant.upper()}_CANARY": canary for tenant, canary in canaries.items()}
    return start_product(policy, environment)


async def plant(product, tenant: str, server: str, canary: str) -> None:
    """Leave the tenant's canary in the memory and in the files of its worker."""
    await product.text(tenant, server, "state_set", key="canary", value=canary)
    await product.text(tenant, server, "state_set", key=canary, value="here")
    await product.text(tenant, server, "write_file", path="/data/canary", text=canary)
    await product.text(tenant, server, "write_file", path=f"/data/{canary}", text="here")
    await product.text(tenant, server, "write_file", path="/tmp/canary", text=canary)


def look(number: int, canary: str) -> tuple[str, dict, str | None]:
    """One of several ways to look for something that is not one's own: tool, arguments, the whole answer if known."""
    own = f"{canary}-{number}"
    return [
        ("echo", {"text": own}, own),
        ("state_get", {"key": "canary"}, canary),
        ("read_file", {"path": "/data/canary"}, canary),
        ("read_file", {"path": "/tmp/canary"}, canary),
        ("whoami", {"env": ["CANARY"]}, None),
        ("sleep", {"seconds": 0.05}, "slept"),
        ("progress", {"count": 3}, "0"),
        ("last_message", {"contains": "canary"}, None),
    ][number % 8]


@pytest.mark.parametrize("server", ["legacy", "modern"])
async def test_two_hundred_mixed_calls_at_once_meet_only_what_is_their_own(product, canaries, server):
    for tenant in TENANTS:
        await plant(product, tenant, server, canaries[tenant])
    whole: dict[str, list[str]] = {tenant: [] for tenant in TENANTS}
    answered = 0

    async def one(tenant: str, number: int) -> None:
        nonlocal answered
        tool, arguments, expected = look(number, canaries[tenant])
        answer = await product.call(tenant, server, tool, **arguments)
        assert "result" in answer, answer
        if expected is not None:
            assert answer["result"]["content"][0]["text"] == expected
        whole[tenant].append(json.dumps(answer))
        answered += 1

    async with anyio.create_task_group() as tasks:
        for number in range(CALLS // len(TENANTS)):
            for tenant in TENANTS:
                tasks.start_soon(one, tenant, number)

    assert answered == CALLS
    for tenant, other in (TENANTS, TENANTS[::-1]):
        assert any(canaries[tenant] in answer for answer in whole[tenant])
        assert not any(canaries[other] in answer for answer in whole[tenant])


@pytest.mark.parametrize("server", ["legacy", "modern"])
async def test_the_calls_of_two_tenants_are_in_flight_at_the_same_time_in_workers_of_their_own(
    product, server
):
    async with anyio.create_task_group() as tasks:
        for tenant in TENANTS:
            for _ in range(5):
                tasks.start_soon(_sleep_until_cancelled, product, tenant, server)
        with anyio.fail_after(30):
            while True:
                busy = {
                    each["tenant"]: each["pid"]
                    for each in product.workers()
                    if each["server"] == server and each.get("inFlight", 0) >= 5
                }
                if set(busy) == set(TENANTS):
                    break
                await anyio.sleep(0.02)
        tasks.cancel_scope.cancel()
    assert len(set(busy.values())) == 2


async def _sleep_until_cancelled(product, tenant: str, server: str) -> None:
    await product.call(tenant, server, "sleep", seconds=600)


async def test_a_client_that_goes_away_cancels_its_calls_in_the_worker(product):
    with anyio.move_on_after(30):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(_sleep_until_cancelled, product, "red", "red-only")
            while not any(
                each["server"] == "red-only" and each.get("inFlight") == 3 for each in product.workers()
            ):
                await anyio.sleep(0.02)
            tasks.cancel_scope.cancel()
    with anyio.fail_after(30):
        while True:
            answer = await product.call("red", "red-only", "cancelled")
            if answer["result"]["structuredContent"]["stopped"] == ["sleep"] * 3:
                break


async def test_each_worker_holds_the_secret_of_its_own_tenant_and_no_other(product, canaries):
    for tenant in TENANTS:
        seen = json.loads(
            await product.text(tenant, "legacy", "whoami", env=["CANARY", "RED_CANARY", "BLUE_CANARY"])
        )
        assert seen["env"] == {"CANARY": canaries[tenant], "RED_CANARY": None, "BLUE_CANARY": None}
    assert not any(canary in product.log for canary in canaries.values())


async def test_data_of_a_tenant_is_kept_apart_for_each_of_its_servers(product, canaries):
    await plant(product, "red", "red-only", canaries["red"])
    await product.text("red", "legacy", "write_file", path="/data/of-legacy", text="x")
    listed = json.loads(await product.text("red", "red-only", "list_dir", path="/data"))
    assert sorted(listed) == ["canary", canaries["red"]]


async def test_a_server_of_another_tenant_does_not_exist(product):
    refused = await product.call("blue", "red-only", "echo", text="")
    missing = await product.call("blue", "no-such-server", "echo", text="")
    assert refused["error"] == missing["error"]
    assert refused["error"]["data"]["reason"] == "not-found"
    listed = await product.send("blue", None, "tools/list", {})
    assert not any("red-only" in tool["name"] for tool in listed["result"]["tools"])


async def test_a_denied_tool_is_neither_listed_nor_called_at_either_endpoint(product):
    for server, name in (("legacy", "crash"), (None, "legacy__crash")):
        listed = await product.send("blue", server, "tools/list", {})
        names = {tool["name"] for tool in listed["result"]["tools"]}
        assert name not in names
        assert name.replace("crash", "echo") in names
        refused = await product.call("blue", server, name)
        assert refused["error"]["data"] == {"reason": "forbidden", "retryable": False}
    allowed = await product.send("red", "legacy", "tools/list", {})
    assert "crash" in {tool["name"] for tool in allowed["result"]["tools"]}


async def test_the_session_of_one_tenant_is_unknown_to_another(product):
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    accept = {"Accept": "application/json, text/event-stream"}

    def request(method: str, params: dict) -> dict:
        return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}

    async with httpx.AsyncClient(base_url=product.url, timeout=60) as client:
        red, blue = (accept | product.headers(tenant) for tenant in TENANTS)
        opened = await client.post("/servers/legacy/mcp", json=request("initialize", hello), headers=red)
        session = {"Mcp-Session-Id": opened.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"}
        mine = await client.post("/servers/legacy/mcp", json=request("tools/list", {}), headers=red | session)
        theirs = await client.post(
            "/servers/legacy/mcp", json=request("tools/list", {}), headers=blue | session
        )
        elsewhere = await client.post(
            "/servers/modern/mcp", json=request("tools/list", {}), headers=red | session
        )
        await client.delete("/servers/legacy/mcp", headers=red | session)
        ended = await client.post(
            "/servers/legacy/mcp", json=request("tools/list", {}), headers=red | session
        )
    assert mine.status_code == 200
    assert [each.status_code for each in (theirs, elsewhere, ended)] == [404, 404, 404]


async def test_the_tenant_in_a_path_must_be_that_of_the_token(product):
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    headers = {"Accept": "application/json, text/event-stream"} | product.headers("red")
    async with httpx.AsyncClient(base_url=product.url, timeout=60) as client:
        other = await client.post("/t/blue/mcp", json=body, headers=headers)
    assert other.status_code == 403


async def test_what_reaches_a_worker_carries_none_of_its_clients_ids_or_tokens(product, canaries):
    for server in ("legacy", "modern"):
        line = await product.text("red", server, "last_message")
        assert product.tokens["red"] not in line
        sent = json.loads(line)
        assert sent["method"] == "tools/call"
        assert sent["params"]["name"] == "last_message"
