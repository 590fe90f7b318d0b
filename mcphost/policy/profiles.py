"""`profiles`: how far a worker is confined, in reusable pieces.

A profile says only what differs. What it leaves out comes from the profile it extends, and in the end from
the values built in here. Settings are inherited key by key; a list, and the map of `tmpfs`, replaces the
inherited one as a whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType
from typing import Annotated, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    InstanceOf,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from mcphost.policy.faults import Fault
from mcphost.policy.fields import AbsolutePath, Items, Model, PlainName
from mcphost.policy.syscall_lists import DEFAULT_SYSCALLS, SyscallList, Syscalls
from mcphost.policy.units import ByteSize, CpuMillis, at_least
from sandbox import (
    MAX_EGRESS_NETWORKS,
    MAX_EGRESS_RULES,
    EgressRule,
    Network,
    SpecInvalid,
    parse_network,
    parse_rule,
)

_T = TypeVar("_T")

DEFAULT_PROFILE = "default"

# What the sandbox itself puts in place in every worker.
_OCCUPIED = frozenset({"/", "/proc", "/sys", "/dev"})

_MIN_MEMORY = 16 * 1024 * 1024
_MIN_FILES = 64


def _grantable(path: str) -> str:
    if path in _OCCUPIED or path.startswith(("/proc/", "/sys/", "/dev/")):
        raise Fault("cannot be given to a worker; the sandbox makes its own")
    return path


def _egress_list(value: object) -> object:
    """`none` is the list with nothing in it."""
    if isinstance(value, str) and value != "none":
        raise Fault("is neither `none` nor a list of host:port", allowed="none, or [host:port, ...]")
    return [] if value == "none" else value


def _read_rule(value: object) -> EgressRule:
    if isinstance(value, EgressRule):
        return value
    try:
        return parse_rule(_text(value))
    except SpecInvalid as error:
        raise Fault(error.message, allowed='host:port or "*.host:port"') from None


def _read_network(value: object) -> Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        return parse_network(_text(value))
    except SpecInvalid as error:
        raise Fault(error.message) from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Fault("must be text; put it in quotes")
    return value


GrantedPath = Annotated[AbsolutePath, AfterValidator(_grantable)]
EgressEntry = Annotated[
    EgressRule, InstanceOf, BeforeValidator(_read_rule), PlainSerializer(str, when_used="json")
]
EgressList = Annotated[
    Items[EgressEntry],
    Field(max_length=MAX_EGRESS_RULES),
    BeforeValidator(_egress_list),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["none"]},
                {
                    "type": "array",
                    "maxItems": MAX_EGRESS_RULES,
                    "items": {"type": "string", "pattern": "^.+:[0-9]{1,5}$"},
                },
            ]
        }
    ),
]
AddressRange = Annotated[
    IPv4Network | IPv6Network,
    BeforeValidator(_read_network),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"}),
]


class FilesystemSettings(Model):
    """What a worker sees of the host's files. Its own installation is always readable to it."""

    read: Items[GrantedPath] | None = None
    """Paths that are readable and executable. Built in: /usr."""

    write: Items[GrantedPath] | None = None
    """Paths that are readable and writable, never executable. Built in: none."""

    tmpfs: Mapping[GrantedPath, Annotated[ByteSize, at_least(4096)]] | None = None
    """Empty directories in memory with their size, one set for each worker. Built in: /tmp of 64Mi."""

    @model_validator(mode="after")
    def _one_role_per_path(self) -> Self:
        readable = set(self.read or ())
        for key, paths in (("write", self.write or ()), ("tmpfs", tuple(self.tmpfs or ()))):
            for index, path in enumerate(paths):
                if path in readable:
                    at = (key, index if key == "write" else path)
                    raise Fault("is listed under read too; list a path once", at=at)
            readable.update(paths)
        return self


class NetworkSettings(Model):
    """What a worker can reach."""

    egress: EgressList | None = None
    """`none`: no network at all. Else what can be reached, over TLS: host:port, "*.host:port". Built in: none."""

    allow_addresses: Annotated[Items[AddressRange], Field(max_length=MAX_EGRESS_NETWORKS)] | None = None
    """Ranges that names may lead to though they are not public. Built in: none."""


class ResourceLimits(Model):
    """The most that one worker can use."""

    cpu: CpuMillis | None = None
    """CPU time, as cores: 500m is half of one. Built in: 1."""

    memory: Annotated[ByteSize, at_least(_MIN_MEMORY)] | None = None
    """Memory of all the worker's processes together. Built in: 256Mi."""

    pids: Annotated[int, Field(ge=1, le=2**22)] | None = None
    """Processes and threads. Built in: 64."""

    files: Annotated[int, Field(ge=_MIN_FILES, le=2**20)] | None = None
    """Open files of each process. Built in: 256."""

    message: Annotated[ByteSize, at_least(1024)] | None = None
    """The longest message that is read from the worker. Built in: 8Mi."""


class ResourceSettings(Model):
    """What a worker may use."""

    limits: ResourceLimits = ResourceLimits()
    """The most that one worker can use."""


class Profile(Model):
    """One named confinement."""

    extends: PlainName | None = None
    """The profile whose settings hold where this one says nothing; else the values built in."""

    filesystem: FilesystemSettings = FilesystemSettings()
    """What a worker sees of the host's files."""

    network: NetworkSettings = NetworkSettings()
    """What a worker can reach."""

    syscalls: Syscalls | None = None
    """The system calls that are let through: default, strict, or the path of a list. Built in: default."""

    resources: ResourceSettings = ResourceSettings()
    """What a worker may use."""


@dataclass(frozen=True, slots=True)
class ResolvedProfile:
    """A profile with nothing left open. The values here are those built in."""

    name: str = DEFAULT_PROFILE
    read: tuple[str, ...] = ("/usr",)
    write: tuple[str, ...] = ()
    tmpfs: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({"/tmp": 64 * 1024 * 1024}))  # noqa: S108 - inside the sandbox
    egress: tuple[EgressRule, ...] = ()
    allow_addresses: tuple[Network, ...] = ()
    syscalls: SyscallList = DEFAULT_SYSCALLS
    cpu_millis: int = 1000
    memory_bytes: int = 256 * 1024 * 1024
    pids: int = 64
    files: int = 256
    message_bytes: int = 8 * 1024 * 1024


def resolve_profile(profiles: Mapping[str, Profile], name: str) -> ResolvedProfile:
    """The profile of this name with everything inherited filled in.

    The names must have been checked: see `lineage`.
    """
    resolved = ResolvedProfile(name)
    for ancestor in reversed(lineage(profiles, name)):
        if ancestor in profiles:
            resolved = _overlaid(resolved, profiles[ancestor])
    return resolved


def lineage(profiles: Mapping[str, Profile], name: str) -> tuple[str, ...]:
    """The profile, the one it extends, and so on.

    Raises:
        Fault: one of them does not exist, or extends itself in the end.
    """
    names = [name]
    while (profile := profiles.get(names[-1])) is not None and profile.extends is not None:
        names.append(profile.extends)
        if profile.extends in names[:-1]:
            raise Fault("extends itself: " + " -> ".join(names))
    return tuple(names)


def _overlaid(below: ResolvedProfile, profile: Profile) -> ResolvedProfile:
    """What is below, with what this profile itself says in its place."""
    files, limits = profile.filesystem, profile.resources.limits
    return ResolvedProfile(
        name=below.name,
        read=_said(files.read, below.read),
        write=_said(files.write, below.write),
        tmpfs=below.tmpfs if files.tmpfs is None else MappingProxyType(dict(files.tmpfs)),
        egress=_said(profile.network.egress, below.egress),
        allow_addresses=_said(profile.network.allow_addresses, below.allow_addresses),
        syscalls=_said(profile.syscalls, below.syscalls),
        cpu_millis=_said(limits.cpu, below.cpu_millis),
        memory_bytes=_said(limits.memory, below.memory_bytes),
        pids=_said(limits.pids, below.pids),
        files=_said(limits.files, below.files),
        message_bytes=_said(limits.message, below.message_bytes),
    )


def _said(own: _T | None, inherited: _T) -> _T:
    return inherited if own is None else own
