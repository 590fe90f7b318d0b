"""What a server's profile asks of the machine, and whether the machine has it. Pure.

A want names the layers, or the ability, that hold it up. What lacks a layer runs all the same unless `require` names
that layer; what lacks an ability cannot be given at all.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sandbox import Diagnosis, Limits


@dataclass(frozen=True, slots=True)
class Want:
    """One thing a profile asks for, in words, and what it stands on."""

    what: str
    layers: tuple[str, ...] = ()
    abilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a want is met; `lacks` names what is missing for it, `refused` says that nothing runs without."""

    what: str
    met: bool
    refused: bool
    lacks: tuple[str, ...]


# What stands on an ability, in the words of a policy.
_BY_ABILITY = {
    "zygote": "workers forked from a zygote",
    "sized-volumes": "volumes of a size that holds",
    "egress": "reaches what its egress list names, and nothing else",
}


def wants_of(limits: Limits, *, syscalls: str, abilities: Collection[str] = ()) -> tuple[Want, ...]:
    """What one server asks for; `abilities` are those that its entry and its profile need."""
    found = [
        Want("sees no files but those granted", ("mountns", "rootfs", "landlock")),
        *(Want(what, abilities=(ability,)) for ability, what in _BY_ABILITY.items() if ability in abilities),
    ]
    if "egress" not in abilities:
        found.append(Want("no network", ("netns",)))
    found.append(Want(f"system calls of the list {syscalls!r}", ("seccomp",)))
    if limits.cpu_millis is not None:
        found.append(Want(f"{limits.cpu_millis} thousandths of a cpu", ("cgroup.cpu",)))
    if limits.memory_bytes is not None:
        found.append(Want(f"{limits.memory_bytes} bytes of memory", ("cgroup.memory",)))
    if limits.pids is not None:
        found.append(Want(f"{limits.pids} processes", ("cgroup.pids",)))
    found.append(Want(f"{limits.files} open files", ("rlimits",)))
    return tuple(found)


def answered(wants: tuple[Want, ...], diagnosis: Diagnosis) -> tuple[Answer, ...]:
    """Each want judged by what was found on the machine."""
    layers = {each.layer: each.state == "enforced" for each in diagnosis.findings}
    abilities = {each.ability: each.state == "possible" for each in diagnosis.abilities}
    return tuple(_answer(want, layers, abilities) for want in wants)


def _answer(want: Want, layers: Mapping[str, bool], abilities: Mapping[str, bool]) -> Answer:
    no_layers = tuple(layer for layer in want.layers if not layers.get(layer, False))
    no_abilities = tuple(ability for ability in want.abilities if not abilities.get(ability, False))
    return Answer(want.what, not (no_layers or no_abilities), bool(no_abilities), (*no_layers, *no_abilities))
