"""What one client sees of one server or of many: names, lists cut to what is allowed, merged answers.

On an endpoint that serves many servers a tool or prompt is exposed as `server__name` and a resource as
`server+uri`. Neither separator can occur in a server's name, so an exposed name has one reading. On the
endpoint of a single server every name is the server's own.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec import Raw

from mcphost.errors import UpstreamProtocolError
from mcphost.protocol import jsonrpc
from mcphost.protocol.jsonrpc import EMPTY_OBJECT, Fields
from mcphost.protocol.methods import ListMethod

NAME_SEPARATOR: Final = "__"
URI_SEPARATOR: Final = "+"

MAX_INSTRUCTIONS: Final = 16_384  # characters; what many servers say together goes into a model's context

_FEATURES: Final = ("tools", "resources", "prompts", "completions")


def expose(server: str, key: str, name: str) -> str:
    """The name or URI under which many servers' endpoint shows an item; `key` is the member that names it."""
    return f"{server}{NAME_SEPARATOR if key == 'name' else URI_SEPARATOR}{name}"


def split(key: str, exposed: str, servers: Iterable[str]) -> tuple[str, str] | None:
    """The server and its own name behind an exposed name or URI; None if it names no server.

    A URI scheme is case-insensitive (RFC 3986, section 3.1) and some clients lower it.
    """
    prefix, separator, name = exposed.partition(NAME_SEPARATOR if key == "name" else URI_SEPARATOR)
    if not separator:
        return None
    for server in servers:
        if server == prefix or (key != "name" and server.lower() == prefix.lower()):
            return server, name
    return None


def capabilities(offered: Iterable[Fields]) -> dict[str, dict[str, object]]:
    """The capabilities of an endpoint: the features that any of its servers has.

    Sub-capabilities (listChanged, subscribe) and all else are left out: what is not carried is not promised.
    """
    present = {feature for each in offered for feature in _FEATURES if feature in each}
    return {feature: {} for feature in _FEATURES if feature in present}


def instructions(parts: Sequence[tuple[str, str | None]]) -> str | None:
    """What several servers advise, each under its name, cut to a bound."""
    sections = [f"## {server}\n\n{text}" for server, text in parts if text]
    return "\n\n".join(sections)[:MAX_INSTRUCTIONS] or None


def visible(
    items: Iterable[Fields], method: ListMethod, allowed: Callable[[str], bool], prefix: str | None
) -> list[Fields]:
    """The items that a tenant may see, renamed where `prefix` names the server they come from.

    An item without a name is dropped, for nobody could be asked whether it is allowed. `execution` is
    dropped because it offers task execution, which is not carried.
    """
    shown = []
    for item in items:
        name = jsonrpc.text(item.get(method.key))
        if name is None or not allowed(name):
            continue
        item.pop("execution", None)
        if prefix is not None:
            item[method.key] = jsonrpc.raw(expose(prefix, method.key, name))
        shown.append(item)
    return shown


def page(result: Raw, method: ListMethod) -> tuple[Fields, list[Fields]]:
    """A list result as its members and its items.

    Raises:
        UpstreamProtocolError: it is no such list.
    """
    try:
        members = jsonrpc.fields(result, "result")
        return members, jsonrpc.objects(members.get(method.member), method.member)
    except jsonrpc.Malformed as error:
        raise UpstreamProtocolError(f"the server answered with a malformed list: {error}") from None


def rewrite_uris(server: str, result: Raw) -> Raw:
    """Expose the URIs inside a result of a tool, prompt or resource: contents, embedded resources, links.

    Everything else in the result is left as it was.
    """
    data = bytes(result)
    # JSON may also spell the letters of a key as \u0075 and so on.
    if b'"uri"' not in data and b"\\u00" not in data:
        return result
    try:
        members = jsonrpc.fields(result, "result")
        if "contents" in members:
            contents = jsonrpc.objects(members["contents"], "contents")
            members["contents"] = jsonrpc.raw([_exposed(server, item) for item in contents])
        if "content" in members:
            members["content"] = jsonrpc.raw(_blocks(server, members["content"]))
        if "messages" in members:
            members["messages"] = jsonrpc.raw(_messages(server, members["messages"]))
    except jsonrpc.Malformed as error:
        raise UpstreamProtocolError(f"the server answered with a malformed result: {error}") from None
    return jsonrpc.raw(members)


def _messages(server: str, messages: Raw) -> list[Fields]:
    rewritten = jsonrpc.objects(messages, "messages")
    for message in rewritten:
        if "content" in message:
            message["content"] = jsonrpc.raw(_block(server, jsonrpc.fields(message["content"], "content")))
    return rewritten


def _blocks(server: str, content: Raw) -> list[Fields]:
    return [_block(server, block) for block in jsonrpc.objects(content, "content")]


def _block(server: str, block: Fields) -> Fields:
    kind = jsonrpc.text(block.get("type"))
    if kind == "resource_link":
        return _exposed(server, block)
    if kind == "resource":
        resource = jsonrpc.fields(block.get("resource", EMPTY_OBJECT), "resource")
        block["resource"] = jsonrpc.raw(_exposed(server, resource))
    return block


def _exposed(server: str, item: Fields) -> Fields:
    uri = jsonrpc.text(item.get("uri"))
    if uri is not None:
        item["uri"] = jsonrpc.raw(expose(server, "uri", uri))
    return item
