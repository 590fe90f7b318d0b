"""What must come out, decided from data: which walls stand in a place, which runs prove them, what is a mistake. Pure."""

import platform
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attacks.attack import Attack

# Walls that are no layers: how every worker is started and ended, and the groups by which it is followed.
NOT_LAYERS = frozenset({"start", "kill"})
_GROUPS = frozenset({"cgroup.memory", "cgroup.pids", "cgroup.cpu"})
_BLOCKED = "blocked"

Run = tuple[frozenset[str], dict[str, str | None], set[str]]


def standing(layers: dict[str, str], landlock_abi: int) -> frozenset[str]:
    """The walls of a place, Landlock's with each version that it has."""
    there = {layer for layer, state in layers.items() if state == "enforced"}
    if "landlock" in there:
        there |= {f"landlock:{version}" for version in range(1, landlock_abi + 1)}
    if there & _GROUPS == _GROUPS:
        there.add("groups")
    return frozenset(there | NOT_LAYERS)


def walls_of(attack: Attack, there: frozenset[str]) -> tuple[str, ...]:
    """Those of an attack's walls that stand."""
    return tuple(wall for wall in attack.walls if _stands(wall, there))


def _stands(wall: str, there: frozenset[str]) -> bool:
    wall, _, absent = wall.partition("!")
    return set(wall.split("+")) <= there and absent not in there


def layers_of(walls: Iterable[str]) -> frozenset[str]:
    """What to leave out so that these walls do not stand."""
    plain = {re.split("[:+!]", wall)[0] for wall in walls}
    return frozenset((plain - {"groups"}) | (_GROUPS if "groups" in plain else set()))


def proofs(attacks: Iterable[Attack], there: frozenset[str]) -> list[Run]:
    """The runs that show every wall of every attack: with none of them, and with each of them alone.

    As (layers off, what each attack's outcome is for, names); attacks that leave out the same are tried together.
    """
    runs: dict[tuple[frozenset[str], bool], dict[str, str | None]] = defaultdict(dict)
    for attack in attacks:
        walls = walls_of(attack, there)
        if not walls:
            continue
        runs[layers_of(walls), True][attack.name] = None
        if len(walls) > 1:
            for wall in walls:
                runs[layers_of(set(walls) - {wall}), False][attack.name] = wall
    merged: list[Run] = []
    for (off, _), names in runs.items():
        for wall in dict.fromkeys(names.values()):
            same = {name: kept for name, kept in names.items() if kept == wall}
            merged.append((off, dict(same), set(same)))
    return _merge(merged)


def _merge(runs: list[Run]) -> list[Run]:
    """One run for all that leave out the same layers, as long as no attack is in it twice."""
    merged: list[Run] = []
    for off, which, names in runs:
        for other in merged:
            if other[0] == off and not other[2] & names:
                other[1].update(which)
                other[2].update(names)
                break
        else:
            merged.append((off, which, names))
    return merged


def mistakes(attack: Attack, report: dict[str, Any]) -> list[str]:
    """What is wrong about one row of a place's report; empty when everything is as it must be."""
    row, there, held_by_place = report["rows"][attack.name], frozenset(report["standing"]), report["held"]
    walls = walls_of(attack, there)
    lacking = [report["missing"][need] for need in attack.needs if need in report["missing"]]
    verdict, detail = row["with"]
    wrong = []
    if verdict == "broken":
        wrong.append(f"the attack itself is broken: {detail}")
    elif walls and verdict != _BLOCKED:
        wrong.append(f"it is {verdict} although {', '.join(walls)} stand: {detail}")
    elif not walls and not lacking and not attack.accepted:
        if verdict == _BLOCKED and attack.name not in held_by_place:
            wrong.append(f"it is blocked ({detail}) although nothing that stops it stands")
        if verdict != _BLOCKED and not attack.degraded:
            wrong.append(f"it is {verdict}, and no reason is given: {detail}")
    if attack.accepted and verdict == _BLOCKED:
        wrong.append(f"it is accepted but does not even succeed: {detail}")
    for wall, (alone, why) in row["alone"].items():
        if alone != _BLOCKED:
            wrong.append(f"{wall} alone does not stop it: {alone}, {why}")
    if (
        "without" in row
        and not lacking
        and attack.name not in held_by_place
        and row["without"][0] in {_BLOCKED, "broken"}
    ):
        wrong.append(f"it cannot fail: without {', '.join(walls)} it is {row['without']}")
    return wrong


def missing_needs(facts: dict[str, bool]) -> dict[str, str]:
    """The needs that are not met, each with the reason."""
    missing = {need: _REASONS[need] for need, met in facts.items() if not met}
    major, minor = (int(part) for part in platform.release().split(".")[:2])
    for version in ("6.7", "6.8"):
        if (major, minor) < tuple(int(part) for part in version.split(".")):
            missing[f"kernel:{version}"] = f"the kernel is older than {version}"
    if platform.machine() != "x86_64":
        missing["machine:x86_64"] = missing["ia32"] = "not this processor"
    for path in _PATHS:
        if not Path(path).exists():
            missing[f"path:{path}"] = missing[f"read:{path}"] = f"this machine has no {path}"
    known = Path("/proc/filesystems").read_text().split()
    for need, name in (("filesystem:overlay", "overlay"), ("groups-mount", "cgroup2")):
        if name not in known:
            missing[need] = f"the kernel has no {name}"
    stuffing = Path("/proc/sys/dev/tty/legacy_tiocsti")
    if stuffing.exists() and stuffing.read_text().strip() == "0":
        missing["tiocsti"] = "switched off in this kernel"
    return missing


_PATHS = (
    "/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/proc/kallsyms", "/proc/keys", "/proc/timer_list",
    "/etc/shadow", "/dev/kvm", "/dev/kmsg", "/dev/fuse", "/dev/net/tun", "/dev/vsock",
)  # fmt: skip
_REASONS = {
    "group": "no control group can be made for a canary",
    "ipv6": "no IPv6 here",
    "netfilter": "the kernel has no nfnetlink",
    "namespaces": "no user namespace can be made for a canary",
    "sysv": "no System V IPC here",
    "mqueue": "no POSIX message queues here",
    "device-node": "no device node can be made for a canary",
    "suid": "the fork server's own namespace knows no user 0, so that the bit means nothing",
    "root": "nobody is root here",
    "disk": "no disk to be seen",
    "groups": "no control groups here",
}
