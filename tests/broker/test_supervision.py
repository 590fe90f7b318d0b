"""Workers that die, fail to start or lack what is expected: visible, bounded, and never somebody else's trouble."""

import json
import os
import signal

import anyio
import pytest

from harness import fixture_server, make_policy, serving, tenant_entry, until
from mcphost.errors import PolicyInvalid

pytestmark = pytest.mark.kernel

QUICK = {"max": 3, "backoff": {"initial": "10ms", "max": "50ms"}}


async def test_a_crash_fails_only_the_calls_in_flight_and_the_next_call_finds_a_fresh_worker(
    client_era: str,
) -> None:
    async with serving(make_policy({"fix": fixture_server(restart=QUICK)})) as served:
        client = await served.client(client_era, "fix")
        await client.call("state_set", key="k", value="before")
        failed: list = []
        async with anyio.create_task_group() as tasks:

            async def wait_along() -> None:
                failed.append(await client.call("sleep", seconds=60))

            tasks.start_soon(wait_along)
            await until(lambda: served.worker_set("fix").worker.in_flight, "a call is in flight")
            failed.append(await client.call("crash", code=3))
        for answer in failed:
            assert answer.status == 200
            assert (answer.error["code"], answer.error["data"]["reason"]) == (502, "worker-died")
        assert (await client.call("echo", text="fresh")).text == "fresh"
        assert "before" not in (await client.call("state_get", key="k")).text


async def test_a_worker_killed_from_outside_is_replaced(client_era: str) -> None:
    async with serving(make_policy({"fix": fixture_server(restart=QUICK)})) as served:
        client = await served.client(client_era, "fix")
        await client.call("echo", text="warm")
        first = served.worker_set("fix").worker.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: served.worker_set("fix").worker is None, "the loss was seen")
        assert (await client.call("echo", text="again")).text == "again"
        assert served.worker_set("fix").worker.pid != first


async def test_a_call_waits_for_a_server_that_starts_again_longer_than_a_list_of_many_does(
    client_era: str,
) -> None:
    slow = {"max": 3, "backoff": {"initial": "1500ms", "max": "2s"}}
    async with serving(make_policy({"fix": fixture_server(restart=slow)})) as served:
        client = await served.client(client_era, "fix")
        await client.call("echo", text="warm")
        os.kill(served.worker_set("fix").worker.pid, signal.SIGKILL)
        await until(lambda: served.worker_set("fix").state == "backoff", "it is to start again")
        assert (await client.call("echo", text="again")).text == "again"


async def test_a_server_that_never_starts_fails_visibly_and_is_started_no_more() -> None:
    servers = {"fix": fixture_server("--fail-start", restart=QUICK), "well": fixture_server()}
    async with serving(make_policy(servers)) as served:
        client = served.modern("fix")
        served.worker_set("fix").want()
        await until(lambda: served.worker_set("fix").state == "failed", "it is failed")
        answer = await client.call("echo", text="a")
        assert (answer.status, answer.error["data"]["reason"]) == (200, "worker-unavailable")
        assert "exited with status 3" in served.worker_set("fix").trouble
        metrics = served.runtime.metrics.render().decode()
        assert 'mcphost_worker_starts_total{outcome="start-failed",server="fix",tenant="acme"} 4.0' in metrics
        assert 'mcphost_worker_state{server="fix",state="failed",tenant="acme"} 1.0' in metrics
        assert (await served.modern("well").call("echo", text="b")).text == "b"


@pytest.mark.parametrize(
    ("arguments", "expect", "missing"),
    [
        ([], {"tools": ["echo", "teleport"]}, "lacks the tools teleport"),
        (["--no-tools"], {"capabilities": ["tools"]}, "lacks the capabilities tools"),
    ],
)
async def test_a_server_without_what_is_expected_of_it_does_not_get_ready(
    arguments: list[str], expect: dict, missing: str
) -> None:
    server = fixture_server(*arguments, expect=expect, restart={**QUICK, "max": 1})
    async with serving(make_policy({"fix": server})) as served:
        served.worker_set("fix").want()
        await until(lambda: served.worker_set("fix").state == "failed", "it is failed")
        assert missing in served.worker_set("fix").trouble


async def test_a_server_with_what_is_expected_of_it_is_ready() -> None:
    server = fixture_server(
        expect={"tools": ["echo", "add"], "capabilities": ["tools", "prompts"]}, start="eager"
    )
    async with serving(make_policy({"fix": server})) as served:
        await until(lambda: served.runtime.is_ready, "the runtime is ready")
        assert served.worker_set("fix").state == "ready"


async def test_a_server_that_does_not_answer_the_handshake_in_time_is_not_ready() -> None:
    server = fixture_server("--delay-start", "60", timeouts={"start": "300ms"}, restart={**QUICK, "max": 1})
    async with serving(make_policy({"fix": server})) as served:
        served.worker_set("fix").want()
        await until(lambda: served.worker_set("fix").state == "failed", "it is failed")
        assert "not ready within 0.3 s" in served.worker_set("fix").trouble


async def test_a_server_that_ends_in_order_is_started_again_when_it_is_wanted(client_era: str) -> None:
    async with serving(make_policy({"fix": fixture_server("--exit-after", "2", restart=QUICK)})) as served:
        client = await served.client(client_era, "fix")
        for number in range(6):
            await until(lambda: served.worker_set("fix").state in {"ready", "stopped"}, "it is at rest")
            answer = await client.call("echo", text=str(number))
            if "error" in answer.final:
                assert answer.error["data"]["reason"] == "worker-died"
        assert served.worker_set("fix").state != "failed"


async def test_noise_on_stdout_disturbs_no_call(client_era: str) -> None:
    async with serving(make_policy({"fix": fixture_server()})) as served:
        client = await served.client(client_era, "fix")
        for _ in range(5):
            assert "result" in (await client.call("noise")).final
        assert (await client.call("echo", text="a")).text == "a"
        metrics = served.runtime.metrics.render().decode()
        assert 'what="not-json-rpc"' in metrics


async def test_tenants_have_workers_of_their_own_and_a_shared_server_one_for_all() -> None:
    servers = {"own": fixture_server(), "common": fixture_server(scope="shared")}
    tenants = {name: tenant_entry(name) for name in ("acme", "globex")}
    async with serving(make_policy(servers, tenants)) as served:
        for tenant in tenants:
            for server in servers:
                await served.modern(server, tenant).call("state_set", key="k", value=f"{tenant}-{server}")
        read = {
            (tenant, server): (await served.modern(server, tenant).call("state_get", key="k")).text
            for tenant in tenants
            for server in servers
        }
        assert "acme-own" in read["acme", "own"]
        assert "globex-own" in read["globex", "own"]
        assert "globex-common" in read["acme", "common"]


async def test_secrets_reach_their_own_tenants_worker_and_nothing_else_does(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_CANARY", "must-not-be-seen")
    tenants = {}
    for name in ("acme", "globex"):
        (tmp_path / name).write_text(f"canary-{name}\n")
        tenants[name] = tenant_entry(name, secrets={"key": {"fromFile": str(tmp_path / name)}})
    server = fixture_server(env={"API_KEY": "${secret:key}", "PRICE": "$$5"})
    async with serving(make_policy({"fix": server}, tenants)) as served:
        for name in tenants:
            answer = await served.modern("fix", name).call(
                "whoami", env=["API_KEY", "PRICE", "RUNTIME_CANARY"]
            )
            seen = json.dumps(answer.result)
            assert f"canary-{name}" in seen
            assert "$5" in seen
            assert "must-not-be-seen" not in seen
            assert not {f"canary-{other}" for other in tenants if other != name} & {seen}


async def test_a_secret_that_is_not_there_stops_the_start_and_names_its_place(tmp_path) -> None:
    tenants = {"acme": tenant_entry("acme", secrets={"key": {"fromFile": str(tmp_path / "none")}})}
    with pytest.raises(PolicyInvalid, match=r"test\.yaml:\d+:\d+: tenants\.acme\.secrets\.key"):
        async with serving(make_policy({"fix": fixture_server(env={"K": "${secret:key}"})}, tenants)):
            pass
