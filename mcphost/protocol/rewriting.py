"""The URIs inside results and items: an endpoint of many servers shows each as its lists do.

Contents of resources, embedded resources, links, and the page of a tool's MCP App. All else stays as it was.
"""

from msgspec import Raw

from mcphost.errors import UpstreamProtocolError
from mcphost.protocol import jsonrpc
from mcphost.protocol.jsonrpc import EMPTY_OBJECT, Fields
from mcphost.protocol.naming import Names

# Where a tool names the page that shows its results (MCP Apps): `_meta.ui.resourceUri`, and its older, flat spelling.
_APP = "ui"
_APP_URI = "resourceUri"
_APP_FLAT = "ui/resourceUri"


def expose_uris(names: Names, server: str, result: Raw) -> Raw:
    """A result of a tool, prompt or resource with its URIs exposed.

    Raises:
        UpstreamProtocolError: the server's result has another form.
    """
    data = bytes(result)
    # JSON may also spell the letters of a key as \u0075 and so on.
    if names.bare or (b'"uri"' not in data and b"\\u00" not in data):
        return result
    try:
        members = jsonrpc.fields(result, "result")
        if "contents" in members:
            contents = jsonrpc.objects(members["contents"], "contents")
            members["contents"] = jsonrpc.raw([_exposed(names, server, item) for item in contents])
        if "content" in members:
            blocks = jsonrpc.objects(members["content"], "content")
            members["content"] = jsonrpc.raw([_block(names, server, block) for block in blocks])
        if "messages" in members:
            members["messages"] = jsonrpc.raw(_messages(names, server, members["messages"]))
    except jsonrpc.Malformed as error:
        raise UpstreamProtocolError(f"the server answered with a malformed result: {error}") from None
    return jsonrpc.raw(members)


def expose_error(data: bytes, own: str, shown: Raw | None) -> bytes:
    """The data of a server's error, raw JSON, in which the resource that a request named is called as the client does.

    `own` is the server's name of it, `shown` the client's, None where the request named none. All else is left.
    """
    if shown is None or b'"uri"' not in data:
        return data
    try:
        members = jsonrpc.fields(Raw(data))
    except jsonrpc.Malformed:
        return data
    if jsonrpc.text(members.get("uri")) != own:
        return data
    return bytes(jsonrpc.raw({**members, "uri": shown}))


def expose_app(names: Names, server: str, tool: Fields) -> None:
    """Expose the URI of the page that a tool's results are shown in, if it names one; `tool` is changed."""
    if names.bare or "_meta" not in tool:
        return
    try:
        meta = jsonrpc.fields(tool["_meta"])
        if _APP in meta:
            meta[_APP] = jsonrpc.raw(_exposed(names, server, jsonrpc.fields(meta[_APP]), _APP_URI))
    except jsonrpc.Malformed:
        return  # whatever it is, it is no MCP App
    tool["_meta"] = jsonrpc.raw(_exposed(names, server, meta, _APP_FLAT))


def _messages(names: Names, server: str, messages: Raw) -> list[Fields]:
    rewritten = jsonrpc.objects(messages, "messages")
    for message in rewritten:
        if "content" in message:
            content = jsonrpc.fields(message["content"], "content")
            message["content"] = jsonrpc.raw(_block(names, server, content))
    return rewritten


def _block(names: Names, server: str, block: Fields) -> Fields:
    kind = jsonrpc.text(block.get("type"))
    if kind == "resource_link":
        return _exposed(names, server, block)
    if kind == "resource":
        resource = jsonrpc.fields(block.get("resource", EMPTY_OBJECT), "resource")
        block["resource"] = jsonrpc.raw(_exposed(names, server, resource))
    return block


def _exposed(names: Names, server: str, item: Fields, key: str = "uri") -> Fields:
    uri = jsonrpc.text(item.get(key))
    if uri is not None:
        item[key] = jsonrpc.raw(names.expose(server, "uri", uri))
    return item
