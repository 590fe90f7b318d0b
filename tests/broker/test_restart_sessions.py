"""A legacy session goes on when its worker is started again, and when the runtime is."""

import os
import secrets
import signal
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import yaml
from anyio.abc import TaskStatus
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from answering import asked_client, converse_tool
from harness import (
    FIXTURE,
    SECONDS,
    LegacyClient,
    Served,
    fixture_server,
    make_policy,
    serving,
    tenant_entry,
    token_of,
    until,
)
from listeners import hear
from mcphost.errors import PolicyInvalid
from mcphost.policy import loads
from mcphost.preflight import make_plan
from mcphost.runtime import Runtime
from mcphost.transports.listener import Listener, bind

pytestmark = pytest.mark.kernel


def keeping(state: Path, **runtime: Any) -> dict[str, Any]:
    tenants = {"acme": tenant_entry("acme"), "globex": tenant_entry("globex")}
    settings = {"stateDir": str(state), **runtime}
    return make_policy({"fix": fixture_server(start="lazy")}, tenants, runtime=settings)


def moved(client: LegacyClient, served: Served, tenant: str = "acme") -> LegacyClient:
    """The same client before another runtime, or what another tenant makes of its session."""
    return LegacyClient(served.http, client.path, tenant, client.ids, client.session)


def planned(policy: dict[str, Any]) -> None:
    make_plan(loads(yaml.safe_dump(policy, width=1000), file="test.yaml"), dict(os.environ))


async def test_a_session_goes_on_when_its_worker_is_killed(tmp_path: Path) -> None:
    async with serving(keeping(tmp_path / "state")) as served:
        client = await served.legacy("fix")
        await client.call("echo", text="before")
        first = served.worker_set("fix").worker.pid
        os.kill(first, signal.SIGKILL)
        await until(
            lambda: served.worker_set("fix").worker is None or served.worker_set("fix").worker.pid != first,
            "the runtime saw it",
        )
        assert (await client.call("echo", text="after")).text == "after"


async def test_a_session_that_listens_before_another_runtime_is_told_of_changes_there(tmp_path: Path) -> None:
    async with serving(keeping(tmp_path / "state")) as served:
        client = await served.legacy("fix")
    async with serving(keeping(tmp_path / "state")) as served:
        async with hear(moved(client, served)) as ear:
            await served.modern("fix").call("toggle_tool", name="more")
            await ear.wait_told("tools")


async def test_a_session_goes_on_when_the_runtime_is_started_again_on_the_same_state(tmp_path: Path) -> None:
    async with serving(keeping(tmp_path / "state")) as served:
        client = await served.legacy("fix")
        assert (await client.call("echo", text="before")).text == "before"
    async with serving(keeping(tmp_path / "state")) as served:
        again = moved(client, served)
        assert (await again.call("echo", text="after")).text == "after"
        stranger = await moved(client, served, "globex").request("ping")
        assert (stranger.status, stranger.error["data"]["reason"]) == (404, "session-not-found")
        await again.http.delete(again.path, headers=again.headers("", None))
        assert (await again.request("ping")).status == 404
    async with serving(keeping(tmp_path / "other state")) as served:
        answer = await moved(client, served).request("ping")
        assert (answer.status, answer.error["data"]["reason"]) == (404, "session-not-found")


async def test_a_client_can_be_asked_in_a_session_that_outlived_the_runtime(tmp_path: Path) -> None:
    arguments = [str(FIXTURE.with_name("interviewer.py")), "--era", "legacy"]
    policy = keeping(tmp_path / "state")
    policy["mcpServers"]["fix"] = {"command": "python3", "args": arguments, "start": "lazy"}

    def respond(method: str, _: dict[str, Any]) -> dict[str, Any]:
        return {
            "elicitation/create": {"action": "accept", "content": {"answer": "yes"}},
            "sampling/createMessage": {
                "role": "assistant",
                "content": {"type": "text", "text": "x"},
                "model": "m",
            },
            "roots/list": {"roots": []},
        }[method]

    async with serving(policy) as served:
        client, _ = await asked_client(served, "legacy", "fix")
        assert isinstance(client, LegacyClient)
    async with serving(policy) as served:
        talk = await converse_tool(moved(client, served), "interview", respond, marker="m")
        assert {method for method, _ in talk.asked} == {
            "elicitation/create", "sampling/createMessage", "roots/list"
        }  # fmt: skip
        assert "result" in talk.answer.final


async def test_runtimes_with_one_key_take_each_others_sessions(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(secrets.token_hex(32))
    key = {"sealKey": {"fromFile": str(file)}}
    async with (
        serving(keeping(tmp_path / "one", **key)) as one,
        serving(keeping(tmp_path / "two", **key)) as two,
    ):
        client = await one.legacy("fix")
        assert (await moved(client, two).request("ping")).result == {}
        assert (await client.request("ping")).result == {}
    assert not (tmp_path / "one" / "keys").exists()


async def test_without_a_key_or_a_place_to_keep_one_a_restart_ends_all_sessions() -> None:
    policy = make_policy({"fix": fixture_server(start="lazy")})
    async with serving(policy) as served:
        client = await served.legacy("fix")
        assert (await client.request("ping")).result == {}
    async with serving(policy) as served:
        assert (await moved(client, served).request("ping")).status == 404


@pytest.mark.parametrize("part", ["", "/keys"])
def test_a_server_cannot_be_granted_the_place_of_the_kept_key(tmp_path: Path, part: str) -> None:
    place = tmp_path / f"state{part}"
    place.mkdir(parents=True)
    policy = make_policy(
        {"fix": fixture_server(volumes=[f"{place}:/stolen"])}, runtime={"stateDir": str(tmp_path / "state")}
    )
    with pytest.raises(PolicyInvalid, match="keep it apart"):
        planned(policy)


def test_a_server_cannot_be_granted_what_the_key_is_read_from(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    policy = make_policy(
        {"fix": fixture_server(volumes=[f"{tmp_path}/etc:/config:ro"])},
        runtime={"sealKey": {"fromFile": f"{tmp_path}/etc/seal.key"}},
    )
    with pytest.raises(PolicyInvalid, match=r"runtime\.sealKey is read from; keep it apart"):
        planned(policy)


async def run(
    policy: dict[str, Any],
    port: int,
    stop: anyio.Event,
    stopped: anyio.Event,
    *,
    task_status: TaskStatus[None],
) -> None:
    """The runtime on a port of the test's choice, stopped as `mcphost run` stops."""
    async with Runtime(loads(yaml.safe_dump(policy, width=1000), file="test.yaml")) as runtime:
        listener = Listener(runtime.asgi, bind("127.0.0.1", port), drain_seconds=1000)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve)
            task_status.started()
            await stop.wait()
            runtime.drain()
            listener.stop()
    stopped.set()


async def test_a_client_of_others_goes_on_after_a_restart_without_knowing(tmp_path: Path) -> None:
    """The official SDK, whose GET stream is open meanwhile and must not hold up the stop."""
    policy = keeping(tmp_path / "state")
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    headers = {"Authorization": f"Bearer {token_of('acme')}"}

    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as runtimes:
            stop, stopped = anyio.Event(), anyio.Event()
            await runtimes.start(partial(run, policy, port, stop, stopped))
            async with httpx2.AsyncClient(headers=headers, timeout=SECONDS) as http:
                url = f"http://127.0.0.1:{port}/servers/fix/mcp"
                async with Client(streamable_http_client(url, http_client=http), mode="legacy") as client:
                    assert (await client.call_tool("echo", {"text": "before"})).content
                    stop.set()
                    await stopped.wait()
                    stop, stopped = anyio.Event(), anyio.Event()
                    await runtimes.start(partial(run, policy, port, stop, stopped))
                    assert (await client.call_tool("echo", {"text": "after"})).content
            stop.set()
