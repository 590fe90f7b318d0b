"""A server that floods us ends; nobody else notices. Each is a few lines of a server, written out here."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness import FIXTURE, fixture_server, make_policy, serving, until

pytestmark = pytest.mark.kernel

HANDSHAKE = """
import json, sys
def say(message): sys.stdout.write(json.dumps(message) + "\\n"); sys.stdout.flush()
def answer(line, result): say({"jsonrpc": "2.0", "id": json.loads(line)["id"], "result": result})
initialize = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "f", "version": "1"}}
calls = 0
for line in sys.stdin:
    method = json.loads(line).get("method")
    if method == "initialize": answer(line, initialize)
    if method == "tools/list": answer(line, {"tools": LISTED})
    if method == "tools/call":
        FLOOD
"""

FLOODS = {
    "blank lines": ('while True: sys.stdout.write("\\n" * 65536)', "blank lines"),
    "garbage": ('while True: sys.stdout.write("garbage\\n" * 8192)', "messages that are no MCP"),
    "notifications": (
        'while True: say({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x" * 1000}})',
        "messages that no call asked for",
    ),
    "questions": (
        'while True: say({"jsonrpc": "2.0", "id": "q" * 1000, "method": "roots/list"})',
        "requests of its own",
    ),
}


def flooding(flood: str, listed: str = "[]") -> dict:
    code = HANDSHAKE.replace("FLOOD", flood).replace("LISTED", listed)
    restart = {"max": 1, "backoff": {"initial": "10ms", "max": "10ms"}}
    return {"command": "python3", "args": ["-c", code], "restart": restart, "timeouts": {"start": "20s"}}


@pytest.mark.parametrize(("flood", "what"), FLOODS.values(), ids=FLOODS)
async def test_a_flood_ends_its_worker_and_nobody_elses(flood: str, what: str) -> None:
    servers = {"flood": flooding(flood), "fix": fixture_server()}
    async with serving(make_policy(servers)) as served:
        await served.modern("fix").call("echo", text="warm")
        answer = await (await served.legacy("flood")).call("any")
        assert answer.error["data"]["reason"] == "worker-died"
        assert what in answer.error["message"]
        assert (await served.modern("fix").call("echo", text="b")).text == "b"


async def test_a_list_without_measure_is_a_failed_start() -> None:
    listed = '[{"name": str(n) * 100, "inputSchema": {}} for n in range(10000)]'
    async with serving(make_policy({"flood": flooding("pass", listed)})) as served:
        served.worker_set("flood").want()
        await until(lambda: served.worker_set("flood").state == "failed", "it is failed")
        assert "larger than" in served.worker_set("flood").trouble


async def test_when_the_fork_server_is_killed_calls_recover_and_no_server_is_blamed() -> None:
    async with serving(make_policy({"fix": fixture_server(restart={"max": 1})})) as served:
        client = served.modern("fix")
        for _ in range(3):
            await client.call("echo", text="warm")
            before = served.worker_set("fix").worker.pid
            children = subprocess.run(
                ["ps", "ww", "-o", "pid=,args=", "--ppid", str(os.getpid())],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            fork_servers = [int(line.split()[0]) for line in children.splitlines() if "_spawnd" in line]
            assert len(fork_servers) == 1, children
            os.kill(fork_servers[0], signal.SIGKILL)
            await until(
                lambda before=before: getattr(served.worker_set("fix").worker, "pid", None) != before,
                "the loss was seen",
            )
            assert (await client.call("echo", text="again")).text == "again"
        assert served.worker_set("fix").state == "ready"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_program_on_a_bare_event_loop_can_embed_a_server_that_writes_to_stderr(
    loop: str, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        f"version: 1\nmcpServers: {{fix: {{command: python3, args: [{FIXTURE}, --stderr-noise]}}}}\n"
        "tenants: {acme: {allow: ['*']}}\n"
    )
    program = f"""
import {loop}
from mcphost import Runtime, load
async def main():
    async with Runtime(load({str(policy)!r})) as runtime:
        for _ in range(20):
            result = await runtime.call(tenant="acme", server="fix", tool="echo", arguments={{"text": "a"}})
        print(result["structuredContent"]["text"])
{loop}.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "a" in done.stdout.splitlines()  # among lines of the log
    assert "Traceback" not in done.stderr
