"""Ids of tasks: where a task lives, sealed for whoever it was given to.

A task is state of one process. Its id leads there and nowhere else, and serves the principal and the endpoint that it
was given to; what a server calls the task never leaves the runtime.
"""

from dataclasses import dataclass

import msgspec

from mcphost.decisions.identity import Principal
from mcphost.decisions.sealing import SealBroken, Sealer


@dataclass(frozen=True, slots=True)
class Holder:
    """Who a task was given to. `endpoint` is the path that names it."""

    principal: Principal
    endpoint: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task lives: the server, its process, and the id that the process gave it."""

    server: str
    instance: str
    task: str


class TaskUnknown(Exception):
    """It is the id of no task of this holder's."""


class _Sealed(msgspec.Struct, array_like=True):
    tenant: str
    token_id: str
    endpoint: str
    server: str
    instance: str
    task: str


_decoder = msgspec.msgpack.Decoder(_Sealed)


def seal_task(sealer: Sealer, holder: Holder, place: Place) -> str:
    """The id under which its holder knows a task: visible ASCII, for it travels in a header, too."""
    who = holder.principal
    sealed = _Sealed(who.tenant, who.token_id, holder.endpoint, place.server, place.instance, place.task)
    return sealer.seal("task", msgspec.msgpack.encode(sealed))


def open_task(sealer: Sealer, holder: Holder, identifier: str) -> Place:
    """Where the task of an id lives.

    Raises:
        TaskUnknown: forged, or another's.
    """
    try:
        sealed = _decoder.decode(sealer.open("task", identifier))
    except (SealBroken, msgspec.DecodeError):
        raise TaskUnknown from None
    if Holder(Principal(sealed.tenant, sealed.token_id), sealed.endpoint) != holder:
        raise TaskUnknown
    return Place(sealed.server, sealed.instance, sealed.task)
