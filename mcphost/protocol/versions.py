"""The protocol revisions spoken, and which era each belongs to (2026-07-28, basic/versioning)."""

from typing import Final, Literal

Era = Literal["legacy", "modern"]

MODERN: Final = "2026-07-28"
LATEST_LEGACY: Final = "2025-11-25"

# Newest first. 2025-03-26 is left out on purpose: it obliges a receiver to take batches, which every later
# revision forbids. A client that asks for it is offered the latest legacy revision, as the handshake allows.
LEGACY_VERSIONS: Final = ("2025-11-25", "2025-06-18", "2024-11-05")

# Legacy header values that are let in though not offered: the header only repeats what was negotiated.
LEGACY_HEADERS: Final = frozenset({*LEGACY_VERSIONS, "2025-03-26"})

SUPPORTED: Final = (MODERN, *LEGACY_VERSIONS)


def negotiate_legacy(requested: str | None) -> str:
    """The revision answered to `initialize`: the one asked for where we speak it, else our latest.

    Source: 2025-11-25, basic/lifecycle, "Version Negotiation".
    """
    return requested if requested in LEGACY_VERSIONS else LATEST_LEGACY


def era_of_header(version: str | None) -> Era:
    """The era that an `MCP-Protocol-Version` header selects; without one the request is legacy."""
    return "legacy" if version is None or version in LEGACY_HEADERS else "modern"


def is_spoken(version: str) -> bool:
    """Whether an `MCP-Protocol-Version` header names a revision that is let in."""
    return version == MODERN or version in LEGACY_HEADERS
