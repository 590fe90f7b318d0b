"""Builders for the tests of servers over standard input and output."""

import json
import os
import sys
import sysconfig
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp.client.stdio import StdioServerParameters

HERE = Path(__file__).parent
MODERN = "2026-07-28"
PATIENCE_SECONDS = 10
LONGEST_LINE = 1 << 24


class Wire:
    """The raw lines of one server, without any client library in between."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._lines = BufferedByteReceiveStream(process.stdout)
        self._last_id = 0

    async def write(self, line: bytes) -> None:
        await self.process.stdin.send(line + b"\n")

    async def send(self, message: dict) -> None:
        await self.write(json.dumps({"jsonrpc": "2.0"} | message).encode())

    async def read(self) -> bytes:
        with anyio.fail_after(PATIENCE_SECONDS):
            return await self._lines.receive_until(b"\n", LONGEST_LINE)

    async def receive(self) -> dict:
        return json.loads(await self.read())

    async def post(self, method: str, params: dict | None = None) -> int:
        """Send a request and do not wait for its answer."""
        self._last_id += 1
        await self.send(
            {"id": self._last_id, "method": method} | ({} if params is None else {"params": params})
        )
        return self._last_id

    async def request(self, method: str, params: dict | None = None) -> dict:
        """Send a request and take the next message as its answer."""
        asked = await self.post(method, params)
        answer = await self.receive()
        assert answer.get("id") == asked, answer
        return answer

    async def call(self, name: str, arguments: dict | None = None, meta: dict | None = None) -> dict:
        return await self.request("tools/call", tool_params(name, arguments, meta))

    async def initialize(self, capabilities: dict | None = None) -> dict:
        client = {"name": "tests", "version": "1"}
        params = {"protocolVersion": "2025-11-25", "capabilities": capabilities or {}, "clientInfo": client}
        answer = await self.request("initialize", params)
        await self.send({"method": "notifications/initialized"})
        return answer

    async def wait_exit(self) -> int:
        with anyio.fail_after(PATIENCE_SECONDS):
            return await self.process.wait()


def tool_params(name: str, arguments: dict | None = None, meta: dict | None = None) -> dict:
    return {"name": name, "arguments": arguments or {}} | ({"_meta": meta} if meta else {})


OpenWire = Callable[..., AbstractAsyncContextManager[Wire]]


@pytest.fixture
def modern() -> Callable[..., dict]:
    """Build the `_meta` of a modern request."""

    def build(capabilities: dict | None = None, version: str = MODERN, **more: object) -> dict:
        prefix = "io.modelcontextprotocol/"
        meta = {f"{prefix}protocolVersion": version, f"{prefix}clientCapabilities": capabilities or {}}
        return meta | {f"{prefix}{key}": value for key, value in more.items()}

    return build


@pytest.fixture
def wire() -> OpenWire:
    """Start the fixture server with these options and talk to it line by line."""

    @asynccontextmanager
    async def start(*options: str) -> AsyncIterator[Wire]:
        command = [sys.executable, "-I", "-S", str(HERE / "fixture.py"), *options]
        async with await anyio.open_process(command, stderr=None) as process:
            yield Wire(process)
            if process.returncode is None:
                process.kill()

    return start


@pytest.fixture
def fixture_server() -> Callable[..., StdioServerParameters]:
    """The fixture server as the SDK's client wants to have it described."""

    def describe(*options: str) -> StdioServerParameters:
        arguments = ["-I", "-S", str(HERE / "fixture.py"), *options]
        return StdioServerParameters(command=sys.executable, args=arguments)

    return describe


@pytest.fixture
def bundled_server() -> Callable[..., StdioServerParameters]:
    """One of the servers that come with the runtime, as installed."""

    def describe(name: str, *options: str) -> StdioServerParameters:
        command = Path(sysconfig.get_path("scripts")) / f"mcphost-server-{name}"
        # The client gives a server nearly nothing of the environment; what measures coverage has to be passed on.
        measuring = {key: value for key, value in os.environ.items() if key.startswith("COVERAGE_")}
        return StdioServerParameters(command=str(command), args=[*options], env=measuring)

    return describe
