"""The results as a document."""

from collections.abc import Iterable, Mapping

from conformance.cells import Cell, Served
from conformance.expected import REASONS
from conformance.legs import scored
from conformance.results import Outcome

HEAD = """# Conformance

What the official suite says of mcphost, in every combination of client and server that it knows. This file is
written by `make conformance`, and the same runs are among the tests, where each cell has to come out as it is
expected to.

`@modelcontextprotocol/conformance` {suite}, run by Node {node}, talks to a running mcphost {product} over
loopback. Behind it stands a server of ours on standard input and output, which has everything that the suite asks for in
either era (`tests/servers/fixture.py`), so what is judged is what stands in between. *Server* is the era of that
server: `legacy` speaks the revisions that begin with `initialize`, `silent` does too and answers nothing before it,
`modern` speaks 2026-07-28 only, and `dual` either. *Scope* is the server's in the policy. *Endpoint* is the server's
own, or a route where it comes together with another. *Client* is the revision that the suite speaks.

*Scored* is the suite's own count: the scenarios of the revision's frozen set of requirements in which nothing failed,
of how many there are. *Clean* is a stricter one: nothing failed, nothing warned, and at least one check saw something
hold. *Unscored* are clean scenarios among those that the suite runs along with a set but does not count: extensions,
what was added later, and what its own reference server does not pass.

The policy of these runs has three settings that are not the defaults. The suite begins many calls in which the
server asks its client, and abandons them, so `limits.answerTime` is {answer_time} and `limits.parked` {parked}; the
runs take longer without. And `server-stateless` gives some answers half a second, so legacy servers have
`warm: {warm}`. That scenario is tried up to {tries} times.

"""

BLIND = """
The suite does not look at who may do what, whether an answer or a log line reaches its owner and nobody else when many
ask at once, cancellation, timeouts, updates of resources, pages, restarts, names of many servers, or servers that
misbehave. `docs/protocol.md` says what is promised of these, and which tests hold it.
"""

COLUMNS = ("Server", "Scope", "Endpoint", "Client", "Scored", "Clean", "Warnings", "Unscored")


def document(
    results: Mapping[Cell, Mapping[str, Outcome]],
    everything: Mapping[Served, Mapping[str, Outcome]],
    told: Mapping[str, object],
) -> str:
    """The whole file. `everything` are the runs of all scenarios (`--suite all`), `told` versions and settings."""
    return (
        HEAD.format(**told)
        + table(COLUMNS, (row(cell, outcomes) for cell, outcomes in results.items()))
        + BLIND
        + "\n## What is not clean\n\n"
        + fallen(results)
        + "\n## Every scenario\n\n"
        "`--suite all` runs whatever the suite has, each scenario in the revision that brought it, and counts no set of\n"
        "requirements. What is not clean besides the above are extensions that our server has not, of which these\n"
        "scenarios see nothing.\n\n"
        + table(
            ("Server", "Passed", "Clean", "Not clean besides"),
            (all_row(*each) for each in everything.items()),
        )
    )


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    return "".join(line(cells) for cells in (columns, ("---" for _ in columns), *rows))


def line(cells: Iterable[object]) -> str:
    """One line of a table."""
    return "| " + " | ".join(str(cell) for cell in cells) + " |\n"


def row(cell: Cell, outcomes: Mapping[str, Outcome]) -> tuple[object, ...]:
    counted = scored(cell.revision)
    inside = [outcome for name, outcome in outcomes.items() if name in counted]
    outside = [outcome for name, outcome in outcomes.items() if name not in counted]
    return (
        cell.served.era,
        cell.served.scope,
        cell.served.endpoint,
        cell.revision,
        f"{sum(outcome.passed for outcome in inside)}/{len(counted)}",
        f"{sum(outcome.clean for outcome in inside)}/{len(counted)}",
        sum(outcome.warnings for outcome in inside),
        f"{sum(outcome.clean for outcome in outside)}/{len(outside)}",
    )


def fallen(results: Mapping[Cell, Mapping[str, Outcome]]) -> str:
    """Each scenario that is not clean somewhere, with which servers, and why."""
    where: dict[str, list[str]] = {}
    for cell, outcomes in results.items():
        for name, outcome in outcomes.items():
            if not outcome.clean:
                where.setdefault(name, []).append(cell.served.era)
    rows = (
        (f"`{name}`", ", ".join(dict.fromkeys(eras)), REASONS.get(name, said(results, name)))
        for name, eras in sorted(where.items())
    )
    return table(("Scenario", "Servers", "Why"), rows)


def said(results: Mapping[Cell, Mapping[str, Outcome]], name: str) -> str:
    """What the suite complained of in a scenario, as one cell of a table."""
    seen = (outcomes[name].complaints for outcomes in results.values() if name in outcomes)
    complaints = dict.fromkeys(complaint for each in seen for complaint in each)
    return "; ".join(" ".join(complaint.split()) for complaint in complaints).replace("|", "\\|")


def all_row(served: Served, outcomes: Mapping[str, Outcome]) -> tuple[object, ...]:
    other = (name for name, outcome in outcomes.items() if not outcome.clean and name not in REASONS)
    named = ", ".join(f"`{name}`" for name in other)
    passed = sum(outcome.passed for outcome in outcomes.values())
    clean = sum(outcome.clean for outcome in outcomes.values())
    return served.era, f"{passed}/{len(outcomes)}", f"{clean}/{len(outcomes)}", named or "none"
