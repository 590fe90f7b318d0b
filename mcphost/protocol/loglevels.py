"""The levels of log messages, least severe first (2025-11-25 and 2026-07-28, server/utilities/logging, "Log Levels")."""

from typing import Final

from mcphost.protocol import jsonrpc
from mcphost.protocol.jsonrpc import Fields

LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")

_SEVERITY: Final = {level: severity for severity, level in enumerate(LEVELS)}


def is_level(text: str | None) -> bool:
    """Whether it is the name of a level."""
    return text in _SEVERITY


def reaches(params: Fields, floor: str | None) -> bool:
    """Whether a log message is at or above a level; none is where nobody asked for any or its own level is none."""
    if floor is None:
        return False
    severity = _SEVERITY.get(jsonrpc.text(params.get("level")) or "")
    return severity is not None and severity >= _SEVERITY[floor]
