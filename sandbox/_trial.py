"""Finding out what can be applied by applying it: an init is made, takes the steps of a real one, and is thrown away.

Every step is tried even where another failed; a layer is found to be possible when all of its steps were.
"""

import json
import os
import socket
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import NoReturn

from sandbox import _confine, namespaces, privileges, syscalls
from sandbox._ground import Ground, settle
from sandbox._order import Order
from sandbox.cgroups import tree
from sandbox.cgroups.groups import Driver, Group
from sandbox.features import Features
from sandbox.layers import CGROUP_LAYERS, LAYERS, NAMESPACE_LAYERS, OWN_PROC, LayerStatus
from sandbox.rootfs import Templates
from sandbox.spec import Limits, SandboxSpec
from sandbox.steps import confine_steps, finish_steps, prepare_steps

_SPEC = SandboxSpec(name="trial", argv=("/",))
_LIMITS = Limits(memory_bytes=64 * 1024 * 1024, pids=16, cpu_millis=1000)
_POSSIBLE = "applied in a trial"
_MAX_REPORT_BYTES = 64 * 1024

# Whose failure a failing step is. Steps not named here belong to every start and to no layer.
_LAYER_OF_STEP = {
    "loopback-up": "netns",
    "load-filter": "seccomp",
    "become-worker-user": "userns",
    "private-mounts": "rootfs",
    "mount-proc": OWN_PROC,
    "assemble-root": "rootfs",
    "enter-root": "rootfs",
    "leave-old-root": "rootfs",
    "set-hostname": "utsns",
    "forbid-user-namespaces": "userns",
    "seal-proc": OWN_PROC,
    "set-rlimits": "rlimits",
    "lock-capabilities": "capabilities",
    "forbid-new-privileges": "no-new-privs",
    "restrict-landlock": "landlock",
    "drop-capabilities": "capabilities",
    "restrict-seccomp": "seccomp",
}

# Steps that are done in a /proc of the worker's own.
_IN_PROC = frozenset({"forbid-user-namespaces", "seal-proc"})
# Not a layer's failure, but what is less than whole about `capabilities`.
_BOUNDING_SET = "bounding set"

# Why, by layer; by `OWN_PROC` and `_BOUNDING_SET`, which are no layers, too.
Failures = dict[str, str]


def examine(ground: Ground, driver: Driver) -> Features:
    """Try every layer from `ground`. The calling process must be single-threaded; it is left as it was."""
    failures: Failures = dict(driver.missing)
    if ground.templates is None:
        failures |= dict.fromkeys(("mountns", "rootfs"), ground.mounts_missing)
    elif why := _template_refused(ground.templates):
        failures["rootfs"] = why
    group = driver.create("trial")
    uid = ground.users.take()
    try:
        failures |= _try_all(ground, group, uid, failures)
    finally:
        ground.users.give_back(uid)
        group.kill()
        group.remove()
    without_proc = failures.get(OWN_PROC, "")
    return Features(tuple(_status(layer, failures, without_proc) for layer in LAYERS), without_proc)


def _template_refused(templates: Templates) -> str:
    """Why no root can be handed to a worker; empty when one can."""
    try:
        os.close(templates.open(_SPEC, []))
    except OSError as error:
        return _reason("open-root", error)
    return ""


def _status(layer: str, failures: Failures, without_proc: str) -> LayerStatus:
    if layer in failures:
        return LayerStatus(layer, "absent", failures[layer])
    if layer == "capabilities" and _BOUNDING_SET in failures:
        return LayerStatus(layer, "degraded", failures[_BOUNDING_SET])
    if layer == "rootfs" and without_proc:
        return LayerStatus(layer, "enforced", f"{_POSSIBLE}, without /proc: {without_proc}")
    return LayerStatus(layer, "enforced", _POSSIBLE)


def _try_all(ground: Ground, group: Group, uid: int, known: Failures) -> Failures:
    """Make the trial process with as many of the namespaces as there are, and collect its report."""
    failures: Failures = {}
    with suppress(OSError):
        group.limit(_LIMITS)
    for layers in (("userns", "pidns"), ("userns",), ("pidns",), ()):
        try:
            left = frozenset(LAYERS) - known.keys() - failures.keys() - {"userns", "pidns"}
            report = _run(ground, group, uid, left | set(layers))
        except OSError as error:
            failures |= {layer: _reason(layer, error) for layer in layers if layer not in failures}
            continue
        missing = {"userns", "pidns"} - set(layers)
        return {layer: failures.get(layer, "not possible here") for layer in missing} | report
    raise RuntimeError(f"no process can be made here, confined or not: {failures}")


def _run(ground: Ground, group: Group, uid: int, layers: frozenset[str]) -> Failures:
    root = ground.templates.open(_SPEC, []) if ground.templates and "rootfs" in layers else -1
    report, report_end = os.pipe2(os.O_CLOEXEC)
    gate, gate_end = os.pipe2(os.O_CLOEXEC)
    born_in, entries = group.entry()
    try:
        cloned = syscalls.clone(namespaces.clone_flags(layers), born_in)
        if cloned is None:
            os.close(gate_end)
            _be_trial(ground, layers, root, entries, (gate, report_end), uid)
        try:
            os.close(report_end)
            report_end = -1
            return _follow(cloned.pid, gate_end, report, uid, ground, layers)
        finally:
            os.close(cloned.pidfd)
            os.kill(cloned.pid, 9)
            os.waitpid(cloned.pid, 0)
    finally:
        for fd in (root, report, report_end, gate, gate_end, -1 if born_in is None else born_in, *entries):
            if fd >= 0:
                os.close(fd)


def _follow(
    pid: int, gate_end: int, report: int, uid: int, ground: Ground, layers: frozenset[str]
) -> Failures:
    if "userns" in layers:
        namespaces.write_maps(pid, privileges.WORKER_ID, uid, privileged=ground.privileged)
    os.write(gate_end, b"x")
    text = b""
    while len(text) < _MAX_REPORT_BYTES and (part := os.read(report, _MAX_REPORT_BYTES)):
        text += part
    if not text:
        # Not a finding but a fault of ours; to go on would be to start workers without any wall.
        raise RuntimeError("the trial process died without a report")
    return {str(layer): str(reason) for layer, reason in json.loads(text).items()}


def _be_trial(
    ground: Ground,
    layers: frozenset[str],
    root: int,
    entries: tuple[int, ...],
    pipes: tuple[int, int],
    uid: int,
) -> NoReturn:
    gate, report_end = pipes
    try:
        os.read(gate, 1)
        os.write(report_end, json.dumps(_explore(ground, layers, root, entries, uid)).encode())
    finally:
        os._exit(0)


def _explore(
    ground: Ground, layers: frozenset[str], root: int, entries: tuple[int, ...], uid: int
) -> Failures:
    failures: Failures = {}
    for entry in entries:
        try:
            os.write(entry, b"0")
        except OSError as error:
            failures |= dict.fromkeys(CGROUP_LAYERS, _reason("a worker cannot enter its group", error))
    for layer in NAMESPACE_LAYERS:
        if layer in layers - {"userns", "pidns"}:
            try:
                syscalls.unshare(namespaces.FLAGS[layer])
            except OSError as error:
                failures[layer] = _reason("unshare", error)
    if "mountns" in failures and "rootfs" in layers:
        failures["rootfs"] = "needs mountns"
    usable = layers - failures.keys()
    if {"rootfs", "pidns"} <= usable:
        usable |= {OWN_PROC}
    _take_steps(ground, usable, Order(_SPEC, usable, (), (), (), uid, (), root, ()), failures)
    return failures


def _take_steps(ground: Ground, usable: frozenset[str], order: Order, failures: Failures) -> None:
    """Every step of a start that is some layer's; each failure is noted, and leaves the rest of that layer out."""
    site = ground.templates.site if ground.templates else ""
    stand_in, _ = socket.socketpair()
    subject = _confine.Subject(stand_in, (), usable, site, order=order)
    leave = ("leave-old-root",) if "rootfs" in usable else ()
    for step in (*prepare_steps(usable), *confine_steps(usable), *leave, *finish_steps(usable)):
        layer = _LAYER_OF_STEP.get(step, "")
        if not layer or layer in failures or (step in _IN_PROC and OWN_PROC in failures):
            continue
        try:
            _confine.run_steps(subject, (step,))
        except _confine.StepFailed as failure:
            failures[layer] = str(failure)
    if privileges.bounding_set_left():
        failures[_BOUNDING_SET] = privileges.BOUNDED_BY_NO_NEW_PRIVS


def _reason(what: str, error: OSError) -> str:
    return f"{what}: {error.strerror or error}"


def main() -> None:
    """Print what this user can apply on this machine as JSON; the trial happens in this very process."""
    driver = tree.open_driver("trial")
    try:
        features = examine(settle(), driver)
    finally:
        driver.close()
    sys.stdout.write(json.dumps(asdict(features)))
