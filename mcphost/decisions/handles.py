"""What stands inside a sealed `requestState`: whose it is, what for, until when, and where the call goes on.

The seal says only that we made it. Here the rest is judged, as basic/patterns/mrtr of 2026-07-28 asks: the principal,
a short life, and the request that it was given to. It is valid for exactly one request, whatever else the client does.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec import Raw

Kind = Literal["worker", "parked"]

_SALIENT = ("name", "uri", "arguments")


class HandleRefused(Exception):
    """The handle is of another tenant, principal, endpoint or request, or its time is over."""


class Bound(msgspec.Struct, frozen=True, array_like=True):
    """The request that a state belongs to. `endpoint` is the path that names it."""

    tenant: str
    principal: str
    endpoint: str
    method: str
    digest: bytes


class StateHandle(msgspec.Struct, frozen=True, array_like=True):
    """Where a call goes on.

    `worker`: `place` is the process that the server's own state `inner` (raw JSON) was made by.
    `parked`: `place` is the id of a call that waits for its client; `inner` is empty.
    `expires_at` in monotonic seconds of this machine: what it points to does not outlive the runtime.
    """

    kind: Kind
    server: str
    place: str
    inner: bytes
    bound: Bound
    expires_at: float


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks, and through which endpoint."""

    tenant: str
    principal: str
    endpoint: str


def bind(who: Who, method: str, params: Mapping[str, Raw]) -> Bound:
    """What a state given in answer to this request is good for: the same method on the same item with the same arguments."""
    digest = hashlib.sha256()
    for key in _SALIENT:
        value = params.get(key)
        spelled = b"" if value is None else _canonical(value)
        digest.update(b"%d:%b" % (len(spelled), spelled))
    return Bound(who.tenant, who.principal, who.endpoint, method, digest.digest())


def encode(handle: StateHandle) -> bytes:
    """The payload to be sealed."""
    return msgspec.msgpack.encode(handle)


def decode(payload: bytes, bound: Bound, *, now: float) -> StateHandle:
    """The handle in a payload that was sealed by us, for a request that it must belong to.

    Raises:
        HandleRefused: it does not belong to it, or its time is over.
    """
    try:
        handle = msgspec.msgpack.decode(payload, type=StateHandle)
    except msgspec.DecodeError:
        raise HandleRefused from None  # of another version of ours
    if handle.bound != bound or handle.expires_at <= now:
        raise HandleRefused
    return handle


def _canonical(raw: Raw) -> bytes:
    """One spelling for equal values: a client may write its request anew. What cannot be read stands for itself."""
    try:
        return msgspec.json.encode(msgspec.json.decode(raw), order="deterministic")
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return bytes(raw)
