"""Cursors of ours: where a list goes on, sealed for whoever it was given to.

A cursor serves the tenant, the principal, the endpoint and the method that it was made for, and nobody else. What it
holds inside is a position in a merged list, or a server's own cursor with the process that made it.
"""

from dataclasses import dataclass
from typing import Literal

import msgspec

from mcphost.decisions.identity import Principal
from mcphost.decisions.paging import Position
from mcphost.decisions.sealing import SealBroken, Sealer


@dataclass(frozen=True, slots=True)
class Audience:
    """Who a cursor is for, and what it continues. `endpoint` is the path that names it."""

    principal: Principal
    endpoint: str
    method: str


@dataclass(frozen=True, slots=True)
class Own:
    """A server's own cursor as raw JSON, and the process that understands it."""

    instance: str
    cursor: str


class CursorBroken(Exception):
    """It is no cursor of ours, or is another's, or continues something else."""


class _Sealed(msgspec.Struct, array_like=True):
    tenant: str
    token_id: str
    endpoint: str
    method: str
    kind: Literal["merged", "own"]
    texts: tuple[str, str]
    offset: int = 0


_decoder = msgspec.json.Decoder(_Sealed)


def seal_cursor(sealer: Sealer, audience: Audience, position: Position | Own) -> str:
    """The cursor that continues there."""
    who = audience.principal
    made_for = (who.tenant, who.token_id, audience.endpoint, audience.method)
    if isinstance(position, Position):
        sealed = _Sealed(*made_for, "merged", (position.server, position.generation), position.offset)
    else:
        sealed = _Sealed(*made_for, "own", (position.instance, position.cursor))
    return sealer.seal("cursor", msgspec.json.encode(sealed))


def open_cursor(sealer: Sealer, audience: Audience, cursor: str | None) -> Position | Own:
    """Where a cursor goes on, for the audience that it was made for; None for what is no string.

    Raises:
        CursorBroken: forged, another's, or of another list.
    """
    if cursor is None:
        raise CursorBroken
    try:
        sealed = _decoder.decode(sealer.open("cursor", cursor))
    except (SealBroken, msgspec.DecodeError):
        raise CursorBroken from None
    made_for = Audience(Principal(sealed.tenant, sealed.token_id), sealed.endpoint, sealed.method)
    if made_for != audience:
        raise CursorBroken
    if sealed.kind == "merged":
        return Position(*sealed.texts, sealed.offset)
    return Own(*sealed.texts)
