"""What is not clean, cell by cell, and why. A name comes off when its scenario passes; the test sees to it that it does."""

from collections.abc import Mapping
from typing import Final

from conformance.cells import Cell

# These see nothing hold with anybody who is judged, or with us: the first only skips, and the second asks about
# streams that are closed and taken up again, which is optional; we answer that call with plain JSON.
VACUOUS: Final[Mapping[str, frozenset[str]]] = {
    "2025-11-25": frozenset({"server-sse-polling"}),
    "2026-07-28": frozenset({"tasks-status-notifications"}),
}

# A legacy server cannot say under which key it asks, and answers that come without a question of its own cannot be told
# apart: `user_name` is nowhere on the wire.
KEYS: Final = frozenset(
    {"input-required-result-basic-elicitation", "input-required-result-ignore-extra-params"}
)
# There are no tasks on a legacy wire that could be brought to a modern client.
TASKS: Final = frozenset(
    {
        "tasks-capability-negotiation",
        "tasks-dispatch-and-envelope",
        "tasks-lifecycle",
        "tasks-mrtr-composition",
        "tasks-mrtr-input",
        "tasks-request-headers",
        "tasks-request-state-removal",
        "tasks-required-task-error",
        "tasks-wire-fields",
    }
)

# By what the product speaks to the server, and by the client's revision.
NOT_CLEAN: Final[Mapping[tuple[str, str], frozenset[str]]] = {
    ("legacy", "2025-11-25"): frozenset(),
    ("modern", "2025-11-25"): frozenset(),
    ("legacy", "2026-07-28"): KEYS | TASKS,
    ("modern", "2026-07-28"): frozenset(),
}


def vacuous(revision: str) -> frozenset[str]:
    """The scenarios that see nothing hold."""
    return VACUOUS[revision]


def not_clean(cell: Cell) -> frozenset[str]:
    """The scenarios that fail or warn in a cell."""
    return NOT_CLEAN[cell.served.speaks, cell.revision]
