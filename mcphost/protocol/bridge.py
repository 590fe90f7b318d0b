"""Carrying one call between eras: what changes in params, results and errors, and nothing else."""

from dataclasses import dataclass
from typing import Final

from msgspec import Raw

from mcphost import errors
from mcphost.errors import UpstreamProtocolError
from mcphost.protocol import jsonrpc, versions
from mcphost.protocol.envelope import (
    META_CAPABILITIES,
    META_CLIENT,
    META_LOG_LEVEL,
    META_PREFIX,
    META_SERVER,
    META_VERSION,
)
from mcphost.protocol.jsonrpc import EMPTY_OBJECT, ErrorObject, Fields
from mcphost.protocol.methods import CACHEABLE
from mcphost.protocol.versions import Era

RESOURCE_NOT_FOUND: Final = -32002  # 2025-11-25 and before; -32602 since (basic/index, "Error Codes")

# Parts of a request that only mean something between two parties that negotiated them; we declare neither
# multi round-trip requests nor tasks to a worker, so they have nobody to reach.
_NOT_CARRIED: Final = ("inputResponses", "requestState", "task")

_COMPLETE: Final = Raw(b'"complete"')
_PRIVATE: Final = Raw(b'"private"')
_ZERO: Final = Raw(b"0")
_MODERN_ONLY: Final = ("resultType", "ttlMs", "cacheScope")


@dataclass(frozen=True, slots=True)
class Eras:
    """Who speaks what in one call."""

    client: Era
    worker: Era


def to_worker(params: Fields, meta: Fields, eras: Eras, *, token: int | None, client_info: Raw) -> Fields:
    """The params that a worker of its era is sent.

    `token` is our progress token, None if the client asked for no progress. `client_info` stands in where
    the client told nothing of itself.
    """
    carried = {key: value for key, value in params.items() if key not in _NOT_CARRIED}
    carried.pop("_meta", None)
    if eras.worker == "modern":
        own = {key: value for key, value in meta.items() if key != META_LOG_LEVEL}
        own[META_VERSION] = Raw(b'"%b"' % versions.MODERN.encode())
        own[META_CAPABILITIES] = EMPTY_OBJECT
        own.setdefault(META_CLIENT, client_info)
    else:
        own = {key: value for key, value in meta.items() if not key.startswith(META_PREFIX)}
    own.pop("progressToken", None)
    if token is not None:
        own["progressToken"] = jsonrpc.raw(token)
    if own:
        carried["_meta"] = jsonrpc.raw(own)
    return carried


def to_client(method: str, result: Raw, eras: Eras, *, server_info: Raw) -> Raw:
    """The result that a client of its era is given.

    Raises:
        UpstreamProtocolError: the server's result is none.
        DownstreamProtocolError: -32021, the server needs input that this call cannot give it.
    """
    if not bytes(result).startswith(b"{"):
        raise UpstreamProtocolError("the server answered with a result that is no object")
    if eras.client == eras.worker == "legacy":
        return result
    try:
        members = jsonrpc.fields(result, "result")
        if eras.worker == "modern":
            _refuse_unfinished(members, eras.client)
        if eras.client == "legacy":
            return jsonrpc.raw(_without_modern(members))
        return jsonrpc.raw(modern_result(method, members, server_info))
    except jsonrpc.Malformed as error:
        raise UpstreamProtocolError(f"the server answered with a malformed result: {error}") from None


def modern_result(method: str, members: Fields, server_info: Raw) -> Fields:
    """A result with what the modern face owes: its type, who answered, and caching hints.

    Lists are cut to what the caller may see, so nothing of ours may be shared between callers: `private`.
    Every result carried is complete; what a legacy server wrote under that name means nothing in its era.
    """
    members["resultType"] = _COMPLETE
    meta = jsonrpc.fields(members.get("_meta", EMPTY_OBJECT), "_meta")
    meta.setdefault(META_SERVER, server_info)
    members["_meta"] = jsonrpc.raw(meta)
    if method in CACHEABLE:
        if not bytes(members.get("ttlMs", b"")).isdigit():
            members["ttlMs"] = _ZERO
        members["cacheScope"] = _PRIVATE
    return members


def error_to_client(error: ErrorObject, eras: Eras) -> ErrorObject:
    """The error that a client of its era is given.

    The modern text reserves codes for itself; a server of another era that uses one is not let through. To
    a legacy client they are a server's own codes (JSON-RPC 2.0, section 5.1; -32042 is one of 2025-11-25).
    """
    if eras.client == "legacy":
        return error
    if error.code == RESOURCE_NOT_FOUND:
        return ErrorObject(errors.INVALID_PARAMS, error.message, error.data)
    reserved = -32099 <= error.code <= -32020  # noqa: PLR2004
    if reserved and (eras.worker == "legacy" or error.code not in errors.MODERN_STATUS):
        return ErrorObject(errors.INTERNAL_ERROR, error.message, error.data)
    return error


def _refuse_unfinished(members: Fields, client: Era) -> None:
    kind = jsonrpc.text(members.get("resultType", _COMPLETE))
    if kind == "input_required" and client == "modern":
        raise errors.DownstreamProtocolError(
            errors.MISSING_CLIENT_CAPABILITY,
            "the server asks the client for input, which is not carried yet",
            data={"requiredCapabilities": {"elicitation": {}}},
        )
    if kind != "complete":
        raise UpstreamProtocolError(
            f"the server did not complete the call: its answer is {str(kind)[:100]!r}"
        )


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
