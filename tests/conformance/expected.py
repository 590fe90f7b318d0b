"""What is not clean, cell by cell, and why. A name comes off when its scenario passes; the test sees to it that it does."""

from collections.abc import Mapping
from typing import Final

from conformance.cells import Cell

# Scenarios that see nothing hold, in the set of each revision.
VACUOUS: Final[Mapping[str, frozenset[str]]] = {
    "2025-11-25": frozenset({"server-sse-polling"}),
    "2026-07-28": frozenset({"tasks-status-notifications"}),
}
KEYS: Final = frozenset(
    {"input-required-result-basic-elicitation", "input-required-result-ignore-extra-params"}
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

_NO_TASKS: Final = "The tasks of 2026-07-28 do not exist on a legacy wire."
REASONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(TASKS, _NO_TASKS),
    "input-required-result-basic-elicitation": "It looks for the question under the key `user_name`, and a legacy"
    " server's question has no key. It is asked, and answered, under another one.",
    "input-required-result-ignore-extra-params": "A warning. It sends answers to questions that were never asked. A"
    " legacy server asks before it can be answered, so it asks.",
    "server-sse-polling": "It sees nothing: it is about streams that end in the middle of a call and are taken up"
    " again, which is optional. The call is answered with JSON.",
    "tasks-status-notifications": "It sees nothing: all it does is to skip.",
}


def vacuous(revision: str) -> frozenset[str]:
    """The scenarios that see nothing hold."""
    return VACUOUS[revision]


def not_clean(cell: Cell) -> frozenset[str]:
    """The scenarios that fail or warn in a cell."""
    return NOT_CLEAN[cell.served.speaks, cell.revision]
