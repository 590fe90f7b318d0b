"""What a server may put on the wire besides its answer, and what it may not do at all; nobody else notices."""

import anyio
import pytest

from harness import fixture_server, make_policy, serving

pytestmark = pytest.mark.kernel

SERVER = """
import json, sys, time
def say(message): sys.stdout.write(json.dumps({"jsonrpc": "2.0"} | message) + "\\n"); sys.stdout.flush()
def raw(data): sys.stdout.buffer.write(data); sys.stdout.buffer.flush()
def text(words): return {"content": [{"type": "text", "text": words}]}
initialize = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "l", "version": "1"}}
for line in sys.stdin:
    asked = json.loads(line)
    def answer(result): say({"id": asked["id"], "result": result})
    if asked.get("method") == "initialize": answer(initialize)
    if asked.get("method") == "tools/list": answer({"tools": [{"name": "any", "inputSchema": {"type": "object"}}]})
    if asked.get("method") == "tools/call":
        LIE
"""

# What is done instead of answering, and what the caller gets.
LIES = {
    "the same answer twice": ('answer(text("first")); answer(text("second"))', "first"),
    "NUL bytes before the answer": (r'raw(b"\0\0\0\n"); answer(text("after"))', "after"),
    "bytes that are no UTF-8": (r'raw(b"\xff\xc0\x80\n"); answer(text("after"))', "after"),
    "orders to a terminal": (r'sys.stderr.write("\x1b]0;x\x07\x1b[2J\n"); answer(text("after"))', "after"),
    "an answer to what nobody asked": ('say({"id": 10**9, "result": {}}); answer(text("after"))', "after"),
}


def lying(lie: str) -> dict:
    code = SERVER.replace("LIE", lie)
    return {
        "command": "python3",
        "args": ["-c", code],
        "timeouts": {"start": "20s", "call": "2s", "stop": "200ms"},
    }


@pytest.mark.parametrize(("lie", "said"), LIES.values(), ids=LIES)
async def test_a_lie_changes_nothing_about_the_answer_and_the_next_is_right(lie: str, said: str) -> None:
    servers = {"liar": lying(lie), "fix": fixture_server()}
    async with serving(make_policy(servers)) as served:
        for _ in range(3):
            assert (await served.modern("liar").call("any")).text == said
        assert (await served.modern("fix").call("echo", text="b")).text == "b"


async def test_a_server_that_never_reads_again_is_given_up_and_nobody_waits_for_it() -> None:
    servers = {"liar": lying("time.sleep(3600)"), "fix": fixture_server()}
    async with serving(make_policy(servers)) as served:
        answer = await served.modern("liar").call("any", words="x" * 200_000)
        assert answer.error["data"]["reason"] == "timeout"
        assert (await served.modern("fix").call("echo", text="b")).text == "b"


async def test_calls_that_need_a_list_which_never_comes_wait_for_it_together() -> None:
    """Each has a second for it, and not one after the other: twelve in a row would take twelve."""
    code = SERVER.replace(
        'if asked.get("method") == "tools/list":',
        'if asked.get("method") == "tools/list" and asked["id"] < 4:',
    )
    server = lying("pass") | {
        "args": ["-c", code.replace("LIE", "pass")],
        "timeouts": {"start": "20s", "call": "1s"},
    }
    async with serving(make_policy({"liar": server})) as served:
        client = served.modern("liar")
        await served.client("legacy", "liar")
        reasons: list[str] = []

        async def call() -> None:
            reasons.append((await client.call("any")).error["data"]["reason"])

        with anyio.fail_after(8):
            async with anyio.create_task_group() as tasks:
                for _ in range(12):
                    tasks.start_soon(call)
        assert reasons == ["timeout"] * 12
