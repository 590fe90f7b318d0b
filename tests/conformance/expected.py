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

SUBSCRIPTIONS: Final = frozenset({"resources-subscribe", "resources-unsubscribe"})
# Scenarios of legacy clients in which a legacy server asks or logs.
HEARD: Final = frozenset(
    {
        "elicitation-sep1034-defaults",
        "elicitation-sep1330-enums",
        "tools-call-elicitation",
        "tools-call-sampling",
        "tools-call-with-logging",
    }
)
ROUNDS: Final = frozenset(
    {
        "input-required-result-basic-elicitation",
        "input-required-result-basic-list-roots",
        "input-required-result-basic-sampling",
        "input-required-result-capability-check",
        "input-required-result-missing-input-response",
        "input-required-result-multi-round",
        "input-required-result-multiple-input-requests",
        "input-required-result-non-tool-request",
        "input-required-result-request-state",
        "input-required-result-result-type",
        "input-required-result-tampered-state",
        "input-required-result-validate-input",
    }
)
TASKS: Final = frozenset(
    {
        "tasks-capability-negotiation",
        "tasks-dispatch-and-envelope",
        "tasks-lifecycle",
        "tasks-mrtr-composition",
        "tasks-mrtr-input",
        "tasks-request-headers",
        "tasks-request-state-removal",
        "tasks-wire-fields",
    }
)

# By what the product speaks to the server, and by the client's revision.
NOT_CLEAN: Final[Mapping[tuple[str, str], frozenset[str]]] = {
    ("legacy", "2025-11-25"): SUBSCRIPTIONS | HEARD,
    ("modern", "2025-11-25"): SUBSCRIPTIONS,
    ("legacy", "2026-07-28"): ROUNDS | TASKS | {"tasks-required-task-error"},
    ("modern", "2026-07-28"): TASKS,
}


def vacuous(revision: str) -> frozenset[str]:
    """The scenarios that see nothing hold."""
    return VACUOUS[revision]


def not_clean(cell: Cell) -> frozenset[str]:
    """The scenarios that fail or warn in a cell."""
    return NOT_CLEAN[cell.served.speaks, cell.revision]
