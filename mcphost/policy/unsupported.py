"""Keys of the policy format that a later version will give meaning to.

They are refused, not ignored: a limit that is written and not enforced is worse than none. Each row goes
away when its feature comes.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mcphost.policy.document import Document
from mcphost.policy.faults import Fault
from mcphost.policy.places import KeyPath


@dataclass(frozen=True, slots=True)
class Later:
    """A key, or with `values` only some values of it. `*` in the path stands for any name."""

    path: tuple[str, ...]
    values: Callable[[object], bool] = lambda _value: True
    allowed: str | None = None


LATER: tuple[Later, ...] = (
    Later(("mcpServers", "*", "replicas")),
    Later(("mcpServers", "*", "idle")),
    Later(("mcpServers", "*", "retry")),
)


def refuse_later_keys(document: Document) -> None:
    """Note each key of `LATER` as a problem and take it out of the tree."""
    for row in LATER:
        _refuse(document, row, (), document.tree)


def _refuse(document: Document, row: Later, path: KeyPath, part: object) -> None:
    if not isinstance(part, dict):
        return
    wanted = row.path[len(path)]
    for key in list(part) if wanted == "*" else [wanted] if wanted in part else []:
        here = (*path, key)
        if len(here) < len(row.path):
            _refuse(document, row, here, part[key])
        elif row.values(part[key]):
            what = "this value is known, but" if row.allowed else "this key is known, but"
            fault = Fault(
                f"{what} not supported by this version yet", allowed=row.allowed, on_key=not row.allowed
            )
            document.blame(here, fault, part[key] if row.allowed else ...)
            del part[key]
