"""Lists, resources, prompts, completions, and the levels and subscriptions of legacy wires."""

import binascii
import json
import struct
import zlib
from collections.abc import Generator
from typing import TYPE_CHECKING

from fixture_parts.calls import TOOLS, Call
from fixture_parts.changes import refuse_foreign
from fixture_parts.wire import INVALID_PARAMS, LEVELS, RESOURCE_NOT_FOUND, STRING, Ask, RpcError, elicit

if TYPE_CHECKING:
    from fixture_parts.server import Server

RESOURCE_PAGE = 2
TEXTS = {f"fixture://text/{number}": f"text {number}" for number in range(1, 6)}
BINARY = "fixture://binary"
BINARY_BYTES = bytes(range(256))
GREETING = "fixture://greeting/{name}"
GUARDED = "fixture://guarded"
STYLES = ("formal", "friendly", "terse")

# What the official suite asks for by name.
STATIC_TEXT, STATIC_BINARY, WATCHED = "test://static-text", "test://static-binary", "test://watched-resource"
NUMBERED_START, NUMBERED_END = "test://template/", "/data"


def red_dot() -> str:
    """A PNG of one red pixel, in base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\x00\xff\x00\x00")
    image = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return binascii.b2a_base64(image, newline=False).decode()


def silence() -> str:
    """A WAV file of eight silent samples, in base64."""
    form = struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8)
    data = b"\x80" * 8
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    return binascii.b2a_base64(b"RIFF" + struct.pack("<I", len(body)) + body, newline=False).decode()


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
    extra = [
        {"name": name, "description": "Came later.", "inputSchema": {"type": "object"}}
        for name in server.extra_tools
    ]
    page, more = page_of([item.declaration for item in TOOLS.values()] + extra, call.params, server.page_size)
    return {"tools": page} | more


def list_resources(server: "Server", call: Call) -> dict:
    items = [{"uri": uri, "name": uri.rsplit("/", 1)[1], "mimeType": "text/plain"} for uri in TEXTS]
    items.append(
        {"uri": BINARY, "name": "binary", "mimeType": "application/octet-stream", "size": len(BINARY_BYTES)}
    )
    items += [
        {"uri": STATIC_TEXT, "name": "static-text", "mimeType": "text/plain"},
        {"uri": STATIC_BINARY, "name": "static-binary", "mimeType": "image/png"},
        {"uri": WATCHED, "name": "watched-resource", "mimeType": "text/plain"},
    ]
    page, more = page_of(items, call.params, server.page_size or RESOURCE_PAGE)
    return {"resources": page} | more


def list_templates(server: "Server", call: Call) -> dict:
    items = [
        {"uriTemplate": GREETING, "name": "greeting", "mimeType": "text/plain"},
        {
            "uriTemplate": f"{NUMBERED_START}{{id}}{NUMBERED_END}",
            "name": "numbered",
            "mimeType": "application/json",
        },
    ]
    page, more = page_of(items, call.params, server.page_size)
    return {"resourceTemplates": page} | more


def read_resource(server: "Server", call: Call) -> dict | Generator:
    uri = call.params.get("uri")
    if uri == GUARDED:
        return read_guarded(call)
    contents = contents_of(uri) if isinstance(uri, str) else None
    if contents is None:
        code = INVALID_PARAMS if server.era == "modern" else RESOURCE_NOT_FOUND
        raise RpcError(code, "Resource not found", {"uri": uri})
    return {"contents": [{"uri": uri} | contents]}


def contents_of(uri: str) -> dict | None:
    prefix = GREETING.partition("{")[0]
    if uri in TEXTS:
        return {"mimeType": "text/plain", "text": TEXTS[uri]}
    if uri == BINARY:
        blob = binascii.b2a_base64(BINARY_BYTES, newline=False).decode()
        return {"mimeType": "application/octet-stream", "blob": blob}
    if uri.startswith(prefix) and len(uri) > len(prefix):
        return {"mimeType": "text/plain", "text": f"Hello, {uri[len(prefix) :]}"}
    if uri.startswith(NUMBERED_START) and uri.endswith(NUMBERED_END):
        number = uri[len(NUMBERED_START) : -len(NUMBERED_END)]
        data = {"id": number, "templateTest": True, "data": f"Data for ID: {number}"}
        return {"mimeType": "application/json", "text": json.dumps(data)}
    return {
        STATIC_TEXT: {"mimeType": "text/plain", "text": "This is the content of the static text resource."},
        STATIC_BINARY: {"mimeType": "image/png", "blob": red_dot()},
        WATCHED: {"mimeType": "text/plain", "text": "Nothing happens here."},
    }.get(uri)


def read_guarded(_call: Call) -> Generator:
    """A resource that is in no list and shows what the client says when asked."""
    answers = yield Ask({"why": elicit("Why do you want to read this?", reason=STRING)})
    shown = {"uri": GUARDED, "mimeType": "application/json", "text": json.dumps(answers["why"])}
    return {"contents": [shown]}


def argument(name: str, description: str, *, required: bool = True) -> dict:
    return {"name": name, "description": description, "required": required}


PROMPTS = [
    {"name": "simple", "description": "Takes nothing."},
    {
        "name": "greet",
        "description": "Greets somebody.",
        "arguments": [
            argument("name", "Whom to greet"),
            argument("style", "How to greet", required=False),
        ],
    },
    {"name": "test_simple_prompt", "description": "A fixed text."},
    {
        "name": "test_prompt_with_arguments",
        "description": "Shows its arguments.",
        "arguments": [argument("arg1", "The first"), argument("arg2", "The second")],
    },
    {
        "name": "test_prompt_with_embedded_resource",
        "description": "Embeds a resource.",
        "arguments": [argument("resourceUri", "Which")],
    },
    {"name": "test_prompt_with_image", "description": "Holds an image."},
    {"name": "test_input_required_result_prompt", "description": "Asks the client first."},
]


def list_prompts(server: "Server", call: Call) -> dict:
    extra = [{"name": name, "description": "Came later."} for name in server.extra_prompts]
    page, more = page_of(PROMPTS + extra, call.params, server.page_size)
    return {"prompts": page} | more


def get_prompt(server: "Server", call: Call) -> dict | Generator:
    name = call.params.get("name")
    described = next((prompt for prompt in PROMPTS if prompt["name"] == name), None)
    if name in server.extra_prompts:
        described = {"name": name}
    if described is None:
        raise RpcError(INVALID_PARAMS, f"Unknown prompt: {name}")
    for needed in described.get("arguments", ()):
        if needed["required"] and needed["name"] not in call.arguments:
            raise RpcError(INVALID_PARAMS, f"Missing argument: {needed['name']}")
    if name == "test_input_required_result_prompt":
        return ask_for_context()
    return prompt_of(name, [said(each) for each in said_by(name, call.arguments)])


def said_by(name: str, arguments: dict) -> list[str | dict]:
    """What the messages of a prompt hold."""
    if name == "greet":
        return [f"Greet {arguments['name']} in a {arguments.get('style', 'plain')} style."]
    if name == "test_prompt_with_arguments":
        return [f"Prompt with arguments: arg1='{arguments['arg1']}', arg2='{arguments['arg2']}'"]
    if name == "test_prompt_with_embedded_resource":
        content = "Embedded resource content for testing."
        embedded = {"uri": arguments["resourceUri"], "mimeType": "text/plain", "text": content}
        return [{"type": "resource", "resource": embedded}, "Please process the embedded resource above."]
    if name == "test_prompt_with_image":
        image = {"type": "image", "data": red_dot(), "mimeType": "image/png"}
        return [image, "Please analyze the image above."]
    return ["This is a simple prompt for testing." if name == "test_simple_prompt" else "Say something."]


def said(content: str | dict) -> dict:
    return {
        "role": "user",
        "content": {"type": "text", "text": content} if isinstance(content, str) else content,
    }


def prompt_of(name: str, messages: list[dict]) -> dict:
    return {"description": name, "messages": messages}


def ask_for_context() -> Generator:
    question = elicit("What context should the prompt use?", context=STRING)
    answers = yield Ask({"user_context": question}, stateful=False)
    context = (answers["user_context"].get("content") or {}).get("context")
    return prompt_of("test_input_required_result_prompt", [said(f"Use this context: {context}")])


def complete(_server: "Server", call: Call) -> dict:
    ref, named = call.params.get("ref") or {}, call.params.get("argument") or {}
    known = {
        ("greet", "style"): STYLES,
        ("greet", "name"): ("Ada", "Alan"),
        (GREETING, "name"): ("Ada", "Grace"),
        ("test_prompt_with_arguments", "arg1"): ("paris", "park", "party"),
    }
    choices = known.get((ref.get("name") or ref.get("uri"), named.get("name")))
    if choices is None:
        raise RpcError(INVALID_PARAMS, "Nothing to complete there")
    values = [choice for choice in choices if choice.startswith(named.get("value", ""))]
    return {"completion": {"values": values, "total": len(values), "hasMore": False}}


def set_level(server: "Server", call: Call) -> dict:
    level = call.params.get("level")
    if level not in LEVELS:
        raise RpcError(INVALID_PARAMS, f"Unknown level: {level}")
    server.log_level = level
    return {}


def subscribe(server: "Server", call: Call) -> dict:
    refuse_foreign(call.params.get("uri"))
    server.subscribed.add(call.params.get("uri"))
    return {}


def unsubscribe(server: "Server", call: Call) -> dict:
    server.subscribed.discard(call.params.get("uri"))
    return {}


COMMON = {
    "tools/list": list_tools,
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
