"""The policy: everything that one reviewed file says about what is run, how, and for whom."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PrivateAttr, ValidationInfo, WithJsonSchema, model_validator

from mcphost.errors import Problem
from mcphost.policy.audit import AuditSettings
from mcphost.policy.checks import Declared, all_faults
from mcphost.policy.faults import Fault, Faults, first_repeated, must_be_known
from mcphost.policy.fields import FilledText, Items, Model, PlainName, ServerName, TenantName
from mcphost.policy.permission_tests import PermissionTest
from mcphost.policy.places import KeyPath, Place, Places
from mcphost.policy.profiles import DEFAULT_PROFILE, Profile, ResolvedProfile, resolve_profile
from mcphost.policy.routes import Route, RoutePath
from mcphost.policy.runtime_settings import RuntimeSettings
from mcphost.policy.servers import Server
from mcphost.policy.tenants import Tenant
from sandbox import LAYERS

# Without these a worker could leave its sandbox or see another tenant's. Not among them are the cgroup
# layers: they bound what a worker can use up, and many machines do not delegate them to an ordinary user.
DEFAULT_REQUIRE = (
    "userns", "mountns", "pidns", "netns", "rootfs",
    "no-new-privs", "capabilities", "landlock", "seccomp", "rlimits",
)  # fmt: skip


def _layer(name: str) -> str:
    if name not in LAYERS:
        raise must_be_known(name, LAYERS, "layer")
    return name


Layer = Annotated[str, AfterValidator(_layer), WithJsonSchema({"enum": list(LAYERS)})]


@dataclass(frozen=True, slots=True)
class Loading:
    """What a policy under validation is told by the loader that read its files."""

    declared: Declared


class Policy(Model):
    """One policy, checked as a whole. `load` and `loads` make it from a file."""

    version: Literal[1]
    """The version of this format."""

    runtime: RuntimeSettings = RuntimeSettings()
    """How the runtime listens, logs, limits and stops."""

    require: Items[Layer] = DEFAULT_REQUIRE
    """The sandbox layers without which nothing is started. Default: all that isolate, none of the cgroup ones."""

    include: Items[FilledText] = ()
    """Client files (mcp.json) whose servers are added to `mcpServers`; paths start at the policy's directory."""

    profiles: Mapping[PlainName, Profile] = Field(default_factory=dict)
    """Confinements by name. `default` is there without being written and holds where a server names none."""

    servers: Mapping[ServerName, Server] = Field(default_factory=dict, alias="mcpServers")
    """The servers by name, written as in any mcp.json."""

    tenants: Mapping[TenantName, Tenant] = Field(default_factory=dict)
    """Who may call."""

    routes: Mapping[RoutePath, Route] = Field(default_factory=dict)
    """Paths over several servers. By default `/mcp` alone, with everything."""

    tests: Items[PermissionTest] = ()
    """What must be allowed or denied. A policy that fails one of its own tests is not served."""

    audit: AuditSettings | None = None
    """Where it is recorded what was called and done; left out, nowhere."""

    _places: Places = PrivateAttr(default_factory=lambda: Places("<policy>"))

    @model_validator(mode="after")
    def _parts_agree(self, info: ValidationInfo) -> Self:
        loading = info.context if isinstance(info.context, Loading) else None
        if self.include and loading is None:
            raise Fault("files are only included by load() and loads()", at=("include",))
        repeated = first_repeated(self.require)
        if repeated is not None:
            raise Fault("is listed twice", at=("require", repeated))
        declared = (
            loading.declared if loading else Declared(frozenset(self.profiles), frozenset(self.servers))
        )
        faults = tuple(all_faults(self, declared))
        if faults:
            raise Faults(faults)
        return self

    def profile(self, name: str) -> ResolvedProfile:
        """The profile of this name with everything inherited filled in.

        Raises:
            KeyError: no such profile; never for the profile of one of this policy's servers.
        """
        if name not in self.profiles and name != DEFAULT_PROFILE:
            raise KeyError(name)
        return resolve_profile(self.profiles, name)

    def place(self, *path: str | int) -> Place:
        """Where this part was written, by its keys in the file, or what it would have been part of."""
        return self._places.of(path)

    def problem(self, path: KeyPath, fault: Fault, value: object = ...) -> Problem:
        """The fault of something at this path, for errors found after loading."""
        return self._places.problem((*path, *fault.at), fault, value)

    def located(self, places: Places) -> Self:
        """The same policy, which from now on knows where it was written."""
        self._places = places
        return self
