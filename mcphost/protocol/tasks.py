"""The tasks extension of 2026-07-28 (SEP-2663): calls that are answered with a task, which is asked about later.

It passes between a client and a server of that revision. The tasks of 2025-11-25 are another thing, which nothing
translates: they are hidden.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Raw

from mcphost.errors import UpstreamProtocolError
from mcphost.protocol import jsonrpc, rewriting
from mcphost.protocol.jsonrpc import Fields
from mcphost.protocol.naming import Names

EXTENSION: Final = "io.modelcontextprotocol/tasks"
TASK_ID: Final = "taskId"

# The id that a client is given holds the server's, a third longer, and is sent in a header each time.
MAX_ID_CHARACTERS: Final = 1024

_KIND: Final = "task"
_RESULT: Final = "result"


def created(result: Raw) -> str | None:
    """The server's id of the task that a call was answered with; None for any other result.

    Raises:
        UpstreamProtocolError: it is a task without a usable id, or no result.
    """
    if not is_task(result):
        return None
    identifier = jsonrpc.text(_members(result).get(TASK_ID))
    if identifier is None or len(identifier) > MAX_ID_CHARACTERS:
        raise UpstreamProtocolError(
            f"the server gave a task without an id of at most {MAX_ID_CHARACTERS} characters"
        )
    return identifier


def is_task(result: Raw) -> bool:
    """Whether a server of 2026-07-28 answered a call with a task."""
    data = bytes(result)
    if b'"task"' not in data and b"\\u00" not in data:
        return False  # seen without reading it: results can be long, and most are no tasks
    try:
        return jsonrpc.text(jsonrpc.fields(result).get("resultType")) == _KIND
    except jsonrpc.Malformed:
        return False


def shown(result: Raw, identifier: str, names: Names, server: str) -> Raw:
    """A result that tells of a task, under the client's id of it, with the URIs in the task's own result exposed.

    Raises:
        UpstreamProtocolError: the server's result is malformed.
    """
    return jsonrpc.raw(shown_members(_members(result), identifier, names, server))


def shown_members(members: Fields, identifier: str, names: Names, server: str) -> Fields:
    """The same for what is cut apart already: a result's members, or the params of `notifications/tasks`."""
    members = dict(members)
    if TASK_ID in members:
        members[TASK_ID] = jsonrpc.raw(identifier)
    if _RESULT in members:
        members[_RESULT] = rewriting.expose_uris(names, server, members[_RESULT])
    return members


def declares(capabilities: Mapping[str, Raw], extension: str = EXTENSION) -> bool:
    """Whether capabilities name an extension."""
    try:
        extensions = capabilities.get("extensions")
        return extensions is not None and extension in jsonrpc.fields(extensions)
    except jsonrpc.Malformed:
        return False


def declared(capabilities: Raw) -> bool:
    """Whether a client's capabilities name the extension; they are as the client wrote them."""
    try:
        return declares(jsonrpc.fields(capabilities))
    except jsonrpc.Malformed:
        return False


def _members(result: Raw) -> Fields:
    try:
        return jsonrpc.fields(result, "result")
    except jsonrpc.Malformed as error:
        raise UpstreamProtocolError(f"the server answered with a malformed result: {error}") from None
