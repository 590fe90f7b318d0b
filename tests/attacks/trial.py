"""One place, all attacks: with every wall, with each wall alone, with none. Prints what happened as JSON."""

import contextlib
import json
import os
import platform
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sandbox
from attacks import canaries, catalogue, expect, targets
from attacks.attack import Attack
from sandbox import SandboxSetupFailed, Spawner, run, syscalls
from sandbox.seccomp import filters
from sandbox.spec import Mount, SandboxSpec

Outcomes = dict[str, tuple[str, str]]

_HONEST = SandboxSpec(
    name="honest", argv=("/bin/echo", "well"), mounts=(Mount(source="/usr", target="/usr"),)
)
_MODULES = ("attacks.attack", "attacks.hostile", *catalogue.MODULES)
# For what stays where nothing ends it, and for what ends at once, on a machine that is busy.
_SOON, _LATER = 0.4, 5.0


class Lab:
    """What all runs of one place share."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.world = canaries.World(base, os.environ["ATTACKS_TEXT"], os.environ["ATTACKS_LEAKED"])
        self.spawner = Spawner.start(name="attacks")
        self._maps_data = True
        self._maps_data = self._can_map_data()
        here = Path(__file__).parent
        self.sources = [
            [name, (here / f"{name.partition('.')[2]}.py").read_text("utf-8")] for name in _MODULES
        ]

    def _can_map_data(self) -> bool:
        """Whether this file system can show its files as another user's (for tmpfs since Linux 6.3)."""
        self.world.hand_to(os.geteuid(), os.getegid(), data_owner=self._data_owner(frozenset(), os.geteuid()))
        try:
            run(replace(_HONEST, data=str(self.base / "data")), spawner=self.spawner)
        except SandboxSetupFailed as error:
            if error.step != "open-data":
                raise
            return False
        return True

    def close(self) -> None:
        """End the fork server and every canary."""
        self.spawner.close()
        self.world.close()

    def missing(self) -> dict[str, str]:
        """Which needs of attacks are not met here, and why."""
        facts = {
            **self.world.possible,
            "device-node": (self.base / "data/zero").exists(),
            "suid": os.geteuid() == 0,
            "root": os.geteuid() == 0,
            "netfilter": _has_netfilter(),
            "disk": any(Path("/dev").glob("vd?")),
            "groups": self.spawner.features.has("cgroup.memory"),
        }
        return expect.missing_needs(facts)

    def attempt(self, attacks: Iterable[Attack], off: frozenset[str], kind: str = "ours") -> Outcomes:
        """Try attacks in one worker, those that want one of their own excepted."""
        attacks = list(attacks)
        outcomes: Outcomes = {}
        together = [attack for attack in attacks if not attack.alone]
        for batch in ([together] if together else []) + [[attack] for attack in attacks if attack.alone]:
            outcomes |= self._run(batch, off, kind)
        return outcomes

    def _run(self, batch: list[Attack], off: frozenset[str], kind: str) -> Outcomes:
        marker = f"attacks-{secrets.token_hex(8)}"
        witness = batch[0].witness if batch[0].alone else ""
        with contextlib.ExitStack() as undo:
            target = self._start(off, kind, marker, witness)
            undo.callback(targets.remove_leftovers, marker)
            undo.callback(targets.end_leftovers, marker)
            undo.callback(target.close)
            own_root = kind == "bubblewrap" or (kind == "ours" and self._has_own_root(off))
            owner = self._data_owner(off, target.uid) if kind == "ours" else target.uid
            self.world.hand_to(target.uid, target.gid, data_owner=owner)
            canary = self.world.start_process(target.uid, target.gid, self.spawner.pid)
            undo.callback(canary.close)
            described = {"marker": marker} | self.world.describe(own_root=own_root, process=canary)
            _write_all(target.stdin, self._told(batch, described))
            return _Watch(target, canary, batch, off, described["free"]).outcomes()

    def _data_owner(self, off: frozenset[str], uid: int) -> int:
        """Who has to own the data directory on disk for the worker to write it (`rootfs.open_data`)."""
        mapped = (
            self._maps_data
            and self._has_own_root(off)
            and self.spawner.features.has("userns")
            and "userns" not in off
        )
        return targets.DATA_OWNER if mapped and os.geteuid() == 0 else uid

    def _has_own_root(self, off: frozenset[str]) -> bool:
        return self.spawner.features.has("rootfs") and not off & {"rootfs", "mountns"}

    def _start(self, off: frozenset[str], kind: str, marker: str, witness: str) -> targets.Target:
        if kind == "bubblewrap":
            self.world.hand_to(os.geteuid(), os.getegid(), data_owner=os.geteuid())
            return targets.bubblewrap(self.base, marker)
        if kind in {"plain", "bare"}:
            return (targets.plain if kind == "plain" else targets.bare)(marker)
        # The data directory must be its future owner's when the worker is put together.
        self.world.hand_to(os.geteuid(), os.getegid(), data_owner=self._data_owner(off, os.geteuid()))
        limits = targets.FEW_PROCESSORS if witness == "throttled" else targets.LIMITS
        return targets.ours(self.spawner, self.base, marker, off - expect.NOT_LAYERS, limits, self._maps_data)

    def _told(self, batch: list[Attack], described: dict[str, Any]) -> bytes:
        told = {
            "sources": self.sources,
            "groups": catalogue.MODULES,
            "said_to_be_missing": _said_to_be_missing(),
            "numbers": filters.numbers(syscalls.MACHINE),
            "attacks": [attack.name for attack in batch],
            "canaries": described,
        }
        return json.dumps(told).encode() + b"\n"

    def serves(self) -> bool:
        """Whether the fork server still starts an honest worker that works."""
        return run(_HONEST, spawner=self.spawner).stdout == b"well\n"


class _Watch:
    """Follows one run and asks the witnesses."""

    def __init__(
        self,
        target: targets.Target,
        canary: canaries.Canary,
        batch: list[Attack],
        off: frozenset[str],
        free: int,
    ) -> None:
        self._target = target
        self._canary = canary
        self._batch = batch
        self._off = off
        self._lines = targets.Lines(target.stdout)
        self._free = free

    def outcomes(self) -> Outcomes:
        said = self._follow()
        witnesses: dict[str, Callable[[], bool]] = {
            "SIGURG": lambda: "SIGURG" in self._canary.noticed(),
            "throttled": lambda: not _throttled(self._target.pid),
            "stopped": lambda: _state(self._target.pid) == "T",
            "left": self._something_is_left,
        }
        for attack in self._batch:
            outcome = said.get(attack.name)
            if attack.witness in witnesses and (outcome is None or outcome[0] in {"open", "blocked"}):
                succeeded = witnesses[attack.witness]()
                outcome = (
                    "open" if succeeded else "blocked",
                    f"by what was seen from outside: {attack.witness}",
                )
            said[attack.name] = outcome or ("blocked", "its worker was ended")
        with contextlib.suppress(OSError):
            os.close(self._target.stdin)
        if not self._target.wait(0 if self._lines.ended else _SOON):
            self._target.kill()
            with contextlib.suppress(OSError):
                os.kill(self._target.pid, signal.SIGCONT)
            self._target.wait(_LATER)
        return said

    def _follow(self) -> Outcomes:
        said: Outcomes = {}
        for line in self._lines.read():
            words = json.loads(line)
            if words == ["done"]:
                break
            if words == ["ready"]:
                if self._batch[0].witness == "left":
                    break
                _greet(self._free)
                continue
            said[words[0]] = (words[1], words[2])
        return said

    def _something_is_left(self) -> bool:
        """Whether anything of the worker still holds its output after it was ended by the fork server's means."""
        with contextlib.suppress(OSError):
            os.close(self._target.stdin)
        if self._batch[0].first:
            self._target.ask_to_end()
            if "kill" not in self._off:
                self._target.kill()
        ended = self._target.wait(_SOON if "kill" in self._off else _LATER)
        for _ in self._lines.read(_SOON if self._off else _LATER):
            pass
        return not (ended and self._lines.ended)


def _said_to_be_missing() -> list[str]:
    profile = json.loads((Path(sandbox.__file__).parent / "seccomp/profiles/default.json").read_text("utf-8"))
    return [name for name, answer in profile["answer"].items() if answer == "ENOSYS"]


def _has_netfilter() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12):
        return True
    return False


def _greet(port: int) -> None:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as client:
        client.send(b"hello")


def _throttled(pid: int) -> bool:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for place in ("cpu", "cpu,cpuacct", "."):
            if "cpu" in controllers.split(",") or not controllers:
                with contextlib.suppress(OSError):
                    words = Path(f"/sys/fs/cgroup/{place}{path}/cpu.stat").read_text().split()
                    if "nr_throttled" in words and int(words[words.index("nr_throttled") + 1]):
                        return True
    return False


def _state(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def _write_all(fd: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(fd, data[:65536]) :]


def examine(base: Path, *, kind: str, proofs: bool, only: str) -> dict[str, Any]:
    """Everything that is to be known about this place."""
    lab = Lab(base)
    try:
        attacks = [attack for attack in catalogue.ATTACKS if only in attack.name]
        layers = {status.layer: status.state for status in lab.spawner.features}
        standing = expect.standing(layers, syscalls.landlock_abi())
        missing = lab.missing()
        rows: dict[str, dict[str, Any]] = {attack.name: {"alone": {}} for attack in attacks}
        for name, outcome in lab.attempt(attacks, frozenset(), kind).items():
            rows[name]["with"] = outcome
        if proofs and kind == "ours":
            for off, which, names in expect.proofs(attacks, standing):
                group = [attack for attack in attacks if attack.name in names]
                found = lab.attempt(group, off, "plain" if "start" in off else "ours")
                for name, outcome in found.items():
                    if which[name] is None:
                        rows[name]["without"] = outcome
                    else:
                        rows[name]["alone"][which[name]] = outcome
        held = {} if "netns" in standing else _held_by_place(lab, attacks)
        return {
            "held": held,
            "kernel": platform.release(),
            "date": datetime.now(UTC).date().isoformat(),
            "layers": layers,
            "standing": sorted(standing),
            "missing": missing,
            "serves": lab.serves(),
            "rows": rows,
        }
    finally:
        lab.close()


def _held_by_place(lab: Lab, attacks: list[Attack]) -> dict[str, str]:
    """What a place without namespaces refuses to everybody, seen by trying it there with nothing of ours around."""
    # Of no meaning there are those about being started, ended or watched over.
    tried = [
        attack
        for attack in attacks
        if not {"kill", "start"} & expect.layers_of(attack.walls) and attack.witness != "stopped"
    ]
    outcomes = lab.attempt(tried, frozenset(), "bare")
    return {name: detail for name, (verdict, detail) in outcomes.items() if verdict == "blocked"}


def main() -> None:
    """`trial.py BASE KIND PROOFS ONLY` in the place to be examined."""
    base, kind, proofs, only = sys.argv[-4:]
    report = examine(Path(base), kind=kind, proofs=proofs == "yes", only=only)
    sys.stdout.write(json.dumps(report))
