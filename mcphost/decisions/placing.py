"""Which process of a worker set a call may use, and whether it shares it.

What a server says without naming a request can only be brought to its owner where nobody else can be meant. So a call
shares a process with others as long as nothing of the kind is to be heard, and else has one to itself:

- a legacy server asks its questions, and logs, without naming a request;
- a modern one asks by its results, but logs without naming a request.

Where all calls of a worker set come from one client there is nothing to keep apart.
"""

from dataclasses import dataclass
from typing import Literal

Scope = Literal["shared", "tenant", "session", "call"]

# "together": the main process, with others. "alone": any process, the main one included, and alone among those that
# need it so. "apart": a process beside the main one, alone. "fresh": one that nobody used before. "in turn": the main
# process, alone among those that need it so.
Place = Literal["together", "alone", "apart", "fresh", "in turn"]


@dataclass(frozen=True, slots=True)
class Wants:
    """What decides of a call: whether its client can be asked, whether it wants logs, whether it begins a call chain."""

    questions: bool
    logs: bool
    chain: bool


def place_of(scope: Scope, wants: Wants, *, legacy: bool, one_client: bool) -> Place:
    """Where a call goes. `legacy` is the worker's era; `one_client`: all calls of the worker set are one client's."""
    unnamed = wants.logs or (wants.questions and legacy)
    if scope == "session":
        return "in turn" if unnamed and not one_client else "together"
    if scope == "call" and wants.chain:
        return "fresh"
    if not unnamed:
        return "together"
    return "apart" if legacy else "alone"
