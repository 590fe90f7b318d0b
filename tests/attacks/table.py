"""What the reports say, as a table for readers: rows are attacks, columns are places."""

import platform
from collections import Counter
from typing import Any

from attacks import expect
from attacks.attack import Attack

Reports = dict[str, dict[str, Any]]

_SIGNS = {"blocked": "blocked", "reached": "*reached*", "open": "**open**", "broken": "broken", "": ""}
ACCEPTED = "accepted"


def verdicts(attacks: tuple[Attack, ...], reports: Reports) -> dict[str, dict[str, str]]:
    """By attack and place: blocked, reached, open, or accepted."""
    return {
        attack.name: {place: _verdict(attack, report) for place, report in reports.items()}
        for attack in attacks
    }


def _verdict(attack: Attack, report: dict[str, Any]) -> str:
    row = report["rows"].get(attack.name)
    if row is None:
        return ""
    verdict = str(row["with"][0])
    return ACCEPTED if attack.accepted and verdict == "open" else verdict


def totals(attacks: tuple[Attack, ...], reports: Reports) -> dict[str, Counter[str]]:
    """How many of each verdict there are in each place."""
    table = verdicts(attacks, reports)
    return {place: Counter(table[attack.name][place] for attack in attacks) for place in reports}


def markdown(attacks: tuple[Attack, ...], reports: Reports) -> str:
    """The page docs/attacks.md."""
    places = list(reports)
    lines = [
        "# What was tried, and what came of it",
        "",
        "Made by `make attacks`, not by hand. Every row is a hostile program that was really run, under the seccomp",
        "profile `default`; where it says *blocked*, the kernel refused it or the program died of it, and the same program",
        "succeeded in a run without the layers named. Each of these layers was also tried alone and stopped it alone.",
        "",
        "- **blocked**: nothing came of it. ***reached***: only the kernel's own check of privilege refused it, after every",
        "  wall of the sandbox had let it pass. **open**: it succeeded. *accepted*: it succeeds, which `SECURITY.md` accepts.",
        "- *root*: started by root. *user*: by an ordinary user with delegated control groups. *degraded*: by root in a stock",
        "  container (Docker's filter, Linux capabilities and masked /proc), where there are no namespaces. *v2*: by root on a",
        "  machine with control groups of version 2.",
        "- `start` is no layer but how every worker is started and ended, `kill` that it is ended when asked. `landlock:6` is",
        "  Landlock from its sixth version on; `landlock!rootfs` stands only where there is no root of its own.",
        "- *bubblewrap*: Debian's, as an ordinary user, in its usual form (`--unshare-all --ro-bind /usr /usr --proc /proc --dev",
        "  /dev --tmpfs /tmp --die-with-parent --new-session`), with the same files mounted. It brings no system call filter and",
        "  no caps of its own; whoever uses it has to add them. Its environment is the caller's.",
        "",
        *(f"- {place}: Linux {report['kernel']}, {report['date']}" for place, report in reports.items()),
        "",
        "## Totals",
        "",
        "| place | blocked | reached | open | accepted |",
        "| --- | --- | --- | --- | --- |",
    ]
    for place, count in totals(attacks, reports).items():
        lines.append(
            f"| {place} | {count['blocked']} | {count['reached']} | {count['open']} | {count[ACCEPTED]} |"
        )
    table = verdicts(attacks, reports)
    for group in dict.fromkeys(attack.group for attack in attacks):
        lines += ["", f"## {group.capitalize()}", ""]
        lines.append(f"| attack | stopped by | {' | '.join(places)} |")
        lines.append("| --- " * (len(places) + 2) + "|")
        for attack in (attack for attack in attacks if attack.group == group):
            signs = [_SIGNS.get(table[attack.name][place], table[attack.name][place]) for place in places]
            walls = ", ".join(f"`{wall}`" for wall in attack.walls) or "accepted"
            lines.append(f"| {attack.title} | {walls} | {' | '.join(signs)} |")
    lines += ["", *_notes(attacks, reports)]
    return "\n".join(lines) + "\n"


def _notes(attacks: tuple[Attack, ...], reports: Reports) -> list[str]:
    lines = ["## Accepted", ""]
    lines += [f"- {attack.title}: {attack.accepted}" for attack in attacks if attack.accepted]
    lines += ["", "## Open in a stock container", ""]
    lines += [f"- {attack.title}: {attack.degraded}" for attack in attacks if attack.degraded]
    lines += ["", "## Not provable here", ""]
    lines += [
        f"- {place}: {attack.title}: {reason}"
        for place, report in reports.items()
        if place != "bubblewrap"
        for attack in attacks
        if (reason := unprovable(attack, report))
    ]
    return lines


def unprovable(attack: Attack, report: dict[str, Any]) -> str:
    """Why an attack could not be shown to succeed without its walls in a place; empty when it was."""
    if attack.accepted or not expect.walls_of(attack, frozenset(report["standing"])):
        return ""
    lacking = [report["missing"][need] for need in attack.needs if need in report["missing"]]
    if lacking:
        return lacking[0]
    return (
        f"the container itself refuses it ({report['held'][attack.name]})"
        if attack.name in report["held"]
        else ""
    )


def plain(attacks: tuple[Attack, ...], reports: Reports) -> str:
    """The table for a terminal."""
    table = verdicts(attacks, reports)
    width = max(len(attack.title) for attack in attacks)
    lines = [f"{'':{width}}  " + "  ".join(f"{place:10}" for place in reports)]
    for attack in attacks:
        cells = "  ".join(f"{verdict:10}" for verdict in table[attack.name].values())
        lines.append(f"{attack.title:{width}}  {cells}")
    for place, count in totals(attacks, reports).items():
        lines.append(
            f"{place}: "
            + ", ".join(f"{number} {verdict or 'not tried'}" for verdict, number in count.items())
        )
    return "\n".join([*lines, f"Linux {platform.release()}"]) + "\n"
