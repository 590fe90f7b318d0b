"""The log levels that clients name: with a request, or for a session."""

from msgspec import Raw

from mcphost import errors
from mcphost.broker.client import LegacySession
from mcphost.errors import DownstreamProtocolError
from mcphost.protocol import jsonrpc, loglevels
from mcphost.protocol.envelope import META_LOG_LEVEL, Inbound


def check(inbound: Inbound) -> None:
    """Refuse a level that is none (2026-07-28, server/utilities/logging, "Error Handling")."""
    if inbound.era == "modern" and META_LOG_LEVEL in inbound.meta:
        _level(inbound.meta[META_LOG_LEVEL], f'params._meta["{META_LOG_LEVEL}"]')


def keep(inbound: Inbound, session: LegacySession) -> Raw:
    """What a session wants to be told from now on (2025-11-25, server/utilities/logging, "Setting Log Level")."""
    session.log_level = _level(inbound.params.get("level"), "params.level")
    return jsonrpc.EMPTY_OBJECT


def _level(raw: Raw | None, where: str) -> str:
    level = jsonrpc.text(raw)
    if level is None or not loglevels.is_level(level):
        names = ", ".join(loglevels.LEVELS)
        raise DownstreamProtocolError(errors.INVALID_PARAMS, f"{where} must be one of {names}")
    return level
