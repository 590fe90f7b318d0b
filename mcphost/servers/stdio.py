"""MCP over standard input and output for small servers that answer at once, in both eras.

`Server.receive` is the protocol: one line in, at most one line out, no waiting and no I/O. `serve` moves the
lines. Every tool here is quick, so nothing is ever in flight when a cancellation arrives, and nothing is sent
that was not asked for.

A request that carries the 2026-07-28 metadata is served on its own, as that revision asks; any other request
needs `initialize` before it. Both may be used on one connection (2026-07-28, basic/versioning, "Backward
Compatibility": a dual-era server may serve both eras in one process).
"""

import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, Final, NamedTuple, Protocol

MODERN: Final = "2026-07-28"
LEGACY: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
MAX_LINE_BYTES: Final = 4 << 20

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
UNSUPPORTED_VERSION: Final = -32022
LEGACY_RESOURCE_NOT_FOUND: Final = -32002

_VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
_CAPABILITIES_KEY: Final = "io.modelcontextprotocol/clientCapabilities"
_SERVER_KEY: Final = "io.modelcontextprotocol/serverInfo"

# Results that must say how long they stay fresh (2026-07-28, server/utilities/caching, "Cacheable Results").
_CACHEABLE: Final = frozenset(
    {
        "server/discover",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
    }
)

Object = Mapping[str, object]
Method = Callable[[Object], dict[str, object]]


class ToolFailed(Exception):
    """The tool could not do what was asked; the message is for the model that asked."""


class NoSuchResource(Exception):
    """Nothing is there under that URI."""


class _RpcError(Exception):
    def __init__(self, code: int, message: str, data: Object | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class Parameter(NamedTuple):
    """A parameter of a tool; all are strings. One with a default may be left out."""

    name: str
    description: str
    default: str | None = None


class Answer(NamedTuple):
    """What a tool gives back: a text to read, and the same as data."""

    text: str
    data: Object


class Tool(NamedTuple):
    """A tool; `run` takes every parameter by name and may raise `ToolFailed`."""

    name: str
    description: str
    parameters: Sequence[Parameter]
    run: Callable[[Mapping[str, str]], Answer]
    read_only: bool = True
    destructive: bool = False
    idempotent: bool = True


class Prompt(NamedTuple):
    """A prompt without arguments; `render` gives the text of its one message."""

    name: str
    description: str
    render: Callable[[], str]


class Resource(NamedTuple):
    """An entry of the resource list."""

    uri: str
    name: str
    mime_type: str = "text/plain"


class Resources(Protocol):
    """Where a server's resources come from."""

    @property
    def template(self) -> str:
        """The URI template that every resource matches."""

    def entries(self) -> Sequence[Resource]:
        """Every resource there is now, in a stable order."""

    def read(self, uri: str) -> str:
        """The text of one resource.

        Raises:
            NoSuchResource: Nothing is there under that URI.
        """


class Server:
    """One MCP server on one connection."""

    def __init__(
        self,
        name: str,
        version: str,
        *,
        instructions: str,
        tools: Sequence[Tool],
        prompts: Sequence[Prompt] = (),
        resources: Resources | None = None,
    ) -> None:
        self._info = {"name": name, "version": version}
        self._instructions = instructions
        self._tools = {tool.name: tool for tool in tools}
        self._prompts = {prompt.name: prompt for prompt in prompts}
        self._resources = resources
        self._initialized = False

    def __repr__(self) -> str:
        return f"<Server {self._info['name']} initialized={self._initialized}>"

    def receive(self, line: bytes) -> bytes | None:
        """The line to write in answer to a line read, or nothing where none is due."""
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return _line({"error": {"code": PARSE_ERROR, "message": "Parse error"}})
        if not isinstance(message, dict):
            return _line({"error": {"code": INVALID_REQUEST, "message": "Invalid request"}})
        if "method" not in message or "id" not in message:
            return None
        return _line({"id": message["id"]} | self._respond(message))

    def _respond(self, request: Object) -> dict[str, object]:
        try:
            return {"result": self._result(*_method_and_params(request))}
        except _RpcError as error:
            described: dict[str, object] = {"code": error.code, "message": str(error)}
            if error.data is not None:
                described["data"] = error.data
            return {"error": described}
        except ToolFailed as failure:
            # Not from a tool, which answers for itself: from what stands behind the prompts and the resources.
            return {"error": {"code": INTERNAL_ERROR, "message": str(failure)}}

    def _result(self, method: str, params: Object) -> dict[str, object]:
        meta = params.get("_meta")
        if isinstance(meta, dict) and _VERSION_KEY in meta:
            _check_modern(meta)
            result = {"resultType": "complete"} | self._handler(method, self._modern())(params)
            if method in _CACHEABLE:
                result |= {"ttlMs": 0, "cacheScope": "private"}
            return result | {"_meta": {_SERVER_KEY: self._info}}
        if not self._initialized and method not in ("initialize", "ping"):
            raise _RpcError(INVALID_PARAMS, f"Neither initialized nor carrying {_VERSION_KEY} in _meta")
        return self._handler(method, self._legacy())(params)

    def _handler(self, method: str, known: Mapping[str, Method]) -> Method:
        if method not in known:
            raise _RpcError(METHOD_NOT_FOUND, f"Method not found: {method}")
        return known[method]

    # The methods of each era.

    def _modern(self) -> dict[str, Method]:
        return self._common(resource_not_found=INVALID_PARAMS) | {"server/discover": self._discover}

    def _legacy(self) -> dict[str, Method]:
        common = self._common(resource_not_found=LEGACY_RESOURCE_NOT_FOUND)
        return common | {"initialize": self._initialize, "ping": lambda _params: {}}

    def _common(self, *, resource_not_found: int) -> dict[str, Method]:
        methods: dict[str, Method] = {"tools/list": self._list_tools, "tools/call": self._call_tool}
        if self._prompts:
            methods |= {"prompts/list": self._list_prompts, "prompts/get": self._get_prompt}
        if self._resources is not None:
            resources = self._resources
            methods |= {
                "resources/list": lambda _params: _list_resources(resources),
                "resources/templates/list": lambda _params: _list_templates(resources),
                "resources/read": lambda params: _read_resource(resources, params, resource_not_found),
            }
        return methods

    @property
    def _capabilities(self) -> dict[str, object]:
        declared: dict[str, object] = {"tools": {}}
        if self._prompts:
            declared["prompts"] = {}
        if self._resources is not None:
            declared["resources"] = {}
        return declared

    def _discover(self, _params: Object) -> dict[str, object]:
        return {
            "supportedVersions": [MODERN, *LEGACY],
            "capabilities": self._capabilities,
            "instructions": self._instructions,
        }

    def _initialize(self, params: Object) -> dict[str, object]:
        self._initialized = True
        requested = params.get("protocolVersion")
        return {
            "protocolVersion": requested if requested in LEGACY else LEGACY[0],
            "capabilities": self._capabilities,
            "serverInfo": self._info,
            "instructions": self._instructions,
        }

    def _list_tools(self, _params: Object) -> dict[str, object]:
        return {"tools": [_declare(tool) for tool in self._tools.values()]}

    def _call_tool(self, params: Object) -> dict[str, object]:
        tool = self._tools.get(str(params.get("name")))
        if tool is None:
            raise _RpcError(INVALID_PARAMS, f"Unknown tool: {params.get('name')}")
        try:
            answer = tool.run(_arguments(tool, params.get("arguments", {})))
        except ToolFailed as failure:
            return {"content": [_text(str(failure))], "isError": True}
        return {"content": [_text(answer.text)], "structuredContent": answer.data}

    def _list_prompts(self, _params: Object) -> dict[str, object]:
        listed = [
            {"name": prompt.name, "description": prompt.description} for prompt in self._prompts.values()
        ]
        return {"prompts": listed}

    def _get_prompt(self, params: Object) -> dict[str, object]:
        prompt = self._prompts.get(str(params.get("name")))
        if prompt is None:
            raise _RpcError(INVALID_PARAMS, f"Unknown prompt: {params.get('name')}")
        message = {"role": "user", "content": _text(prompt.render())}
        return {"description": prompt.description, "messages": [message]}


def serve(server: Server) -> int:
    """Answer line by line until standard input ends; the exit status of the process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return _pump(server, sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:
        # Nobody reads any more. The interpreter would complain once more on flushing at exit.
        sys.stdout = None
        return 0


def _pump(server: Server, source: BinaryIO, sink: BinaryIO) -> int:
    while line := source.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            sys.stderr.write(f"a message is longer than {MAX_LINE_BYTES} bytes\n")
            return 1
        answer = server.receive(line)
        if answer is not None:
            sink.write(answer)
            sink.flush()
    return 0


def _line(message: dict[str, object]) -> bytes:
    return json.dumps({"jsonrpc": "2.0"} | message, separators=(",", ":")).encode() + b"\n"


def _text(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}


def _method_and_params(request: Object) -> tuple[str, Object]:
    method, params = request["method"], request.get("params", {})
    if not isinstance(method, str) or request.get("jsonrpc") != "2.0":
        raise _RpcError(INVALID_REQUEST, "Invalid request")
    if not isinstance(params, dict):
        raise _RpcError(INVALID_PARAMS, "params must be an object")
    return method, params


def _check_modern(meta: Object) -> None:
    """Refuse a request whose metadata is not what 2026-07-28, basic/index, "_meta" requires."""
    version = meta[_VERSION_KEY]
    if not isinstance(meta.get(_CAPABILITIES_KEY), dict):
        raise _RpcError(INVALID_PARAMS, f"_meta must have an object under {_CAPABILITIES_KEY}")
    if version != MODERN:
        data = {"supported": [MODERN, *LEGACY], "requested": version}
        raise _RpcError(UNSUPPORTED_VERSION, "Unsupported protocol version", data)


def _declare(tool: Tool) -> dict[str, object]:
    properties = {
        parameter.name: {"type": "string", "description": parameter.description}
        | ({} if parameter.default is None else {"default": parameter.default})
        for parameter in tool.parameters
    }
    return {
        "name": tool.name,
        "description": tool.description,
        "inputSchema": {
            "type": "object",
            "properties": properties,
            "required": [parameter.name for parameter in tool.parameters if parameter.default is None],
            "additionalProperties": False,
        },
        "annotations": {
            "readOnlyHint": tool.read_only,
            "destructiveHint": tool.destructive,
            "idempotentHint": tool.idempotent,
            "openWorldHint": False,
        },
    }


def _arguments(tool: Tool, given: object) -> dict[str, str]:
    """The tool's arguments, complete; what is wrong with them goes to the model, which can correct it."""
    if not isinstance(given, dict):
        raise ToolFailed("arguments must be an object")
    known = [parameter.name for parameter in tool.parameters]
    if unknown := [name for name in given if name not in known]:
        raise ToolFailed(f"unknown argument {unknown[0]!r}; {tool.name} takes: {', '.join(known) or 'none'}")
    complete = {}
    for parameter in tool.parameters:
        value = given.get(parameter.name, parameter.default)
        if value is None:
            raise ToolFailed(f"argument {parameter.name!r} is missing: {parameter.description}")
        if not isinstance(value, str):
            raise ToolFailed(f"argument {parameter.name!r} must be a string")
        complete[parameter.name] = value
    return complete


def _list_resources(resources: Resources) -> dict[str, object]:
    entries = [
        {"uri": entry.uri, "name": entry.name, "mimeType": entry.mime_type} for entry in resources.entries()
    ]
    return {"resources": entries}


def _list_templates(resources: Resources) -> dict[str, object]:
    return {"resourceTemplates": [{"uriTemplate": resources.template, "name": "by name"}]}


def _read_resource(resources: Resources, params: Object, not_found: int) -> dict[str, object]:
    uri = params.get("uri")
    if not isinstance(uri, str):
        raise _RpcError(INVALID_PARAMS, "uri must be a string")
    try:
        text = resources.read(uri)
    except NoSuchResource:
        raise _RpcError(not_found, "Resource not found", {"uri": uri}) from None
    return {"contents": [{"uri": uri, "mimeType": "text/plain", "text": text}]}
