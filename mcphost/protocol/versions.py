"""The protocol revisions spoken, and which era each belongs to (2026-07-28, basic/versioning)."""

from typing import Final, Literal

Era = Literal["legacy", "modern"]

MODERN: Final = "2026-07-28"
LATEST_LEGACY: Final = "2025-11-25"

# Newest first. 2025-03-26 is left out on purpose: it obliges a receiver to take batches, which every later
# revision forbids. A client that asks for it gets it all the same, since many know nothing newer and none that we know
# sends batches; a batch is refused.
LEGACY_VERSIONS: Final = ("2025-11-25", "2025-06-18", "2024-11-05")

# What a client may ask for, and repeats in its header; more than what is offered.
LEGACY_HEADERS: Final = frozenset({*LEGACY_VERSIONS, "2025-03-26"})

SUPPORTED: Final = (MODERN, *LEGACY_VERSIONS)


def negotiate_legacy(requested: str | None) -> str:
    """The revision answered to `initialize`: the one asked for where we let it in, else our latest.

    Source: 2025-11-25, basic/lifecycle, "Version Negotiation".
    """
    return requested if requested is not None and requested in LEGACY_HEADERS else LATEST_LEGACY


def era_of_header(version: str | None) -> Era:
    """The era that an `MCP-Protocol-Version` header selects; without one the request is legacy."""
    return "legacy" if version is None or version in LEGACY_HEADERS else "modern"


def is_spoken(version: str) -> bool:
    """Whether an `MCP-Protocol-Version` header names a revision that is let in."""
    return version == MODERN or version in LEGACY_HEADERS
