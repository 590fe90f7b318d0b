"""The order of confinement, as data: what a specification and this machine's features come to, or a refusal. Pure.

The order matters, and each place has its reason:

- the control group first, so that nothing of a worker is ever outside its caps; the cgroup namespace after it, so that
  its root is that group;
- the user as soon as there is one (a mapped user namespace), as late as possible without (the steps need privilege);
- the file system while mounts may still be changed; Landlock after it, since it names places in it and forbids
  changing mounts;
- user namespaces forbidden before privilege is dropped, which the writing needs;
- Linux capabilities after everything that needs them; seccomp last, in the worker alone and once more in its init,
  since it denies most of the calls above.
"""

from dataclasses import dataclass

from sandbox.errors import SandboxUnsupported
from sandbox.features import Features
from sandbox.layers import LAYERS, LayerStatus, lacking
from sandbox.spec import SandboxSpec

# A layer that means nothing without another one.
_DEPENDS = {"rootfs": "mountns", "landlock": "no-new-privs", "seccomp": "no-new-privs"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be applied, and in which order.

    `prepare` comes before init knows its specification, `confine` after, `finish` in the worker. `absent` says why each
    other layer is left out.
    """

    layers: frozenset[str]
    absent: tuple[LayerStatus, ...]
    prepare: tuple[str, ...]
    confine: tuple[str, ...]
    finish: tuple[str, ...]


def decide(spec: SandboxSpec, features: Features) -> Plan:
    """The steps for `spec` where `features` can be applied.

    Raises:
        SandboxUnsupported: a required layer would be missing.
    """
    absent = _absent(spec, features)
    if missing := lacking([*absent.values(), *_others_enforced(absent)], spec.require):
        raise SandboxUnsupported(missing)
    layers = frozenset(LAYERS) - absent.keys()
    return Plan(
        layers, tuple(absent.values()), prepare_steps(layers), confine_steps(layers), finish_steps(layers)
    )


def prepare_steps(layers: frozenset[str]) -> tuple[str, ...]:
    """What a future init does before it knows for whom."""
    return _chosen(
        ("enter-cgroup", True),
        ("die-first", True),
        ("new-session", True),
        ("die-with-spawner", True),
        ("adopt-orphans", "pidns" not in layers),
        ("unshare", True),
        ("loopback-up", "netns" in layers),
    )


def confine_steps(layers: frozenset[str]) -> tuple[str, ...]:
    """What init does once it knows, ending with the fork of the worker."""
    has_user = "userns" in layers
    return _chosen(
        ("load-filter", "seccomp" in layers),
        ("become-worker-user", has_user),
        ("assemble-root", "rootfs" in layers),
        ("enter-root", "rootfs" in layers),
        ("set-hostname", "utsns" in layers),
        ("forbid-user-namespaces", has_user and "rootfs" in layers and "pidns" in layers),
        ("seal-proc", "rootfs" in layers and "pidns" in layers),
        ("set-rlimits", "rlimits" in layers),
        ("lock-capabilities", "capabilities" in layers),
        ("forbid-new-privileges", "no-new-privs" in layers),
        ("restrict-landlock", "landlock" in layers),
        ("become-worker-user-late", not has_user),
        ("drop-capabilities", "capabilities" in layers),
        ("die-with-spawner", True),
        ("hide-memory", True),
    )


def finish_steps(layers: frozenset[str]) -> tuple[str, ...]:
    """What the worker does between its fork and its exec."""
    return _chosen(
        ("own-session", True),
        ("default-signals", True),
        ("enter-directory", True),
        ("standard-streams", True),
        ("show-memory", True),
        ("restrict-seccomp", "seccomp" in layers),
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
        elif not features.has(layer):
            absent[layer] = features.status(layer)
        elif depends in absent:
            absent[layer] = LayerStatus(layer, "absent", f"needs {depends}")
        elif layer in caps and caps[layer] is None:
            absent[layer] = LayerStatus(layer, "absent", "no cap was asked for")
    return absent


def _others_enforced(absent: dict[str, LayerStatus]) -> list[LayerStatus]:
    return [LayerStatus(layer, "enforced", "") for layer in LAYERS if layer not in absent]
