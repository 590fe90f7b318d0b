"""Carrying one call between eras: what changes in params, results and errors, and nothing else."""

from dataclasses import dataclass, field
from typing import Final

from msgspec import Raw

from mcphost import errors
from mcphost.errors import UpstreamProtocolError
from mcphost.protocol import inputs, jsonrpc, versions
from mcphost.protocol.envelope import (
    META_CAPABILITIES,
    META_CLIENT,
    META_LOG_LEVEL,
    META_PREFIX,
    META_SERVER,
    META_VERSION,
)
from mcphost.protocol.inputs import InputRequest
from mcphost.protocol.jsonrpc import EMPTY_OBJECT, ErrorObject, Fields
from mcphost.protocol.methods import CACHEABLE
from mcphost.protocol.versions import Era

RESOURCE_NOT_FOUND: Final = -32002  # 2025-11-25 and before; -32602 since (basic/index, "Error Codes")

URL_ELICITATION_REQUIRED: Final = (
    -32042
)  # 2025-11-25 only (client/elicitation, "URL Elicitation Required Error")

# Parts of a request that mean something to whoever gave them their meaning and to nobody else. Rounds are ours to
# carry (`Told.rounds`); tasks of the older era are declared to no worker.
_NOT_CARRIED: Final = ("inputResponses", "requestState", "task")

_COMPLETE: Final = Raw(b'"complete"')
_PRIVATE: Final = Raw(b'"private"')
_ZERO: Final = Raw(b"0")
_CACHING: Final = ("ttlMs", "cacheScope")
_MODERN_ONLY: Final = ("resultType", *_CACHING)


@dataclass(frozen=True, slots=True)
class Eras:
    """Who speaks what in one call."""

    client: Era
    worker: Era


@dataclass(frozen=True, slots=True)
class Told:
    """What a modern worker is told of the client behind one request, besides who it is.

    `rounds` is what a repeated request carries: the client's answers, and the server's own state.
    """

    capabilities: Raw = field(default_factory=lambda: EMPTY_OBJECT)
    log_level: str | None = None
    rounds: Fields = field(default_factory=dict)


_NOTHING: Final = Told()


def to_worker(
    params: Fields, meta: Fields, eras: Eras, *, token: int | None, client_info: Raw, told: Told = _NOTHING
) -> Fields:
    """The params that a worker of its era is sent.

    `token` is our progress token, None if the client asked for no progress. `client_info` stands in where
    the client told nothing of itself in the request.
    """
    carried = {key: value for key, value in params.items() if key not in _NOT_CARRIED}
    carried.pop("_meta", None)
    if eras.client == eras.worker == "modern":
        own = dict(meta)
    else:
        own = {key: value for key, value in meta.items() if not key.startswith(META_PREFIX)}
    if eras.worker == "modern":
        carried.update(told.rounds)
        own[META_VERSION] = Raw(b'"%b"' % versions.MODERN.encode())
        own[META_CAPABILITIES] = told.capabilities
        own.setdefault(META_CLIENT, client_info)
        own.pop(META_LOG_LEVEL, None)
        if told.log_level is not None:
            own[META_LOG_LEVEL] = jsonrpc.raw(told.log_level)
    own.pop("progressToken", None)
    if token is not None:
        own["progressToken"] = jsonrpc.raw(token)
    if own:
        carried["_meta"] = jsonrpc.raw(own)
    return carried


def to_client(
    method: str,
    result: Raw,
    eras: Eras,
    *,
    server_info: Raw,
    extended: bool = False,
    may_be_kept: bool = True,
) -> Raw:
    """The result that a client of its era is given.

    `extended` says that client and server share an extension, so that a type of result that we do not know is theirs.
    One that may not be kept is stale at once, whatever the server grants.

    Raises:
        UpstreamProtocolError: the server's result is none, or does not complete the request.
    """
    if not bytes(result).startswith(b"{"):
        raise UpstreamProtocolError("the server answered with a result that is no object")
    if eras.client == eras.worker == "legacy":
        return result
    try:
        members = jsonrpc.fields(result, "result")
        kind = _kind(members) if eras.worker == "modern" else "complete"
        if kind != "complete" and (kind == inputs.KIND or not extended or eras.client == "legacy"):
            raise UpstreamProtocolError(f"the server did not complete the call: its answer is {kind[:100]!r}")
        if eras.client == "legacy":
            return jsonrpc.raw(_without_modern(members))
        if not may_be_kept:
            members.pop("ttlMs", None)
        return jsonrpc.raw(modern_result(method, members, server_info, kind))
    except jsonrpc.Malformed as error:
        raise UpstreamProtocolError(f"the server answered with a malformed result: {error}") from None


def asks_for_input(result: Raw, eras: Eras) -> Fields | None:
    """The members of a modern server's result that asks for input first; None for every other result.

    Raises:
        UpstreamProtocolError: the result is malformed.
    """
    if eras.worker == "legacy":
        return None
    data = bytes(result)
    if inputs.KIND.encode() not in data and b"\\u00" not in data:
        return None  # seen without reading it: results can be long, and nearly all are complete
    try:
        members = jsonrpc.fields(result, "result")
    except jsonrpc.Malformed as error:
        raise UpstreamProtocolError(f"the server answered with a malformed result: {error}") from None
    return members if _kind(members) == inputs.KIND else None


def _kind(members: Fields) -> str:
    """The type of a modern result; one without is complete (2026-07-28, basic/index, "Responses")."""
    return str(jsonrpc.text(members.get("resultType", _COMPLETE)))


def modern_result(method: str, members: Fields, server_info: Raw, kind: str = "complete") -> Fields:
    """A result with what the modern face owes: its type, who answered, and caching hints.

    Lists are cut to what the caller may see, so nothing of ours may be shared between callers: `private`.
    The type is not what the server wrote under that name, which means nothing in the older era.
    """
    members["resultType"] = jsonrpc.raw(kind)
    meta = jsonrpc.fields(members.get("_meta", EMPTY_OBJECT), "_meta")
    meta.setdefault(META_SERVER, server_info)
    members["_meta"] = jsonrpc.raw(meta)
    if method in CACHEABLE and kind == "complete":
        if not bytes(members.get("ttlMs", b"")).isdigit():
            members["ttlMs"] = _ZERO
        members["cacheScope"] = _PRIVATE
    elif kind == inputs.KIND:
        for hint in _CACHING:
            members.pop(hint, None)  # questions are for this client and this once
    return members


def error_to_client(error: ErrorObject, eras: Eras, *, uri: Raw | None = None) -> ErrorObject:
    """The error that a client of its era is given. `uri` is the resource that was asked for, by the client's name of it.

    The modern text reserves codes for itself; a server of another era that uses one is not let through. To
    a legacy client they are a server's own codes (JSON-RPC 2.0, section 5.1; -32042 is one of 2025-11-25).
    """
    if eras.client == "legacy":
        return error
    if error.code == RESOURCE_NOT_FOUND:
        return ErrorObject(errors.INVALID_PARAMS, error.message, _naming(uri, error.data))
    reserved = -32099 <= error.code <= -32020  # noqa: PLR2004
    if reserved and (eras.worker == "legacy" or error.code not in errors.MODERN_STATUS):
        return ErrorObject(errors.INTERNAL_ERROR, error.message, error.data)
    return error


def share_extension(client: Raw, server: Fields) -> bool:
    """Whether capabilities of a client and of a server name a common extension (2026-07-28, basic/extensions)."""
    if "extensions" not in server:
        return False
    try:
        theirs = jsonrpc.fields(jsonrpc.fields(client).get("extensions", EMPTY_OBJECT))
        return bool(theirs.keys() & jsonrpc.fields(server["extensions"]).keys())
    except jsonrpc.Malformed:
        return False


def _naming(uri: Raw | None, data: Raw) -> Raw:
    """The data of an unknown resource's error: which one it was (2026-07-28, server/resources, "Error Handling")."""
    if uri is None:
        return data
    try:
        members = jsonrpc.fields(data, "data")
    except jsonrpc.Malformed:
        members = {}
    return jsonrpc.raw({**members, "uri": uri})


def elicitations(error: ErrorObject) -> dict[str, InputRequest] | None:
    """The questions that error -32042 of a legacy server stands for, by keys of ours; None for any other error.

    They are questions by URL, which a modern client is asked in a result; the call is then made anew.
    """
    if error.code != URL_ELICITATION_REQUIRED:
        return None
    try:
        listed = jsonrpc.objects(jsonrpc.fields(error.data, "data").get("elicitations"), "elicitations")
    except jsonrpc.Malformed:
        return None
    found = {}
    for number, each in enumerate(listed[: inputs.MAX_QUESTIONS], start=1):
        members = {key: value for key, value in each.items() if key != "elicitationId"}
        members["mode"] = Raw(b'"url"')
        found[f"elicitation-{number}"] = InputRequest("elicitation/create", jsonrpc.raw(members))
    return found or None


def _without_modern(members: Fields) -> Fields:
    for key in _MODERN_ONLY:
        members.pop(key, None)
    if "_meta" in members:
        meta = jsonrpc.fields(members["_meta"], "_meta")
        meta.pop(META_SERVER, None)
        if meta:
            members["_meta"] = jsonrpc.raw(meta)
        else:
            del members["_meta"]
    return members
