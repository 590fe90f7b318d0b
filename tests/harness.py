"""The runtime in this process, behind a real socket, in front of sandboxed fixture servers."""

import hashlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx
import yaml

from mcphost.policy import loads
from mcphost.runtime import Runtime
from mcphost.transports.listener import Listener, bind
from mcphost.workers.owners import Owner

FIXTURE = Path(__file__).parent / "servers" / "fixture.py"
SHAPES = FIXTURE.with_name("shapes.py")
SECONDS = 30.0  # no wait in these tests is longer; all are for conditions

MODERN_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def token_of(tenant: str) -> str:
    return f"the-token-of-{tenant}"


def fixture_server(*arguments: str, **settings: Any) -> dict[str, Any]:
    """A policy entry that runs the fixture server."""
    return {"command": "python3", "args": [str(FIXTURE), *arguments], **settings}


def shapes_server(*, settings: dict[str, Any] | None = None, **shape: Any) -> dict[str, Any]:
    """A policy entry that runs the server whose lists have the given shape."""
    return {"command": "python3", "args": [str(SHAPES), json.dumps(shape)], **(settings or {})}


def tenant_entry(name: str, **settings: Any) -> dict[str, Any]:
    digest = hashlib.sha256(token_of(name).encode()).hexdigest()
    return {
        "tokens": [{"id": "test", "sha256": digest}],
        "allow": ["*"],
        "limits": {"rate": "100000/s", "burst": 100000, "concurrency": 500},
        **settings,
    }


@dataclass
class Answer:
    """One HTTP response, its messages taken out of JSON or of the event stream."""

    status: int
    headers: httpx.Headers
    messages: list[dict[str, Any]]
    raw: bytes

    @property
    def final(self) -> dict[str, Any]:
        return self.messages[-1]

    @property
    def result(self) -> dict[str, Any]:
        assert "result" in self.final, self.final
        return self.final["result"]

    @property
    def error(self) -> dict[str, Any]:
        assert "error" in self.final, self.final
        return self.final["error"]

    @property
    def text(self) -> str:
        return self.result["content"][0]["text"]


def read_answer(response: httpx.Response) -> Answer:
    content = response.headers.get("content-type", "")
    messages = []
    if content.startswith("text/event-stream"):
        lines = response.text.splitlines()
        messages = [json.loads(line[5:]) for line in lines if line.startswith("data:")]
    elif content.startswith("application/json"):
        messages = [response.json()]
    return Answer(response.status_code, response.headers, messages, response.content)


@dataclass
class ModernClient:
    """Posts requests of 2026-07-28."""

    http: httpx.AsyncClient
    path: str
    tenant: str
    ids: Any = field(default_factory=lambda: itertools.count(1))

    def headers(self, method: str, name: str | None) -> dict[str, str]:
        headers = {
            "Authorization": f"Bearer {token_of(self.tenant)}",
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": method,
        }
        return headers if name is None else headers | {"Mcp-Name": name}

    def body(self, method: str, params: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
        params = {**params, "_meta": {**MODERN_META, **meta}}
        return {"jsonrpc": "2.0", "id": next(self.ids), "method": method, "params": params}

    async def request(self, method: str, params: dict[str, Any] | None = None, **meta: Any) -> Answer:
        params = params or {}
        body = self.body(method, params, meta)
        headers = self.headers(method, params.get("name") or params.get("uri") or params.get("taskId"))
        answer = read_answer(await self.http.post(self.path, json=body, headers=headers))
        if answer.messages:
            assert answer.final.get("id") == body["id"], answer.final
        return answer

    async def call(self, tool: str, **arguments: Any) -> Answer:
        return await self.request("tools/call", {"name": tool, "arguments": arguments})


@dataclass
class LegacyClient(ModernClient):
    """The same with `initialize` and a session."""

    session: str | None = None
    version: str = "2025-11-25"

    def headers(self, method: str, name: str | None) -> dict[str, str]:
        headers = super().headers(method, name)
        for key in ("Mcp-Method", "Mcp-Name", "MCP-Protocol-Version"):
            headers.pop(key, None)
        if self.session is not None:
            headers |= {"Mcp-Session-Id": self.session, "MCP-Protocol-Version": self.version}
        return headers

    def body(self, method: str, params: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
        params = {**params, "_meta": meta} if meta else params
        return {"jsonrpc": "2.0", "id": next(self.ids), "method": method, "params": params}

    async def initialize(self, **capabilities: Any) -> Answer:
        answer = await self.request(
            "initialize",
            {
                "protocolVersion": self.version,
                "capabilities": capabilities,
                "clientInfo": {"name": "tests", "version": "1"},
            },
        )
        assert answer.status == 200, answer
        self.session = answer.headers["mcp-session-id"]
        await self.notify("notifications/initialized")
        return answer

    async def notify(self, method: str, params: dict[str, Any] | None = None) -> Answer:
        body = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        answer = read_answer(await self.http.post(self.path, json=body, headers=self.headers(method, None)))
        assert answer.status == 202, answer
        return answer


@dataclass
class Served:
    """A running runtime and clients for it."""

    runtime: Runtime
    http: httpx.AsyncClient

    def modern(self, server: str | None = None, tenant: str = "acme") -> ModernClient:
        return ModernClient(self.http, path_of(server), tenant)

    async def legacy(self, server: str | None = None, tenant: str = "acme") -> LegacyClient:
        client = LegacyClient(self.http, path_of(server), tenant)
        await client.initialize()
        return client

    async def client(self, era: str, server: str | None = None, tenant: str = "acme") -> ModernClient:
        return await self.legacy(server, tenant) if era == "legacy" else self.modern(server, tenant)

    def worker_set(self, server: str, tenant: str = "acme") -> Any:
        return self.runtime.pool.find(server, Owner(tenant))


def path_of(server: str | None) -> str:
    """The path of a server's endpoint; of the aggregate without one; a path is itself."""
    if server is None or server.startswith("/"):
        return server or "/mcp"
    return f"/servers/{server}/mcp"


def make_policy(
    servers: dict[str, Any], tenants: dict[str, Any] | None = None, **settings: Any
) -> dict[str, Any]:
    return {
        "version": 1,
        "mcpServers": servers,
        "tenants": tenants or {"acme": tenant_entry("acme")},
        **settings,
    }


@asynccontextmanager
async def serving(policy: dict[str, Any]) -> AsyncIterator[Served]:
    """The runtime for a policy, listening on a free port of loopback."""
    async with Runtime(loads(yaml.safe_dump(policy, width=1000), file="test.yaml")) as runtime:
        bound = bind("127.0.0.1", 0)
        listener = Listener(runtime.asgi, bound, drain_seconds=1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve)
            base = f"http://127.0.0.1:{listener.port}"
            async with httpx.AsyncClient(base_url=base, timeout=SECONDS) as http:
                yield Served(runtime, http)
            runtime.drain()
            listener.stop()


async def until(holds: Callable[[], Any], what: str) -> None:
    """Wait for a condition that has no event of its own."""
    with anyio.fail_after(SECONDS):
        while not holds():
            await anyio.sleep(0.01)
