"""What is judged: each kind of server, behind each kind of endpoint, by each revision's set of requirements."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

ERAS = ("legacy", "silent", "dual", "modern")
SCOPES = ("tenant", "session")
ENDPOINTS = ("single", "aggregated")
REVISIONS = ("2025-11-25", "2026-07-28")


@dataclass(frozen=True, slots=True)
class Served:
    """One endpoint of the product: the era and scope of the server behind it, and whether it is one of many.

    Its name is that of the server, too: each has one to itself.
    """

    era: str
    scope: str
    endpoint: str

    @property
    def path(self) -> str:
        return f"/servers/{self}/mcp" if self.endpoint == "single" else f"/mcp/{self}"

    @property
    def is_plain(self) -> bool:
        """Whether nothing about it is chosen but the era of the server."""
        return (self.scope, self.endpoint) == (SCOPES[0], ENDPOINTS[0])

    @property
    def speaks(self) -> str:
        """The era in which the product speaks to the server."""
        return "modern" if self.era in ("dual", "modern") else "legacy"

    def __str__(self) -> str:
        return f"{self.era}-{self.scope}-{self.endpoint}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One endpoint as a client of one revision finds it."""

    served: Served
    revision: str

    def __str__(self) -> str:
        return f"{self.served}-{self.revision}"


def endpoints() -> Iterator[Served]:
    for scope, endpoint, era in product(SCOPES, ENDPOINTS, ERAS):
        yield Served(era, scope, endpoint)


CELLS = tuple(Cell(served, revision) for served in endpoints() for revision in REVISIONS)
