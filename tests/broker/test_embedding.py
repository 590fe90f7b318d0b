"""The runtime inside somebody else's program: as a library, and mounted in an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest
import yaml
from starlette.applications import Starlette
from starlette.routing import Mount

from harness import fixture_server, make_policy, tenant_entry, token_of
from mcphost import Runtime
from mcphost.errors import Forbidden, NotFound, ServerError
from mcphost.policy import Policy, loads
from mcphost.transports.listener import Listener, bind

pytestmark = pytest.mark.kernel


def policy_of(**tenant: object) -> Policy:
    policy = make_policy({"fix": fixture_server()}, {"acme": tenant_entry("acme", **tenant)})
    return loads(yaml.safe_dump(policy, width=1000), file="embedded.yaml")


async def test_a_tool_is_called_for_a_tenant_without_any_transport() -> None:
    async with Runtime(policy_of()) as runtime:
        result = await runtime.call(tenant="acme", server="fix", tool="echo", arguments={"text": "hello"})
        assert result["structuredContent"] == {"text": "hello"}
        assert (await runtime.call(tenant="acme", server="fix", tool="tool_error"))["isError"] is True


async def test_an_embedded_call_is_subject_to_all_that_a_clients_call_is() -> None:
    async with Runtime(policy_of(allow=["fix/echo"])) as runtime:
        with pytest.raises(Forbidden):
            await runtime.call(tenant="acme", server="fix", tool="crash")
        for tenant, server in (("nobody", "fix"), ("acme", "none")):
            with pytest.raises(NotFound):
                await runtime.call(tenant=tenant, server=server, tool="echo")


async def test_a_servers_own_error_is_raised_with_its_code() -> None:
    async with Runtime(policy_of()) as runtime:
        with pytest.raises(ServerError, match="own words") as caught:
            await runtime.call(
                tenant="acme", server="fix", tool="error", arguments={"code": 77, "message": "own words"}
            )
        assert caught.value.code == 77


async def test_a_runtime_serves_only_while_it_runs_and_runs_only_once() -> None:
    runtime = Runtime(policy_of())
    with pytest.raises(RuntimeError, match="not running"):
        await runtime.asgi({"type": "http"}, None, None)  # type: ignore[arg-type]
    async with runtime:
        pass
    with pytest.raises(RuntimeError, match="runs once"):
        async with runtime:
            pass


async def test_an_embedded_call_that_is_cancelled_is_cancelled_in_the_worker() -> None:
    async with Runtime(policy_of()) as runtime:
        with anyio.move_on_after(0.5) as scope:
            await runtime.call(tenant="acme", server="fix", tool="sleep", arguments={"seconds": 60})
        assert scope.cancelled_caught
        seen = await runtime.call(tenant="acme", server="fix", tool="cancelled")
        assert len(yaml.safe_load(seen["content"][0]["text"])) == 1  # type: ignore[index]


async def test_the_front_can_be_mounted_in_another_application() -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with Runtime(policy_of()) as runtime:
            app.router.routes.append(Mount("/tools", app=runtime.asgi))
            yield

    app = Starlette(lifespan=lifespan)
    bound = bind("127.0.0.1", 0)
    listener = Listener(app, bound, drain_seconds=1)
    async with app.router.lifespan_context(app), anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve)
        url = f"http://127.0.0.1:{listener.port}/tools/servers/fix/mcp"
        async with httpx.AsyncClient() as http:
            answer = await http.post(
                url,
                json={"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}},
                headers={"Authorization": f"Bearer {token_of('acme')}"},
            )
            assert answer.json()["result"]["serverInfo"]["name"] == "fixture"
            assert (await http.post(url.replace("/fix/", "/none/"), json={})).status_code == 401
        listener.stop()


async def test_an_error_inside_the_block_comes_out_as_itself() -> None:
    async def fail_inside() -> None:
        async with Runtime(policy_of()) as runtime:
            await runtime.call(tenant="acme", server="fix", tool="echo", arguments={"text": "a"})
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await fail_inside()
