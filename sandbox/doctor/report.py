"""One look at this machine: try, gather, judge, and show it as rows.

`python -m sandbox` prints what `diagnose` finds, without any program above this package.
"""

import tempfile
import textwrap
from collections.abc import Iterable
from contextlib import suppress

from sandbox import _apart
from sandbox.doctor import machine_facts
from sandbox.doctor.diagnosis import Ability, Diagnosis, Finding, Outcomes, judge
from sandbox.doctor.place import Attempts
from sandbox.errors import SpawnerGone
from sandbox.features import Features, probe, probe_sizes
from sandbox.layers import LAYERS, LayerStatus
from sandbox.zygote import trial

DEFAULT_COLUMNS = 100
_MIN_TEXT_COLUMNS = 30


def diagnose(features: Features | None = None, directory: str | None = None) -> Diagnosis:
    """What this process can apply here, why not more, and what to do; takes half a second.

    `features` is what a probe or a fork server already found; without it a trial is made. `directory` is where volumes
    would lie, the temporary one by default; a small file is made there for a moment.

    Where the trial itself cannot be made, every layer is absent for that reason. Raises nothing: what cannot be looked
    at is told as missing.
    """
    found = _tried() if features is None else features
    facts = machine_facts.gather()
    with suppress(SpawnerGone):
        answers = _apart.ask("doctor.attempts", "1" if facts.process.may_administer else "0")
        facts = machine_facts.with_attempts(facts, Attempts.from_wire(answers))
    return judge(found, facts, Outcomes(_sizes(directory), trial.attempt()))


def _sizes(directory: str | None) -> LayerStatus:
    try:
        return probe_sizes(tempfile.gettempdir() if directory is None else directory)
    except (SpawnerGone, OSError) as error:
        return LayerStatus("volume-size", "absent", f"could not be tried: {error}")


def _tried() -> Features:
    try:
        return probe()
    except SpawnerGone as error:
        # As under a filter that kills: the attempts, each in a process of its own, may still say for which call.
        return Features(tuple(LayerStatus(layer, "absent", error.message) for layer in LAYERS))


def shown(diagnosis: Diagnosis, *, columns: int = DEFAULT_COLUMNS) -> str:
    """The diagnosis for a person, in lines of at most `columns` characters where words allow it."""
    user = "root" if diagnosis.uid == 0 else f"user {diagnosis.uid}"
    head = f"{diagnosis.place.name}, as {user}, Linux {diagnosis.kernel}"
    layers = [(each.layer, each.state, each) for each in diagnosis.findings]
    abilities = [(each.ability, each.state, each) for each in diagnosis.abilities]
    return "\n".join([head, "", *_rows("LAYER", layers, columns), "", *_rows("ABILITY", abilities, columns)])


def _rows(title: str, rows: Iterable[tuple[str, str, Finding | Ability]], columns: int) -> list[str]:
    rows = list(rows)
    first = max(len(name) for name, _, _ in [(title, "", None), *rows]) + 2
    second = max(len(state) for _, state, _ in [("", "STATE", None), *rows]) + 2
    margin = " " * (first + second)
    room = max(columns - len(margin), _MIN_TEXT_COLUMNS)
    lines = [f"{title:{first}}{'STATE':{second}}REASON"]
    told: dict[str, str] = {}
    for name, state, row in rows:
        text = textwrap.wrap(row.reason, room, break_on_hyphens=False) or [""]
        lines.append(f"{name:{first}}{state:{second}}{text[0]}")
        lines.extend(margin + line for line in text[1:])
        if row.fix:
            advice = f"-> as for {told[row.fix]}" if row.fix in told else f"-> {row.fix}"
            told.setdefault(row.fix, name)
            lines.extend(margin + line for line in textwrap.wrap(advice, room, break_on_hyphens=False))
    return [line.rstrip() for line in lines]
