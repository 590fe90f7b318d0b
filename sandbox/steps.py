"""The order of confinement, as data: what a specification and this machine's features come to, or a refusal. Pure.

The order matters, and each place has its reason:

- the control group first, so that nothing of a worker is ever outside its caps; the cgroup namespace after it, so that
  its root is that group;
- the user as soon as there is one (a mapped user namespace), as late as possible without (the steps need privilege);
- whatever does not depend on the specification before it is known, since that is off the time of a start: /proc, the
  end of user namespaces (which the writing to /proc needs), the bounding set, no-new-privs, and the fork of the worker;
- the way out (`egress`) as soon as it is known that there is to be one, while a port may still be bound;
- the file system while mounts may still be changed; Landlock after it, since it names places in it and forbids
  changing mounts;
- Linux capabilities after everything that needs them; seccomp last, since it denies most of the calls above.

The worker is forked while it is still nobody's. Everything before the fork holds for both; the root that init puts
together becomes the worker's too (pivot_root(2) moves every process of the mount namespace); what belongs to a process
alone, from its resource limits on, each of the two does for itself, at the same time.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from sandbox.egress.rules import EGRESS_LAYERS
from sandbox.errors import SandboxUnsupported
from sandbox.features import Features, with_proc
from sandbox.layers import LAYERS, NAMESPACE_LAYERS, OWN_PROC, LayerStatus, lacking
from sandbox.spec import SandboxSpec

# The namespaces an init makes for itself; the other two come with its creation.
_UNSHARED = frozenset(NAMESPACE_LAYERS) - {"userns", "pidns"}
# A layer that means nothing without another one.
_DEPENDS = {"rootfs": "mountns", "landlock": "no-new-privs", "seccomp": "no-new-privs"}


# What the worker does right after its fork, whatever it is for.
FORKED = ("own-session", "hear-signals")


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be applied, and in which order.

    `prepare` comes before the specification is known and before the fork of the worker, `confine` after it in init,
    which then takes the steps of `withdraw` while the worker takes those of `finish`. `absent` says why each other
    layer is left out, `degraded` which are applied as far as this place lets them, `without_proc` why there is no
    /proc in a root of the worker's own.
    """

    layers: frozenset[str]
    absent: tuple[LayerStatus, ...]
    prepare: tuple[str, ...]
    confine: tuple[str, ...]
    withdraw: tuple[str, ...]
    finish: tuple[str, ...]
    degraded: tuple[LayerStatus, ...] = ()
    without_proc: str = ""


def decide(spec: SandboxSpec, features: Features) -> Plan:
    """The steps for `spec` where `features` can be applied.

    Raises:
        SandboxUnsupported: a required layer would be missing.
    """
    absent = _absent(spec, features)
    degraded = {
        status.layer: status
        for status in features
        if status.state == "degraded" and status.layer not in absent
    }
    needed = spec.require | _needed_for_egress(spec)
    if missing := lacking(
        [*_enforced(absent.keys() | degraded.keys()), *absent.values(), *degraded.values()], needed
    ):
        raise SandboxUnsupported(missing)
    layers = with_proc(frozenset(LAYERS) - absent.keys(), features)
    return Plan(
        layers,
        tuple(absent.values()),
        prepare_steps(layers),
        confine_steps(layers, egress=spec.network == "proxy"),
        withdraw_steps(layers),
        finish_steps(layers),
        tuple(degraded.values()),
        "" if OWN_PROC in layers else features.without_proc or "it shows a pid namespace, and there is none",
    )


def _needed_for_egress(spec: SandboxSpec) -> frozenset[str]:
    """Without a network namespace the port would be this machine's: that one is never left out, not even on purpose."""
    if spec.network == "none":
        return frozenset()
    return EGRESS_LAYERS - (spec.disable - {"netns"})


def prepare_steps(layers: frozenset[str]) -> tuple[str, ...]:
    """What a future init does before it knows for whom, ending with the fork of the worker."""
    has_user, has_proc = "userns" in layers, OWN_PROC in layers
    return _chosen(
        ("enter-cgroup", True),
        ("die-first", True),
        ("new-session", True),
        ("die-with-spawner", True),
        ("adopt-orphans", "pidns" not in layers),
        # Never without a reason: container engines refuse the call whatever it asks for.
        ("unshare", not layers.isdisjoint(_UNSHARED)),
        ("loopback-up", "netns" in layers),
        ("await-map", has_user),
        ("become-worker-user", has_user),
        ("private-mounts", "mountns" in layers),
        ("mount-proc", has_proc),
        ("forbid-user-namespaces", has_user and has_proc),
        ("seal-proc", has_proc),
        ("lock-capabilities", "capabilities" in layers),
        ("forbid-new-privileges", "no-new-privs" in layers),
        ("scope-signals", "pidns" not in layers and "landlock" in layers),
        ("die-with-spawner", True),
    )


def confine_steps(layers: frozenset[str], *, egress: bool = False) -> tuple[str, ...]:
    """What init does for both once it knows: the worker goes on when this is done."""
    return _chosen(
        ("load-filter", "seccomp" in layers),
        ("open-egress", egress),
        ("assemble-root", "rootfs" in layers),
        ("enter-root", "rootfs" in layers),
        ("set-hostname", "utsns" in layers),
    )


def withdraw_steps(layers: frozenset[str]) -> tuple[str, ...]:
    """How init confines itself to what is left for it to do: wait, pass on signals, tell."""
    return _chosen(
        ("leave-old-root", "rootfs" in layers),
        ("set-rlimits", "rlimits" in layers),
        ("forbid-everything", "landlock" in layers),
        ("become-worker-user-late", "userns" not in layers),
        ("drop-capabilities", "capabilities" in layers),
        ("die-with-spawner", True),
        ("hide-memory", True),
        ("restrict-seccomp", "seccomp" in layers),
    )


def finish_steps(layers: frozenset[str]) -> tuple[str, ...]:
    """What the worker does between the root being ready and its exec."""
    return _chosen(
        ("load-filter", "seccomp" in layers),
        ("set-rlimits", "rlimits" in layers),
        ("restrict-landlock", "landlock" in layers),
        ("become-worker-user-late", "userns" not in layers),
        ("drop-capabilities", "capabilities" in layers),
        ("die-with-init", True),
        ("enter-directory", True),
        ("standard-streams", True),
        ("show-memory", True),
        ("restrict-seccomp", "seccomp" in layers),
    )


def filter_variants(network: str, layers: frozenset[str]) -> frozenset[str]:
    """The variants of the seccomp profile that a worker gets."""
    # Without these two a worker sees the sockets of the place it runs in, and would be let in by some.
    own_sockets = {"rootfs", "netns"} <= layers
    own_files, own_processes = "rootfs" in layers, "pidns" in layers
    return frozenset(
        _chosen(
            ("egress", network == "proxy"),
            ("no-unix", not own_sockets),
            ("host-files", not own_files),
            ("host-processes", not own_processes),
        )
    )


def _chosen(*steps: tuple[str, bool]) -> tuple[str, ...]:
    return tuple(name for name, wanted in steps if wanted)


def _absent(spec: SandboxSpec, features: Features) -> dict[str, LayerStatus]:
    absent: dict[str, LayerStatus] = {}
    caps = {
        "cgroup.memory": spec.limits.memory_bytes,
        "cgroup.pids": spec.limits.pids,
        "cgroup.cpu": spec.limits.cpu_millis,
    }
    for layer in LAYERS:
        depends = _DEPENDS.get(layer)
        if layer in spec.disable:
            absent[layer] = LayerStatus(layer, "absent", "left out on purpose")
        elif features.status(layer).state == "absent":
            absent[layer] = features.status(layer)
        elif depends in absent:
            absent[layer] = LayerStatus(layer, "absent", f"needs {depends}")
        elif layer in caps and caps[layer] is None:
            absent[layer] = LayerStatus(layer, "absent", "no cap was asked for")
    return absent


def _enforced(others: AbstractSet[str]) -> list[LayerStatus]:
    return [LayerStatus(layer, "enforced", "") for layer in LAYERS if layer not in others]
