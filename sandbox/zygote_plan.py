"""What a zygote is given, and what waits for the worker: decided here from a specification. Pure.

One zygote serves every specification with the same `kind`. Nothing in there is a tenant's: no environment, no data, no
place that can be written, no name. Those come to the worker alone, after it was found to be confined.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from sandbox.errors import SandboxSetupFailed, SandboxUnsupported
from sandbox.features import Features
from sandbox.layers import LayerStatus
from sandbox.spec import Mount, SandboxSpec, Volume, Zygote
from sandbox.steps import Plan, decide, prepare_steps

# The stub's own channel, above what `_child` places.
CONTROL_FD = 5

# What keeps a zygote from its workers, and them from each other, although they began as one process. Not to be
# degraded: where one is missing, or left out on purpose, the server is to be started with exec.
NEEDED = frozenset({
    "userns", "mountns", "pidns", "netns", "ipcns", "utsns", "rootfs", "no-new-privs", "capabilities", "seccomp",
})  # fmt: skip

_ENVIRONMENT = (
    ("HOME", "/tmp"),  # noqa: S108 - a path inside the sandbox
    ("LANG", "C.UTF-8"),
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("TMPDIR", "/tmp"),  # noqa: S108
)
_STUB = Path(__file__).with_name("zygote") / "program.py"


def zygote_of(spec: SandboxSpec) -> Zygote:
    """The specification's zygote; asked only where there is one."""
    if spec.zygote is None:
        raise SandboxSetupFailed("zygote", 0, "a worker without one")
    return spec.zygote


def kind(spec: SandboxSpec) -> str:
    """The same for specifications whose workers may come from one zygote."""
    zygote = zygote_of(spec)
    shared = replace(bare(spec), zygote=replace(zygote, run="zygote", argv=("/",)))
    return hashlib.sha256(json.dumps(shared.to_wire(), sort_keys=True).encode()).hexdigest()


def bare(spec: SandboxSpec) -> SandboxSpec:
    """The specification without what is a tenant's: where a volume is to appear is left, and not whose it is."""
    volumes = sorted(spec.volumes, key=lambda volume: volume.target)
    return replace(
        spec,
        name="zygote",
        argv=("/",),
        env=(),
        cwd="/",
        data=None if spec.data is None else "/nowhere/data",
        data_size_bytes=None,
        volumes=tuple(
            Volume(source=f"/nowhere/{index}", target=volume.target) for index, volume in enumerate(volumes)
        ),
        require=frozenset(),
    )


def late_targets(spec: SandboxSpec) -> frozenset[str]:
    """The mounts a worker gets only once it was found to be confined: what can be written, and what lies below that."""
    late = {mount.target for mount in spec.mounts if mount.writable}
    late |= {volume.target for volume in spec.kept()}
    late |= {
        mount.target for mount in spec.mounts if any(mount.target.startswith(f"{outer}/") for outer in late)
    }
    return frozenset(late)


def early_mounts(spec: SandboxSpec) -> tuple[Mount, ...]:
    """The mounts that zygote and worker have in common."""
    late = late_targets(spec)
    return tuple(mount for mount in spec.mounts if mount.target not in late)


def zygote_spec(spec: SandboxSpec, *, count_processes: bool) -> SandboxSpec:
    """The sandbox of the zygote itself: that of its workers without what is a tenant's, and without a user namespace.

    In one it could enter no other. `count_processes` is off where its user is not its own: the limit counts by user.
    """
    zygote = zygote_of(spec)
    told = json.dumps({"control": CONTROL_FD, "preload": zygote.preload})
    limits = spec.limits if count_processes else replace(spec.limits, pids=None)
    return replace(
        spec,
        name="zygote",
        argv=(*zygote.interpreter, "-c", _STUB.read_text("utf-8"), told),
        env=tuple({**dict(_ENVIRONMENT), **dict(zygote.settings)}.items()),
        cwd="/",
        mounts=early_mounts(spec),
        data=None,
        data_size_bytes=None,
        volumes=(),
        limits=limits,
        require=frozenset(),
        disable=spec.disable | {"userns"},
        zygote=None,
    )


def decide_worker(spec: SandboxSpec, features: Features) -> Plan:
    """The plan of a worker that comes from a zygote.

    Raises:
        SandboxUnsupported: a layer is missing that is required, or that a zygote needs.
    """
    plan = decide(spec, features)
    _refuse_missing(plan, NEEDED)
    return plan


def decide_zygote(spec: SandboxSpec, features: Features) -> Plan:
    """The plan of the zygote: no /proc to look into, and a Landlock domain that its workers can live in.

    Raises:
        SandboxUnsupported: as `decide_worker`.
    """
    plan = decide(spec, features)
    _refuse_missing(plan, NEEDED - {"userns"})
    replaced = {
        "restrict-landlock": "restrict-landlock-coarsely",
        "load-filter": "load-zygote-filter",
        "restrict-seccomp": "restrict-seccomp-uncounted",
    }
    confine, finish = (
        tuple(replaced.get(step, step) for step in steps if step != "open-egress")
        for steps in (plan.confine, plan.finish)
    )
    return replace(plan, prepare=prepare_zygote_steps(plan.layers), confine=confine, finish=finish)


def prepare_zygote_steps(layers: frozenset[str]) -> tuple[str, ...]:
    """What a zygote's init does before its order: no /proc, where the zygote would see the workers forked from it."""
    return tuple(step for step in prepare_steps(layers) if step not in {"mount-proc", "seal-proc"})


def _refuse_missing(plan: Plan, needed: frozenset[str]) -> None:
    missing = tuple(
        LayerStatus(status.layer, status.state, f"{status.reason}; a zygote needs it")
        for status in plan.absent
        if status.layer in needed
    )
    if missing:
        raise SandboxUnsupported(missing)


def site_steps(plan: Plan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the init of such a worker does before the worker comes, and after it was found to be confined.

    The first half makes the place and lets the old root go, which who enters would find on top. Then init is looked at,
    and hides itself from who will enter. The second half brings in what is the tenant's and then gives up what was
    needed for that.
    """
    late = {"load-filter", "open-egress", "set-hostname"}
    before = [step for step in plan.confine if step not in late]
    after = [step for step in plan.confine if step in late]
    withdraw = [step for step in plan.withdraw if step != "leave-old-root"]
    return (*before, "leave-old-root"), (*after, "attach-places", *withdraw)
