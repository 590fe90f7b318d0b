"""Where this process runs, recognised from facts that were gathered before. Pure; the gathering is in `machine_facts`.

A fact that could not be read is None, and every decision here goes on without it. The same missing layer has another
remedy on a machine, in a container, in a pod and in a systemd unit, so this is what a remedy is chosen by.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, cast

Kind = Literal["machine", "systemd-unit", "docker", "podman", "container", "kubernetes"]

# include/linux/proc_ns.h, PROC_PID_INIT_INO: the pid namespace that the kernel itself started.
FIRST_PID_NAMESPACE = 0xEFFFFFFC

_CAP_SYS_ADMIN = 21  # include/uapi/linux/capability.h
_UNIT = re.compile(r"[^/]+\.service")
_SECCOMP_FILTER = 2  # Seccomp: in proc_pid_status(5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What container engines and service managers leave for a process to see."""

    docker_file: bool = False
    podman_file: bool = False
    kubernetes_variable: bool = False
    started_by_systemd: bool = False
    root_kind: str | None = None
    pid_namespace: int | None = None
    first_groups: tuple[str, ...] = ()
    own_groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What this process itself may do. `users` is how many users its user namespace maps (user_namespaces(7))."""

    uid: int = 0
    users: int | None = None
    capabilities: int | None = None
    seccomp_mode: int | None = None
    apparmor: str = ""

    @property
    def filtered(self) -> bool:
        """Whether somebody put a system call filter over this process."""
        return self.seccomp_mode == _SECCOMP_FILTER

    @property
    def may_administer(self) -> bool:
        """Whether it holds CAP_SYS_ADMIN here, as far as that is known."""
        return self.uid == 0 if self.capabilities is None else bool(self.capabilities >> _CAP_SYS_ADMIN & 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """The kernel and its switches. None stands for a switch that this kernel does not have, or does not show."""

    release: str = ""
    security_modules: tuple[str, ...] | None = None
    max_user_namespaces: int | None = None
    unprivileged_userns_clone: int | None = None
    apparmor_restricts_userns: int | None = None

    @property
    def version(self) -> tuple[int, int] | None:
        """Major and minor number; None for a release that does not begin with them."""
        match = re.match(r"(\d+)\.(\d+)", self.release)
        return None if match is None else (int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """What is mounted where it matters: over /proc, and for control groups."""

    proc_covers: tuple[str, ...] = ()
    groups_version: Literal[0, 1, 2] = 0
    groups_read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """What came of calls that change nothing (`attempts`). An errno of 0 is success, of -1 a killed process.

    `refused_calls` names those that a filter over this process turns down; None for not tried.
    """

    refused_calls: tuple[str, ...] | None = None
    landlock_errno: int | None = None
    notifier_errno: int | None = None
    loop_errno: int | None = None
    has_mkfs: bool | None = None

    def to_wire(self) -> dict[str, object]:
        """As values that JSON can carry."""
        return asdict(self)

    @classmethod
    def from_wire(cls, value: object) -> "Attempts":
        """The attempts that `to_wire` was made from, by a process of ours; anything else is a `TypeError`."""
        fields = dict(cast("dict[str, object]", value))
        calls = cast("list[str]", fields.pop("refused_calls"))
        return cls(refused_calls=tuple(calls), **fields)  # type: ignore[arg-type]  # `to_wire` wrote them


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything a remedy depends on."""

    marks: Marks = field(default_factory=Marks)
    process: Process = field(default_factory=Process)
    kernel: Kernel = field(default_factory=Kernel)
    mounted: Mounted = field(default_factory=Mounted)
    attempts: Attempts = field(default_factory=Attempts)


@dataclass(frozen=True, slots=True)
class Place:
    """Where we are, `name` in words for a person; `unit` is the systemd unit, where that is the place."""

    kind: Kind
    name: str
    unit: str = ""


def recognise(marks: Marks) -> Place:
    """The place. The innermost wins: a pod is a container too, and a unit inside a container is that container's.

    An engine's file in the root directory proves nothing by itself, for images are also unpacked onto machines; it
    counts where something the kernel says agrees with it.
    """
    contained = (
        marks.kubernetes_variable
        or marks.podman_file
        or marks.root_kind in {"overlay", "fuse-overlayfs"}
        or any(word in group for group in marks.first_groups for word in _ENGINE_WORDS)
        or (marks.docker_file and marks.pid_namespace not in {None, FIRST_PID_NAMESPACE})
    )
    if contained:
        return _container(marks)
    unit = _unit(marks)
    if unit:
        return Place("systemd-unit", f"the systemd unit {unit}", unit)
    return Place("machine", "a machine of its own (bare metal or virtual)")


_ENGINE_WORDS = ("docker", "libpod", "kubepods", "containerd", "cri-o", "lxc")


def _container(marks: Marks) -> Place:
    groups = " ".join(marks.first_groups)
    if marks.kubernetes_variable or "kubepods" in groups:
        return Place("kubernetes", "a Kubernetes pod")
    if marks.podman_file or "libpod" in groups:
        return Place("podman", "a Podman container")
    if marks.docker_file or "docker" in groups:
        return Place("docker", "a Docker container")
    return Place("container", "a container of an unknown engine")


def _unit(marks: Marks) -> str:
    """The service whose control group this process is in, if a service manager started it."""
    if not marks.started_by_systemd:
        return ""
    names = [part for group in marks.own_groups for part in group.split("/") if _UNIT.fullmatch(part)]
    # user@1000.service is the manager of somebody's session, not a unit that anybody wrote for us.
    return next((name for name in reversed(names) if not name.startswith("user@")), "")


def root_kind(mountinfo: str) -> str | None:
    """The file system type of the root, by the text of /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    return next((mount.kind for mount in _visible(mountinfo) if mount.point == "/"), None)


def proc_covers(mountinfo: str) -> tuple[str, ...]:
    """What is mounted over parts of /proc, as engines do to hide or protect them.

    The kernel then refuses a new /proc to a user namespace (mount_too_revealing in fs/namespace.c).
    """
    found = {mount.point for mount in _visible(mountinfo) if mount.point.startswith("/proc/")}
    # An automount point of ordinary machines, on an empty directory, which hides nothing.
    return tuple(sorted(found - {"/proc/sys/fs/binfmt_misc"}))


def groups_mounted(mountinfo: str) -> tuple[Literal[0, 1, 2], bool]:
    """The version of the mounted control groups, and whether all of them are read-only.

    Version 1 where both are mounted: the controllers are there then, as a rule, and the version 2 tree is bare.
    """
    mounts = [mount for mount in _visible(mountinfo) if mount.kind in {"cgroup", "cgroup2"}]
    kinds = {mount.kind for mount in mounts}
    version: Literal[0, 1, 2] = 1 if "cgroup" in kinds else 2 if kinds else 0
    return version, bool(mounts) and all("ro" in mount.options for mount in mounts)


@dataclass(frozen=True, slots=True)
class _Mount:
    number: str
    parent: str
    point: str
    kind: str
    options: frozenset[str]


def _visible(mountinfo: str) -> list[_Mount]:
    """The mounts that a path lookup reaches: one that another covers is listed by the kernel all the same."""
    mounts = [mount for line in mountinfo.splitlines() if (mount := _parsed(line)) is not None]
    numbers = {mount.number for mount in mounts}
    root = next((mount for mount in mounts if mount.parent not in numbers), None)
    if root is None:
        return []
    onto = {(mount.parent, mount.point): mount.number for mount in mounts if mount is not root}
    return [mount for mount in mounts if _reached(mount.point, root.number, onto) == mount.number]


def _reached(point: str, root: str, onto: Mapping[tuple[str, str], str]) -> str:
    """The number of the mount in which a lookup of `point` ends."""
    names = [name for name in point.split("/") if name]
    current = root
    for count in range(len(names) + 1):
        prefix = "/" + "/".join(names[:count])
        for _ in onto:  # as many mounts may lie on top of each other, and a list that goes in circles ends
            above = onto.get((current, prefix))
            if above is None:
                break
            current = above
    return current


def _parsed(line: str) -> _Mount | None:
    """One line of mountinfo; None for a line of another form."""
    before, _, after = line.partition(" - ")
    fields, kind = before.split(), after.split()[:1]
    if not kind or len(fields) < 6:  # noqa: PLR2004 - as many stand before the separator
        return None
    return _Mount(fields[0], fields[1], fields[4], kind[0], frozenset(fields[5].split(",")))
