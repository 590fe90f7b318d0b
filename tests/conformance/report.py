"""The results as a document."""

from collections.abc import Iterable, Mapping

from conformance.cells import Cell, Served
from conformance.legs import scored
from conformance.results import Outcome

HEAD = """# Conformance

What the official suite says of mcphost, in every combination of client and server that it knows. This file is
written by `make conformance`, and the same runs are among the tests, where each cell has to come out as it is
expected to.

`@modelcontextprotocol/conformance` {suite}, run by Node {node}, talks to a running `mcphost {product}` over loopback. Behind it
stands a server of ours on standard input and output, which has everything that the suite asks for in either era
(`tests/servers/fixture.py`), so what is judged is what stands in between. *Server* is the era of that server:
`legacy` speaks the revisions that begin with `initialize`, `silent` does too and answers nothing before it, `modern`
speaks 2026-07-28 only, and `dual` either. *Client* is the revision that the suite speaks. *Scope* is the server's
in the policy. *Endpoint* is the server's own, or one where servers come together.

*Scored* is the suite's own count: the scenarios of the revision's frozen set of requirements in which nothing failed,
of how many there are. *Clean* is a stricter one: nothing failed, nothing warned, and at least one check saw something
hold. *Unscored* are clean scenarios among those that the suite runs along with a set but does not count: extensions,
what was added later, and what its own reference server does not pass.

The suite begins many calls in which the server asks its client, and abandons them. On a legacy server each of them
holds a process, so the policy of these runs waits {answer_time} for an answer and lends {leases} processes; it keeps
{warm} spares, since `server-stateless` gives some answers half a second. That scenario is tried up to {tries} times.

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
        + "\n## What is not clean\n\n"
        + fallen(results)
        + "\n## Every scenario\n\n"
        "`--suite all` runs what any revision ever asked for, each scenario in the revision that brought it, and"
        " counts\nno set of requirements.\n\n"
        + table(("Server", "Passed", "Clean", "Not clean"), (all_row(*each) for each in everything.items()))
    )


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    lines = [columns, ("---" for _ in columns), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


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
    """Each scenario that is not clean somewhere, and in which cells."""
    where: dict[tuple[str, str], list[str]] = {}
    for cell, outcomes in results.items():
        for name, outcome in outcomes.items():
            if not outcome.clean:
                where.setdefault((name, said(outcome)), []).append(str(cell.served.era))
    rows = (
        (f"`{name}`", ", ".join(dict.fromkeys(servers)), why)
        for (name, why), servers in sorted(where.items())
    )
    return table(("Scenario", "Servers", "What the suite says"), rows)


def said(outcome: Outcome) -> str:
    """What a scenario complained of, as one cell of a table."""
    if not outcome.complaints:
        return "nothing: no check of it applied"
    return "; ".join(" ".join(complaint.split()) for complaint in outcome.complaints).replace("|", "\\|")


def all_row(served: Served, outcomes: Mapping[str, Outcome]) -> tuple[object, ...]:
    named = ", ".join(f"`{name}`" for name, outcome in outcomes.items() if not outcome.clean)
    passed = sum(outcome.passed for outcome in outcomes.values())
    clean = sum(outcome.clean for outcome in outcomes.values())
    return served.era, f"{passed}/{len(outcomes)}", f"{clean}/{len(outcomes)}", named or "none"
