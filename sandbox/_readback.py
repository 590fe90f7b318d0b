"""What confines a worker, asked of the kernel while the worker stands before its exec (proc(5))."""

import os
import socket
from dataclasses import dataclass
from functools import cache

from sandbox import kernel_files, namespaces, privileges, rlimits
from sandbox.cgroups.groups import Group
from sandbox.egress.rules import EGRESS_HOST, EGRESS_PORT
from sandbox.layers import LAYERS, NAMESPACE_LAYERS, LayerStatus
from sandbox.spec import SandboxSpec
from sandbox.steps import Plan

_CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_SECCOMP_FILTER = "2"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the worker's own side says: the Landlock version it applied and what it was then refused."""

    landlock_abi: int
    landlock_denial: str | None


def statuses(
    pid: int, spec: SandboxSpec, plan: Plan, group: Group, evidence: Evidence
) -> tuple[LayerStatus, ...]:
    """One status per layer, in the order of `LAYERS`. A layer left out keeps the reason it was left out for."""
    fields = _status_fields(pid)
    seen = [
        *_namespaces(pid, spec, plan.layers),
        *([_rootfs(pid, plan.without_proc)] if "rootfs" in plan.layers else []),
        _equals("no-new-privs", "NoNewPrivs", fields, "1"),
        _capabilities(fields),
        _landlock(evidence),
        _equals("seccomp", "Seccomp", fields, _SECCOMP_FILTER),
        _rlimits(pid, spec, plan),
        *group.statuses(pid, spec.limits),
    ]
    found = {status.layer: status for status in seen} | {status.layer: status for status in plan.absent}
    if found["cgroup.pids"].state == "absent" and spec.limits.pids and found["rlimits"].state == "enforced":
        how = "with all else that this user runs" if _shares_user(plan) else "instead of a group"
        reason = f"RLIMIT_NPROC holds the cap {how}: {found['cgroup.pids'].reason}"
        found["cgroup.pids"] = LayerStatus("cgroup.pids", "degraded", reason)
    return tuple(found[layer] for layer in LAYERS)


def is_way_out(fd: int | None) -> bool:
    """Whether `fd` is a socket that listens where a worker finds its proxy."""
    if fd is None:
        return False
    with socket.socket(fileno=os.dup(fd)) as listener:
        listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return bool(listens) and listener.getsockname() == (EGRESS_HOST, EGRESS_PORT)


def _shares_user(plan: Plan) -> bool:
    """Whether the worker runs as the same user as everything of the runtime."""
    return "userns" not in plan.layers and os.geteuid() != 0


def _status_fields(pid: int) -> dict[str, str]:
    lines = kernel_files.read(f"/proc/{pid}/status").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _namespaces(pid: int, spec: SandboxSpec, planned: frozenset[str]) -> list[LayerStatus]:
    """Of the planned ones only: a root without CAP_SYS_PTRACE, as in a container, may not look when there are none."""
    asked = [layer for layer in NAMESPACE_LAYERS if layer in planned]
    if not asked:
        return []
    ours, theirs = _ours(), namespaces.own_identities(pid)
    way_out = f"; the only way out is the proxy on its loopback, port {EGRESS_PORT}"
    more = {"netns": way_out} if spec.network == "proxy" else {}
    return [
        LayerStatus(layer, "enforced", f"{theirs[layer]}, not this machine's{more.get(layer, '')}")
        if ours[layer] != theirs[layer]
        else LayerStatus(layer, "absent", f"{theirs[layer]} is shared with the fork server")
        for layer in asked
    ]


@cache
def _ours() -> dict[str, str]:
    """The fork server's own namespaces, which it does not leave any more once there are workers."""
    return namespaces.own_identities()


def _rootfs(pid: int, without_proc: str) -> LayerStatus:
    for line in kernel_files.read(f"/proc/{pid}/mountinfo").splitlines():
        before, after = line.split(" - ", 1)
        fields = before.split()
        if fields[4] == "/":
            kind, options = after.split()[0], set(fields[5].split(","))
            if kind == "tmpfs" and {"ro", "nosuid", "nodev"} <= options:
                seen = "the root is a tmpfs of ours, ro,nosuid,nodev"
                return LayerStatus(
                    "rootfs", "enforced", f"{seen}, without /proc: {without_proc}" if without_proc else seen
                )
            return LayerStatus("rootfs", "absent", f"the root is {kind} with {fields[5]}")
    return LayerStatus("rootfs", "absent", "no root mount is listed")


def _equals(layer: str, name: str, fields: dict[str, str], wanted: str) -> LayerStatus:
    value = fields.get(name, "not reported")
    return LayerStatus(layer, "enforced" if value == wanted else "absent", f"{name} is {value}")


def _capabilities(fields: dict[str, str]) -> LayerStatus:
    held = [name for name in _CAPABILITY_SETS if int(fields.get(name, "1"), 16)]
    if held == ["CapBnd"] and fields.get("NoNewPrivs") == "1":
        return LayerStatus("capabilities", "degraded", privileges.BOUNDED_BY_NO_NEW_PRIVS)
    if held:
        return LayerStatus("capabilities", "absent", f"not empty: {', '.join(held)}")
    return LayerStatus("capabilities", "enforced", "all five sets are empty")


def _landlock(evidence: Evidence) -> LayerStatus:
    if not evidence.landlock_abi:
        return LayerStatus("landlock", "absent", "not applied")
    if evidence.landlock_denial is None:
        return LayerStatus(
            "landlock", "absent", f"ABI {evidence.landlock_abi} accepted the rules but refuses nothing"
        )
    return LayerStatus("landlock", "enforced", f"ABI {evidence.landlock_abi}, {evidence.landlock_denial}")


def _rlimits(pid: int, spec: SandboxSpec, plan: Plan) -> LayerStatus:
    text = kernel_files.read(f"/proc/{pid}/limits")
    above = rlimits.read_back(
        text, spec.limits, grouped="cgroup.pids" in plan.layers, shares_user=_shares_user(plan)
    )
    if above:
        return LayerStatus("rlimits", "absent", "; ".join(above))
    return LayerStatus("rlimits", "enforced", "as asked, and no core files")


def only_planned(found: tuple[LayerStatus, ...], plan: Plan) -> tuple[LayerStatus, ...]:
    """Layers that are less in force than was planned; the worker must not run then."""
    degraded = {status.layer for status in plan.degraded}
    return tuple(
        status
        for status in found
        if status.layer in plan.layers
        and status.state != "enforced"
        and not (status.state == "degraded" and status.layer in degraded)
    )
