#!/usr/bin/env python3
"""A stdio MCP server that can prove what a runtime in front of it did.

One single-threaded loop over standard input and a heap of timers; a tool that has to wait is a generator that
yields what it waits for, so that any number of calls are in flight without a thread (threads would count
against the worker's process limit). Standard library only: its start time is part of many tests.

`--era legacy`   speaks `initialize` and answers `server/discover` with -32601
`--era silent`   the same, but answers nothing at all before `initialize`
`--era modern`   speaks 2026-07-28 only, and answers `initialize` with -32022
`--era dual`     speaks either, and is pinned to one by the first message that tells which
"""

import argparse
import binascii
import heapq
import itertools
import json
import os
import select
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from types import GeneratorType
from typing import NamedTuple

MODERN = "2026-07-28"
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
META = "io.modelcontextprotocol/"
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
RESOURCE_NOT_FOUND, MISSING_CAPABILITY, UNSUPPORTED_VERSION = -32002, -32021, -32022
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
CACHEABLE = {"tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"}
LIST_KINDS = {
    "toolsListChanged": "tools",
    "promptsListChanged": "prompts",
    "resourcesListChanged": "resources",
}
RESOURCE_PAGE = 2
REMEMBERED_LINES = 512

TEXTS = {f"fixture://text/{number}": f"text {number}" for number in range(1, 6)}
BINARY = "fixture://binary"
BINARY_BYTES = bytes(range(256))
TEMPLATE = "fixture://greeting/{name}"
STYLES = ("formal", "friendly", "terse")

type_names = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


class RpcError(Exception):
    def __init__(self, code: int, message: str, data: object = None) -> None:
        self.error = {"code": code, "message": message} | ({} if data is None else {"data": data})


class Sleep(NamedTuple):
    seconds: float


class Ask(NamedTuple):
    method: str
    params: dict


class Tool(NamedTuple):
    function: Callable
    declaration: dict


TOOLS: dict[str, Tool] = {}


def tool(
    properties: dict | None = None, required: tuple = (), annotations: dict | None = None, **declared: object
):
    """Register the function below under its own name, its docstring as description."""

    def register(function: Callable) -> Callable:
        schema = {"type": "object", "properties": properties or {}, "required": list(required)}
        defs = declared.pop("defs", None)
        declaration = {
            "name": function.__name__,
            "description": function.__doc__,
            "inputSchema": schema | ({"$defs": defs} if defs else {}),
            "annotations": {"readOnlyHint": False, "idempotentHint": False} | (annotations or {}),
        } | declared
        TOOLS[function.__name__] = Tool(function, declaration)
        return function

    return register


def text(value: object, structured: dict | None = None, *, failed: bool = False) -> dict:
    """The result of a tool: one text block, and the same as data where there is some."""
    shown = value if isinstance(value, str) else json.dumps(value)
    result: dict = {"content": [{"type": "text", "text": shown}]}
    if structured is not None:
        result["structuredContent"] = structured
    return result | ({"isError": True} if failed else {})


class Call:
    """One request in flight: its parameters, and the ways to talk about it before it is answered."""

    def __init__(self, server: "Server", request_id: object, method: str, params: dict) -> None:
        self.server = server
        self.id = request_id
        self.method = method
        self.params = params
        self.meta = params.get("_meta") or {}
        self.arguments = params.get("arguments") or {}
        self.steps: Generator | None = None

    @property
    def capabilities(self) -> dict:
        if self.server.era == "modern":
            return self.meta.get(META + "clientCapabilities") or {}
        return self.server.handshake.get("capabilities") or {}

    def progress(self, done: int, total: int) -> bool:
        token = self.meta.get("progressToken")
        if token is None:
            return False
        params = {"progressToken": token, "progress": done, "total": total, "message": f"{done} of {total}"}
        self.server.notify("notifications/progress", params)
        return True

    def log(self, level: str, data: object) -> bool:
        modern = self.server.era == "modern"
        floor = self.meta.get(META + "logLevel") if modern else self.server.log_level
        if floor is None or LEVELS.index(level) < LEVELS.index(floor):
            return False
        self.server.notify("notifications/message", {"level": level, "logger": "fixture", "data": data})
        return True


# --- tools ---------------------------------------------------------------------------------------------------

READ = {"readOnlyHint": True, "idempotentHint": True}
STRING, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}


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
    defs={"operand": NUMBER},
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


QUESTIONS = {
    "elicitation": (
        "elicitation/create",
        lambda message: {
            "message": message,
            "requestedSchema": {"type": "object", "properties": {"answer": STRING}, "required": ["answer"]},
        },
    ),
    "sampling": (
        "sampling/createMessage",
        lambda message: {
            "messages": [{"role": "user", "content": {"type": "text", "text": message}}],
            "maxTokens": 16,
        },
    ),
    "roots": ("roots/list", lambda _message: {}),
}


@tool({"message": STRING, "kind": {"type": "string", "enum": list(QUESTIONS)}, "force": {"type": "boolean"}})
def ask(call: Call) -> Iterator:
    """Ask the client something, whatever it declared, and answer with its answer.

    On a modern wire an undeclared capability is refused as the specification wants, unless `force` is set.
    """
    kind = call.arguments.get("kind", "elicitation")
    method, build = QUESTIONS[kind]
    params = build(call.arguments.get("message", "?"))
    if call.server.era != "modern":
        answer = yield Ask(method, params)
        return text(answer, answer)
    if kind not in call.capabilities and not call.arguments.get("force"):
        raise RpcError(MISSING_CAPABILITY, f"needs {kind}", {"requiredCapabilities": {kind: {}}})
    return call.server.ask_modern(call, {"method": method, "params": params})


@tool({"level": {"type": "string", "enum": list(LEVELS)}, "message": STRING, "count": INTEGER}, (), READ)
def log(call: Call) -> dict:
    """Send log messages, and answer with how many were wanted."""
    level, message = call.arguments.get("level", "info"), call.arguments.get("message", "logged")
    sent = sum(call.log(level, message) for _ in range(call.arguments.get("count", 1)))
    return text(str(sent))


@tool({"name": STRING}, ("name",))
def toggle_tool(call: Call) -> dict:
    """Add a tool of that name, or take it away again, and tell whoever wants to know."""
    extra, name = call.server.extra_tools, call.arguments["name"]
    if name in extra:
        extra.remove(name)
    else:
        extra.append(name)
    call.server.announce("tools")
    return text(extra)


@tool({"uri": STRING}, ("uri",))
def touch_resource(call: Call) -> dict:
    """Tell whoever subscribed to the resource that it changed."""
    return text(str(call.server.announce_update(call.arguments["uri"])))


# --- the rest of the protocol --------------------------------------------------------------------------------


def page_of(items: list, params: dict, size: int) -> tuple[list, dict]:
    """Cut one page out of a list; the cursor is opaque and anything not minted here is refused."""
    cursor = params.get("cursor")
    if cursor is None:
        start = 0
    elif isinstance(cursor, str) and cursor.startswith("after:") and cursor[6:].isdecimal():
        start = int(cursor[6:])
    else:
        raise RpcError(INVALID_PARAMS, "Invalid cursor")
    if not size or start + size >= len(items):
        return items[start:], {}
    return items[start : start + size], {"nextCursor": f"after:{start + size}"}


def list_tools(server: "Server", call: Call) -> dict:
    extra = [{"name": name, "inputSchema": {"type": "object"}} for name in server.extra_tools]
    page, more = page_of([item.declaration for item in TOOLS.values()] + extra, call.params, server.page_size)
    return {"tools": page} | more


def list_resources(server: "Server", call: Call) -> dict:
    items = [{"uri": uri, "name": uri.rsplit("/", 1)[1], "mimeType": "text/plain"} for uri in TEXTS]
    items.append(
        {"uri": BINARY, "name": "binary", "mimeType": "application/octet-stream", "size": len(BINARY_BYTES)}
    )
    page, more = page_of(items, call.params, server.page_size or RESOURCE_PAGE)
    return {"resources": page} | more


def list_templates(server: "Server", call: Call) -> dict:
    items = [{"uriTemplate": TEMPLATE, "name": "greeting", "mimeType": "text/plain"}]
    page, more = page_of(items, call.params, server.page_size)
    return {"resourceTemplates": page} | more


def read_resource(server: "Server", call: Call) -> dict:
    uri, prefix = call.params.get("uri"), TEMPLATE.partition("{")[0]
    if uri in TEXTS:
        contents = {"uri": uri, "mimeType": "text/plain", "text": TEXTS[uri]}
    elif uri == BINARY:
        blob = binascii.b2a_base64(BINARY_BYTES, newline=False).decode()
        contents = {"uri": uri, "mimeType": "application/octet-stream", "blob": blob}
    elif isinstance(uri, str) and uri.startswith(prefix) and len(uri) > len(prefix):
        contents = {"uri": uri, "mimeType": "text/plain", "text": f"Hello, {uri[len(prefix) :]}"}
    else:
        code = INVALID_PARAMS if server.era == "modern" else RESOURCE_NOT_FOUND
        raise RpcError(code, "Resource not found", {"uri": uri})
    return {"contents": [contents]}


PROMPTS = [
    {"name": "simple", "description": "Takes nothing."},
    {
        "name": "greet",
        "description": "Greets somebody.",
        "arguments": [
            {"name": "name", "description": "Whom to greet", "required": True},
            {"name": "style", "description": "How to greet", "required": False},
        ],
    },
]


def list_prompts(server: "Server", call: Call) -> dict:
    page, more = page_of(PROMPTS, call.params, server.page_size)
    return {"prompts": page} | more


def get_prompt(_server: "Server", call: Call) -> dict:
    name = call.params.get("name")
    if name == "simple":
        said = "Say something."
    elif name == "greet":
        if "name" not in call.arguments:
            raise RpcError(INVALID_PARAMS, "Missing argument: name")
        said = f"Greet {call.arguments['name']} in a {call.arguments.get('style', 'plain')} style."
    else:
        raise RpcError(INVALID_PARAMS, f"Unknown prompt: {name}")
    return {"description": name, "messages": [{"role": "user", "content": {"type": "text", "text": said}}]}


def complete(_server: "Server", call: Call) -> dict:
    ref, argument = call.params.get("ref") or {}, call.params.get("argument") or {}
    known = {
        ("greet", "style"): STYLES,
        ("greet", "name"): ("Ada", "Alan"),
        (TEMPLATE, "name"): ("Ada", "Grace"),
    }
    choices = known.get((ref.get("name") or ref.get("uri"), argument.get("name")))
    if choices is None:
        raise RpcError(INVALID_PARAMS, "Nothing to complete there")
    values = [choice for choice in choices if choice.startswith(argument.get("value", ""))]
    return {"completion": {"values": values, "total": len(values), "hasMore": False}}


def set_level(server: "Server", call: Call) -> dict:
    level = call.params.get("level")
    if level not in LEVELS:
        raise RpcError(INVALID_PARAMS, f"Unknown level: {level}")
    server.log_level = level
    return {}


def subscribe(server: "Server", call: Call) -> dict:
    server.subscribed.add(call.params.get("uri"))
    return {}


def unsubscribe(server: "Server", call: Call) -> dict:
    server.subscribed.discard(call.params.get("uri"))
    return {}


def call_tool(server: "Server", call: Call) -> object:
    name = call.params.get("name")
    if name in server.extra_tools:
        return text(f"extra {name}")
    if name not in TOOLS:
        raise RpcError(INVALID_PARAMS, f"Unknown tool: {name}")
    wrong = wrong_argument(TOOLS[name].declaration["inputSchema"], call.arguments)
    if wrong:
        return text(wrong, failed=True)
    server.counts[name] += 1
    return TOOLS[name].function(call)


def wrong_argument(schema: dict, arguments: object) -> str | None:
    """What is wrong with the arguments, checked as far as the tools here rely on it."""
    if not isinstance(arguments, dict):
        return "arguments must be an object"
    if missing := [name for name in schema["required"] if name not in arguments]:
        return f"missing argument: {', '.join(missing)}"
    for name, value in arguments.items():
        described = schema["properties"].get(name, {})
        declared = "number" if "$ref" in described else described.get("type")
        wrong_bool = isinstance(value, bool) and declared in ("integer", "number")
        if declared and (wrong_bool or not isinstance(value, type_names[declared])):
            return f"argument {name} must be of type {declared}"
    return None


COMMON = {
    "tools/list": list_tools,
    "tools/call": call_tool,
    "resources/list": list_resources,
    "resources/templates/list": list_templates,
    "resources/read": read_resource,
    "prompts/list": list_prompts,
    "prompts/get": get_prompt,
    "completion/complete": complete,
}
LEGACY_ONLY = {
    "ping": lambda _server, _call: {},
    "logging/setLevel": set_level,
    "resources/subscribe": subscribe,
    "resources/unsubscribe": unsubscribe,
}


class Server:
    """The loop, and all that one connection knows."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.page_size: int = options.page_size
        self.era = {"modern": "modern", "dual": None}.get(options.era, "legacy")
        self.initialized = False
        self.handshake: dict = {}
        self.log_level: str | None = "debug"
        self.subscribed: set = set()
        self.listening: dict = {}
        self.state: dict[str, str] = {}
        self.extra_tools: list[str] = []
        self.counts: Counter = Counter()
        self.wire: Counter = Counter()
        self.cancelled: list[dict] = []
        self.lines: deque = deque(maxlen=REMEMBERED_LINES)
        self.in_flight: dict = {}
        self.questions: dict[str, Call] = {}
        self.request_states: set[str] = set()
        self.timers: list = []
        self.order = itertools.count()
        self.answered_calls = 0

    @property
    def info(self) -> dict:
        return {"name": self.options.name, "version": "1.0.0"}

    @property
    def capabilities(self) -> dict:
        declared = {
            "tools": {"listChanged": True},
            "resources": {"subscribe": True, "listChanged": True},
            "prompts": {"listChanged": False},
            "completions": {},
            "logging": {},
        }
        if self.options.no_tools:
            del declared["tools"]
        return declared

    # The loop.

    def run(self) -> None:
        buffer = b""
        while True:
            patience = max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else None
            if select.select([0], [], [], patience)[0]:
                chunk = os.read(0, 1 << 16)
                if not chunk:
                    return
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    self.receive(line)
            while self.timers and self.timers[0][0] <= time.monotonic():
                call = heapq.heappop(self.timers)[2]
                if self.in_flight.get(call.id) is call:
                    self.advance(call, None)

    def write(self, line: bytes) -> None:
        rest = memoryview(line + b"\n")
        while rest:
            rest = rest[os.write(1, rest) :]

    def send(self, message: dict) -> None:
        self.write(json.dumps(message, separators=(",", ":")).encode())

    def notify(self, method: str, params: dict) -> None:
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def fail(self, request_id: object, failure: RpcError) -> None:
        named = {} if request_id is None else {"id": request_id}
        self.send({"jsonrpc": "2.0"} | named | {"error": failure.error})

    # One message.

    def receive(self, line: bytes) -> None:
        if self.options.stderr_noise:
            os.write(2, b"fixture: received %d bytes\n" % len(line))
        self.lines.append(line)
        try:
            message = json.loads(line)
        except ValueError:
            self.wire["unparsable"] += 1
            self.fail(None, RpcError(PARSE_ERROR, "Parse error"))
            return
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            self.wire["invalid"] += 1
            self.fail(None, RpcError(INVALID_REQUEST, "Invalid request"))
        elif "method" not in message:
            self.answer_received(message)
        elif "id" not in message:
            self.notification(message["method"], message.get("params") or {})
        else:
            self.request(message["id"], message["method"], message.get("params") or {})

    def answer_received(self, message: dict) -> None:
        call = self.questions.pop(message.get("id"), None)
        if call is None:
            self.wire["unknownAnswers"] += 1
        elif self.in_flight.get(call.id) is call:
            self.advance(call, message["result"] if "result" in message else {"error": message.get("error")})

    def notification(self, method: str, params: dict) -> None:
        if method == "notifications/initialized":
            self.initialized = True
        elif method == "notifications/cancelled":
            wanted = params.get("requestId")
            self.listening.pop(wanted, None)
            call = self.in_flight.pop(wanted, None)
            name = call.params.get("name") if call else None
            self.cancelled.append({"id": wanted, "tool": name})
        else:
            self.wire["otherNotifications"] += 1

    def request(self, request_id: object, method: str, params: dict) -> None:
        if self.options.era == "silent" and not self.handshake and method != "initialize":
            return
        if request_id in self.in_flight:
            self.wire["duplicateIds"] += 1
        if not isinstance(params, dict):
            self.wire["invalid"] += 1
            self.fail(request_id, RpcError(INVALID_PARAMS, "params must be an object"))
            return
        call = Call(self, request_id, method, params)
        try:
            result = self.dispatch(call)
        except RpcError as failure:
            self.wire["refused"] += (
                self.era == "legacy" and not self.initialized and method != "server/discover"
            )
            self.fail(request_id, failure)
            return
        if isinstance(result, GeneratorType):
            call.steps = result
            self.in_flight[request_id] = call
            self.advance(call, None)
        elif result is not None:
            self.finish(call, result)

    def dispatch(self, call: Call) -> object:
        method = call.method
        if self.era is None:
            self.pin(call)
        if method == "initialize":
            return self.initialize(call)
        if self.era == "modern":
            return self.dispatch_modern(call)
        if method == "server/discover":
            code = INVALID_REQUEST if self.options.era == "dual" else METHOD_NOT_FOUND
            raise RpcError(code, "This connection speaks initialize")
        if method != "ping" and not self.initialized:
            raise RpcError(INVALID_REQUEST, "Not initialized")
        return self.handler(method, COMMON | LEGACY_ONLY)(self, call)

    def handler(self, method: str, known: dict) -> Callable:
        if method not in known or (self.options.no_tools and method.startswith("tools/")):
            raise RpcError(METHOD_NOT_FOUND, f"Method not found: {method}")
        return known[method]

    def pin(self, call: Call) -> None:
        """A dual-era connection becomes what its first telling message is."""
        if call.method == "initialize":
            self.era = "legacy"
        elif call.method == "server/discover" or META + "protocolVersion" in call.meta:
            self.era = "modern"
        else:
            raise RpcError(INVALID_REQUEST, "Neither initialize nor a modern request")

    def initialize(self, call: Call) -> dict:
        wanted = call.params.get("protocolVersion")
        if self.era == "modern":
            raise RpcError(
                UNSUPPORTED_VERSION, "Speak 2026-07-28", {"supported": [MODERN], "requested": wanted}
            )
        if self.handshake:
            raise RpcError(INVALID_REQUEST, "Initialized already")
        self.handshake = call.params
        version = wanted if wanted in LEGACY else LEGACY[0]
        return {
            "protocolVersion": version,
            "capabilities": self.capabilities,
            "serverInfo": self.info,
            "instructions": "Proves what a runtime does.",
        }

    # The modern era.

    def dispatch_modern(self, call: Call) -> object:
        version = call.meta.get(META + "protocolVersion")
        if not isinstance(version, str) or not isinstance(call.meta.get(META + "clientCapabilities"), dict):
            raise RpcError(INVALID_PARAMS, "Missing protocolVersion or clientCapabilities in _meta")
        if version != MODERN:
            raise RpcError(
                UNSUPPORTED_VERSION, "Unsupported version", {"supported": [MODERN], "requested": version}
            )
        if call.meta.get(META + "logLevel", LEVELS[0]) not in LEVELS:
            raise RpcError(INVALID_PARAMS, "Unknown log level")
        if call.method == "server/discover":
            return {
                "supportedVersions": [MODERN, *(LEGACY if self.options.era == "dual" else ())],
                "capabilities": self.capabilities,
                "instructions": "Proves what a runtime does.",
                "ttlMs": 0,
                "cacheScope": "private",
            }
        if call.method == "subscriptions/listen":
            return self.listen(call)
        return self.handler(call.method, COMMON)(self, call)

    def ask_modern(self, call: Call, question: dict) -> dict:
        state, answers = call.params.get("requestState"), call.params.get("inputResponses")
        if state is not None and state not in self.request_states:
            raise RpcError(INVALID_PARAMS, "Unknown requestState")
        if state is not None and isinstance(answers, dict) and "question" in answers:
            self.request_states.discard(state)
            return text(answers["question"], answers["question"])
        state = os.urandom(16).hex()
        self.request_states.add(state)
        return {
            "resultType": "input_required",
            "inputRequests": {"question": question},
            "requestState": state,
        }

    def listen(self, call: Call) -> None:
        wanted = call.params.get("notifications") or {}
        honoured = {key: True for key in LIST_KINDS if wanted.get(key) and key != "promptsListChanged"}
        if uris := wanted.get("resourceSubscriptions"):
            honoured["resourceSubscriptions"] = uris
        self.listening[call.id] = honoured
        meta = {META + "subscriptionId": call.id}
        self.notify("notifications/subscriptions/acknowledged", {"_meta": meta, "notifications": honoured})

    def announce(self, kind: str) -> None:
        method = f"notifications/{kind}/list_changed"
        if self.era != "modern":
            self.notify(method, {})
        for listen_id, honoured in self.listening.items():
            if any(LIST_KINDS.get(key) == kind for key in honoured):
                self.notify(method, {"_meta": {META + "subscriptionId": listen_id}})

    def announce_update(self, uri: str) -> int:
        method, told = "notifications/resources/updated", 0
        if self.era != "modern" and uri in self.subscribed:
            self.notify(method, {"uri": uri})
            told += 1
        for listen_id, honoured in self.listening.items():
            if uri in honoured.get("resourceSubscriptions", ()):
                self.notify(method, {"_meta": {META + "subscriptionId": listen_id}, "uri": uri})
                told += 1
        return told

    # One call in flight.

    def advance(self, call: Call, value: object) -> None:
        """Run a waiting call to its next wait, or to its end."""
        try:
            wait = call.steps.send(value)
        except StopIteration as end:
            self.in_flight.pop(call.id, None)
            self.finish(call, end.value)
        except RpcError as failure:
            self.in_flight.pop(call.id, None)
            self.fail(call.id, failure)
        else:
            if isinstance(wait, Sleep):
                heapq.heappush(self.timers, (time.monotonic() + wait.seconds, next(self.order), call))
            else:
                question = f"question-{next(self.order)}"
                self.questions[question] = call
                self.send({"jsonrpc": "2.0", "id": question, "method": wait.method, "params": wait.params})

    def finish(self, call: Call, result: dict) -> None:
        """Answer once; a call that answered early answers no second time when it returns."""
        if call.method == "answered":
            return
        if self.era == "modern":
            result = {"resultType": "complete"} | result | {"_meta": {META + "serverInfo": self.info}}
            if call.method in CACHEABLE:
                result |= {"ttlMs": 0, "cacheScope": "private"}
        self.send({"jsonrpc": "2.0", "id": call.id, "result": result})
        tool_call, call.method = call.method == "tools/call", "answered"
        self.answered_calls += tool_call
        if tool_call and self.answered_calls == self.options.exit_after:
            sys.exit(0)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--era", choices=("legacy", "dual", "modern", "silent"), default="dual")
    parser.add_argument("--name", default="fixture", help="what serverInfo says")
    parser.add_argument("--delay-start", type=float, default=0, metavar="SECONDS")
    parser.add_argument("--fail-start", action="store_true", help="exit at once with status 3")
    parser.add_argument("--exit-after", type=int, metavar="N", help="exit after answering N tool calls")
    parser.add_argument("--no-tools", action="store_true")
    parser.add_argument("--page-size", type=int, default=0, help="cut every list into pages of that size")
    parser.add_argument("--stderr-noise", action="store_true")
    return parser.parse_args(argv)


def main() -> int:
    options = parse(sys.argv[1:])
    if options.stderr_noise:
        os.write(2, b"fixture: starting \xff\xfe\n" + b"n" * 5000 + b"\n")
    if options.fail_start:
        os.write(2, b"fixture: told to fail\n")
        return 3
    time.sleep(options.delay_start)
    Server(options).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
