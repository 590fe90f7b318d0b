"""What holds here, what does not, and what to do about it: findings from trials, facts and attempts. Pure.

A trial (`features`) says that a layer can be applied or how it failed; the attempts and facts say what stands in the
way; `remedies` has the words for the place. A fact that is missing takes its explanation away, never a finding.
"""

import errno
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from sandbox.doctor.place import Facts, Place, recognise
from sandbox.doctor.remedies import Obstacle, remedy
from sandbox.features import Features
from sandbox.layers import CGROUP_LAYERS, LAYERS, LayerStatus, State

# The Linux version from which all that a layer is made of here exists: namespaces(7), open_tree(2), mount_setattr(2),
# seccomp(2), landlock(7), and for the rest close_range(2), without which no worker starts.
NEEDS: dict[str, tuple[int, int]] = dict.fromkeys(LAYERS, (5, 9)) | {
    "mountns": (5, 12),
    "rootfs": (5, 12),
    "landlock": (5, 13),
}

# The calls that a layer's trial makes. What is not named here needs none that filters usually refuse.
_CALLS: dict[str, tuple[str, ...]] = {
    "userns": ("clone", "unshare"),
    "mountns": ("clone", "unshare", "mount"),
    "pidns": ("clone",),
    "netns": ("unshare",),
    "ipcns": ("unshare",),
    "utsns": ("unshare", "sethostname"),
    "cgroupns": ("unshare",),
    "rootfs": (
        *("unshare", "mount", "umount2", "open_tree", "move_mount", "mount_setattr", "openat2", "pivot_root"),
    ),
    "capabilities": ("clone", "unshare"),
}
# Layers that an ordinary user has by way of a user namespace, and root by its privilege.
_BY_NAMESPACE = frozenset(_CALLS)

# How a filter ends a process that makes a call it does not allow, where it does not just refuse (seccomp(2)).
_KILLED = "SIGSYS"
# Calls for which only privilege can tell a filter's answer from the kernel's; a trial's reason names the failing call.
_UNSEEN = ("pivot_root:", "move_mount:", "sethostname:")

# What keeps a zygote and the workers forked from it apart; none of it may be degraded.
ZYGOTE_NEEDS = (
    *("userns", "mountns", "pidns", "netns", "ipcns", "utsns"),
    *("rootfs", "no-new-privs", "capabilities", "seccomp"),
)
# How such workers get into their namespaces, and how the fork server sees that they share no memory.
_ZYGOTE_CALLS = ("setns", "kcmp")

AbilityState = Literal["possible", "missing"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One layer: what was found, how, and what to do; `fix` is empty where nothing is to be done."""

    layer: str
    state: State
    reason: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Ability:
    """Something beyond the layers that a worker may be given, and whether it can be had here."""

    ability: str
    state: AbilityState
    reason: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything found about one place, for the user `uid` on a kernel of that release."""

    place: Place
    kernel: str
    uid: int
    findings: tuple[Finding, ...]
    abilities: tuple[Ability, ...]

    def unmet(self, require: frozenset[str]) -> tuple[Finding, ...]:
        """The required layers that cannot be enforced here."""
        return tuple(each for each in self.findings if each.layer in require and each.state != "enforced")

    def to_wire(self) -> dict[str, object]:
        """As values that JSON can carry; keys are added in later versions, and none is taken away."""
        return {
            "place": asdict(self.place),
            "kernel": self.kernel,
            "uid": self.uid,
            "layers": [asdict(each) for each in self.findings],
            "abilities": [asdict(each) for each in self.abilities],
        }


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What came of trying abilities: making a volume with a size, and forking a worker from a zygote."""

    sizes: LayerStatus
    zygote: LayerStatus


def judge(features: Features, facts: Facts, outcomes: Outcomes) -> Diagnosis:
    """The diagnosis that trials and facts come to."""
    place = recognise(facts.marks)
    findings = tuple(_finding(features, facts, place, layer) for layer in LAYERS)
    abilities = (
        _zygote(features, facts, place, outcomes.zygote),
        *(make(features, facts, place) for make in _ABILITIES),
        _sized_volumes(facts, place, outcomes.sizes),
    )
    return Diagnosis(place, facts.kernel.release, facts.process.uid, findings, abilities)


def _finding(features: Features, facts: Facts, place: Place, layer: str) -> Finding:
    status = features.status(layer)
    if (
        layer == "rootfs"
        and status.state == "enforced"
        and features.without_proc
        and facts.mounted.proc_covers
    ):
        covered = f"{status.reason}; covered: {', '.join(facts.mounted.proc_covers)}"
        return Finding(
            layer, "enforced", covered, remedy("proc-covered", place, layer=layer, needs=_needs(layer))
        )
    if status.state == "enforced":
        return Finding(layer, "enforced", status.reason)
    if layer == "capabilities" and status.state == "degraded":
        # No user without privilege can have more of it, and nothing is to be done about that.
        return Finding(layer, "degraded", status.reason)
    found = tuple(_obstacles(status, facts))
    fixes = (remedy(each, place, layer=layer, needs=_needs(layer)) for each in found)
    state, reason = status.state, _explained(status, found, facts)
    if layer == "cgroup.pids" and features.has("rlimits"):
        state, reason = "degraded", f"RLIMIT_NPROC holds the cap instead of a group: {reason}"
    return Finding(layer, state, reason, " ".join(fixes))


def _needs(layer: str) -> str:
    return "{}.{}".format(*NEEDS[layer])


def _explained(status: LayerStatus, obstacles: tuple[Obstacle, ...], facts: Facts) -> str:
    """The trial's own words, with what the attempts and facts add to them."""
    said = [status.reason]
    calls = _CALLS.get(status.layer, ())
    refused = [
        call for call in facts.attempts.refused_calls or () if call in calls or _KILLED in status.reason
    ]
    if "call-filter" in obstacles and refused:
        said.append(f"a filter over this process refuses {', '.join(refused)}")
    if "proc-covered" in obstacles:
        said.append(f"covered: {', '.join(facts.mounted.proc_covers)}")
    if "old-kernel" in obstacles:
        said.append(f"this is Linux {facts.kernel.release}")
    return "; ".join(said)


def _obstacles(status: LayerStatus, facts: Facts) -> Iterator[Obstacle]:
    """What stands in the way of one layer, the outermost first; always at least one."""
    layer = status.layer
    version = facts.kernel.version
    if version is not None and version < NEEDS[layer]:
        yield "old-kernel"
    elif layer in CGROUP_LAYERS:
        yield _group_obstacle(status, facts)
    elif layer == "landlock":
        yield _landlock_obstacle(facts)
    elif layer in _BY_NAMESPACE:
        yield from tuple(_namespace_obstacles(status, facts)) or ("kernel-without",)
    else:
        yield "call-filter" if facts.process.filtered else "kernel-without"


def _namespace_obstacles(status: LayerStatus, facts: Facts) -> Iterator[Obstacle]:
    kernel, process = facts.kernel, facts.process
    ordinary = not process.may_administer
    if kernel.max_user_namespaces == 0:
        yield "namespaces-switched-off"
    if ordinary and kernel.unprivileged_userns_clone == 0:
        yield "namespaces-not-for-users"
    if _filtered(status, facts):
        yield "call-filter"
    if ordinary and kernel.apparmor_restricts_userns == 1 and process.apparmor in {"", "unconfined"}:
        yield "apparmor"
    if process.apparmor.endswith("(enforce)") and status.layer in {"mountns", "rootfs"}:
        yield "apparmor-profile"
    if process.uid == 0 and ordinary:
        yield "root-without-privilege"
    if process.uid == 0 and process.users == 1:
        yield "users-not-mapped"
    # Without a /proc of its own a worker's init has nowhere to forbid further namespaces either.
    needs_proc = status.layer == "rootfs" or "forbid-user-namespaces" in status.reason
    if needs_proc and facts.mounted.proc_covers:
        yield "proc-covered"


def _filtered(status: LayerStatus, facts: Facts) -> bool:
    refused = facts.attempts.refused_calls
    if refused is None or any(word in status.reason for word in (_KILLED, *_UNSEEN)):
        return facts.process.filtered
    return any(call in refused for call in _CALLS[status.layer])


def _landlock_obstacle(facts: Facts) -> Obstacle:
    if facts.attempts.landlock_errno == errno.EOPNOTSUPP:
        return "landlock-not-in-boot-list"
    modules = facts.kernel.security_modules
    if facts.attempts.landlock_errno is None and modules is not None and "landlock" not in modules:
        return "landlock-not-in-boot-list"
    # A filter answers like a kernel that does not have the calls; no kernel since 5.13 answers EPERM.
    return "call-filter" if facts.process.filtered else "kernel-without"


def _group_obstacle(status: LayerStatus, facts: Facts) -> Obstacle:
    if facts.mounted.groups_version == 0:
        return "no-groups"
    if facts.mounted.groups_read_only:
        return "groups-read-only"
    if "cannot be divided" in status.reason and "busy" in status.reason:
        return "groups-not-divisible"
    return "groups-not-ours"


def _zygote(features: Features, facts: Facts, place: Place, outcome: LayerStatus) -> Ability:
    if outcome.state == "enforced":
        return Ability("zygote", "possible", outcome.reason)
    needs = _built_on("zygote", ZYGOTE_NEEDS, features, facts, place)
    if needs.state == "missing":
        return needs
    refused = [call for call in _ZYGOTE_CALLS if call in (facts.attempts.refused_calls or ())]
    if refused and facts.process.filtered:
        reason = f"a filter over this process refuses {', '.join(refused)}"
        return Ability("zygote", "missing", reason, remedy("call-filter", place, layer="zygote"))
    return Ability("zygote", "missing", outcome.reason, remedy("no-zygote", place, layer="zygote"))


def _egress(features: Features, facts: Facts, place: Place) -> Ability:
    return _built_on("egress", ("netns", "landlock", "seccomp"), features, facts, place)


def _built_on(
    ability: str, layers: tuple[str, ...], features: Features, facts: Facts, place: Place
) -> Ability:
    missing = [layer for layer in layers if not features.has(layer)]
    if not missing:
        return Ability(ability, "possible", "every layer it stands on can be enforced")
    fix = _finding(features, facts, place, missing[0]).fix
    return Ability(ability, "missing", f"needs {', '.join(missing)}", fix)


def _sized_volumes(facts: Facts, place: Place, sizes: LayerStatus) -> Ability:
    if sizes.state == "enforced":
        return Ability("sized-volumes", "possible", sizes.reason)
    attempts = facts.attempts
    if attempts.loop_errno == 0 and attempts.has_mkfs is False:
        fix = remedy("no-program", place, layer="", needs="mke2fs and e2fsck (Debian: e2fsprogs)")
    else:
        fix = remedy("no-loop-devices", place, layer="")
    return Ability("sized-volumes", "missing", sizes.reason, fix)


def _groups(features: Features, facts: Facts, place: Place) -> Ability:
    version = facts.mounted.groups_version
    missing = [layer for layer in CGROUP_LAYERS if not features.has(layer)]
    if missing:
        first = _finding(features, facts, place, missing[0])
        return Ability("cgroup-delegation", "missing", f"version {version}: {first.reason}", first.fix)
    return Ability("cgroup-delegation", "possible", f"version {version}, groups can be made and capped")


def _denial_counting(features: Features, facts: Facts, place: Place) -> Ability:
    number = facts.attempts.notifier_errno
    if number == 0 and features.has("seccomp"):
        return Ability("denial-counting", "possible", "a filter that hands calls to a listener was installed")
    seen = "not tried" if number is None else errno.errorcode.get(number, "killed")
    fix = remedy("another-listener" if number == errno.EBUSY else "no-notifications", place, layer="")
    return Ability("denial-counting", "missing", f"no filter hands calls to a listener here: {seen}", fix)


_ABILITIES: tuple[Callable[[Features, Facts, Place], Ability], ...] = (
    _egress,
    _groups,
    _denial_counting,
)
