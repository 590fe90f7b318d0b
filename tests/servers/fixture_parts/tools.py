"""Tools that say what a runtime did with a call: what arrived, in which process, and how it ended."""

import json
import os
import signal
import sys
from collections.abc import Iterator

from fixture_parts.calls import Call, tool
from fixture_parts.wire import INTEGER, LEVELS, NUMBER, STRING, RpcError, Sleep, text

READ = {"readOnlyHint": True, "idempotentHint": True}


@tool(
    {"text": STRING},
    ("text",),
    READ,
    title="Echo",
    outputSchema={"type": "object", "properties": {"text": STRING}, "required": ["text"]},
    _meta={"fixture.example/kept": [1, None, {"deep": True}]},
)
def echo(call: Call) -> dict:
    """Give the text back."""
    return text(call.arguments["text"], {"text": call.arguments["text"]})


@tool(
    {"a": {"$ref": "#/$defs/operand"}, "b": {"$ref": "#/$defs/operand"}},
    ("a", "b"),
    READ,
    schema={"$defs": {"operand": NUMBER}},
)
def add(call: Call) -> dict:
    """Add two numbers."""
    total = call.arguments["a"] + call.arguments["b"]
    return text(str(total), {"sum": total})


@tool({"seconds": NUMBER}, ("seconds",), READ)
def sleep(call: Call) -> Iterator:
    """Answer after some seconds, unless cancelled before."""
    yield Sleep(call.arguments["seconds"])
    return text("slept")


@tool({"count": INTEGER, "interval": NUMBER}, ("count",), READ)
def progress(call: Call) -> Iterator:
    """Report progress some times, then answer with how often it was reported."""
    count, sent = call.arguments["count"], 0
    for done in range(1, count + 1):
        sent += call.progress(done, count)
        if interval := call.arguments.get("interval"):
            yield Sleep(interval)
    return text(str(sent))


@tool({"env": {"type": "array", "items": STRING}}, (), READ)
def whoami(call: Call) -> dict:
    """Say who this process is, and what its environment holds under the names asked for."""
    server, asked = call.server, call.arguments.get("env") or []
    facts = {
        "pid": os.getpid(),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "cwd": os.getcwd(),
        "hostname": os.uname().nodename,
        "argv": sys.argv,
        "era": server.era,
        "env": {name: os.environ.get(name) for name in asked},
        "envNames": sorted(os.environ),
        "clientCapabilities": call.capabilities,
        "handshake": server.handshake,
        "wire": server.wire,
    }
    return text(facts, facts)


@tool({"key": STRING, "value": STRING}, ("key", "value"), {"idempotentHint": True})
def state_set(call: Call) -> dict:
    """Remember a value in this process."""
    call.server.state[call.arguments["key"]] = call.arguments["value"]
    return text("set")


@tool({"key": STRING}, ("key",), READ)
def state_get(call: Call) -> dict:
    """Give back a value remembered in this process, with every key there is."""
    state = call.server.state
    value = state.get(call.arguments["key"])
    return text("" if value is None else value, {"value": value, "keys": sorted(state)}, failed=value is None)


@tool({"path": STRING, "text": STRING}, ("path", "text"), {"idempotentHint": True})
def write_file(call: Call) -> dict:
    """Write a text to a file."""
    try:
        with open(call.arguments["path"], "w", encoding="utf-8") as file:
            file.write(call.arguments["text"])
    except OSError as error:
        return text(f"{type(error).__name__}: {error}", failed=True)
    return text("written")


@tool({"path": STRING}, ("path",), READ)
def read_file(call: Call) -> dict:
    """Read a text from a file."""
    try:
        with open(call.arguments["path"], encoding="utf-8", errors="replace") as file:
            return text(file.read())
    except OSError as error:
        return text(f"{type(error).__name__}: {error}", failed=True)


@tool({"path": STRING}, ("path",), READ)
def list_dir(call: Call) -> dict:
    """List a folder."""
    try:
        names = sorted(os.listdir(call.arguments["path"]))
    except OSError as error:
        return text(f"{type(error).__name__}: {error}", failed=True)
    return text(names, {"names": names})


@tool(annotations=READ)
def cancelled(call: Call) -> dict:
    """List the ids cancelled so far, and the tools whose calls were stopped by it."""
    stopped = call.server.cancelled
    facts = {
        "ids": [item["id"] for item in stopped],
        "stopped": [item["tool"] for item in stopped if item["tool"]],
    }
    return text(facts["ids"], facts)


@tool({"back": INTEGER, "contains": STRING}, (), READ)
def last_message(call: Call) -> dict:
    """Give the raw line of this very call; of the `back`-th before; or of the newest earlier one that contains a text."""
    lines = call.server.lines
    if wanted := call.arguments.get("contains"):
        found = next((line for line in list(lines)[-2::-1] if wanted.encode() in line), None)
    else:
        back = call.arguments.get("back", 0)
        found = lines[-1 - back] if back < len(lines) else None
    if found is None:
        return text("no such line", failed=True)
    return text(found.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode())


@tool(annotations=READ)
def calls(call: Call) -> dict:
    """Count the calls of each tool that this process has begun."""
    counts = dict(call.server.counts)
    return text(counts, counts)


@tool({"code": INTEGER, "when": {"type": "string", "enum": ["before", "after"]}, "signal": INTEGER})
def crash(call: Call) -> dict:
    """End this process, by exit code or by signal, before or after the answer."""
    if call.arguments.get("when") == "after":
        call.server.finish(call, text("crashing"))
    if number := call.arguments.get("signal"):
        os.kill(os.getpid(), number)
        signal.pause()
    os._exit(call.arguments.get("code", 1))


@tool({"bytes": INTEGER}, ("bytes",), READ)
def big(call: Call) -> dict:
    """Answer with a text of the given length."""
    return text("x" * call.arguments["bytes"])


@tool({"text": STRING}, (), READ)
def noise(call: Call) -> dict:
    """Write what no server may write, then answer properly, twice."""
    foreign = json.dumps({"jsonrpc": "2.0", "id": 999_999_999, "result": {"content": []}})
    nobody = json.dumps({"jsonrpc": "2.0", "id": None, "result": {}})
    token = json.dumps(
        {
            "jsonrpc": "2.0",
            "method": "notifications/progress",
            "params": {"progressToken": "nobody's", "progress": 1},
        }
    )
    for line in (
        b"plain text",
        b"",
        b"   ",
        b"{",
        b"[]",
        b'"text"',
        b"17",
        b"null",
        b"\xff\xfe\x80",
        b'{"jsonrpc":"2.0"}',
    ):
        call.server.write(line)
    for message in (foreign, nobody, token, f"[{foreign},{foreign}]"):
        call.server.write(message.encode())
    answer = text(call.arguments.get("text", "quiet again"))
    call.server.finish(call, answer)
    call.server.send({"jsonrpc": "2.0", "id": call.id, "result": text("a second answer")})
    return answer


@tool({"code": INTEGER, "message": STRING, "data": {}}, ("code",), READ)
def error(call: Call) -> dict:
    """Fail with a JSON-RPC error."""
    raise RpcError(
        call.arguments["code"], call.arguments.get("message", "asked to fail"), call.arguments.get("data")
    )


@tool({"message": STRING}, (), READ)
def tool_error(call: Call) -> dict:
    """Fail as a tool does, in the result."""
    return text(call.arguments.get("message", "asked to fail"), failed=True)


@tool({"level": {"type": "string", "enum": list(LEVELS)}, "message": STRING, "count": INTEGER}, (), READ)
def log(call: Call) -> dict:
    """Send log messages, and answer with how many were wanted."""
    level, message = call.arguments.get("level", "info"), call.arguments.get("message", "logged")
    sent = sum(call.log(level, message) for _ in range(call.arguments.get("count", 1)))
    return text(str(sent))
