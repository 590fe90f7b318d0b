"""What will run, fully resolved: a checked policy and the programs found for it become plain values.

Pure: nothing is read or started here. `mcphost check` ends with a plan; `mcphost run` goes on from one.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from mcphost.decisions.admission import Limits
from mcphost.decisions.ratelimit import Rate
from mcphost.decisions.restart import RestartPolicy
from mcphost.decisions.routing import DEFAULT_ROUTES, Route
from mcphost.policy import (
    Policy,
    Program,
    ResolvedProfile,
    Secret,
    Server,
    SyscallList,
    ToolLimits,
    interpolate,
    secret_names,
)
from mcphost.policy import Route as PolicyRoute
from mcphost.policy import Tenant as PolicyTenant
from mcphost.workers.settings import SHARED, Expectation, Timeouts
from sandbox import DATA_TARGET, EGRESS_HOST, EGRESS_PORT, Egress, Mount, SandboxSpec, Tmpfs, Volume, Zygote
from sandbox import Limits as SandboxLimits

RealPath = Callable[[str], str]

# What a program finds in its environment where the policy says nothing else.
_BASE_ENVIRONMENT: Final = (
    ("HOME", "/tmp"),  # noqa: S108 - the worker's own tmpfs
    ("LANG", "C.UTF-8"),
    ("PYTHONDONTWRITEBYTECODE", "1"),  # what it could write to is read-only
    ("TMPDIR", "/tmp"),  # noqa: S108
)
_NAME_CHARACTERS: Final = 39  # with a dash and the digest, what a sandbox's name may have
_DIGEST_CHARACTERS: Final = 8

# Libraries and programs read either case; curl reads `http_proxy` in lower case only.
_PROXY: Final = f"http://{EGRESS_HOST}:{EGRESS_PORT}"
_PROXY_ENVIRONMENT: Final = (
    *(
        (name, _PROXY)
        for word in ("HTTP", "HTTPS", "ALL")
        for name in (f"{word}_PROXY", f"{word.lower()}_proxy")
    ),
    *((name, "localhost,127.0.0.1,::1") for name in ("NO_PROXY", "no_proxy")),
    ("NODE_USE_ENV_PROXY", "1"),  # Node.js 22.21 and 24: fetch and http go by the variables above
)
# Where Debian's programs look without being told, and the variables for those that look elsewhere.
CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"
_CERTIFICATE_VARIABLES: Final = (
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
)

# No name of a tenant has an underscore.
_ALL_TENANTS: Final = "_shared"

_BASE_PATH: Final = ("/usr/local/bin", "/usr/bin", "/bin")


@dataclass(frozen=True, slots=True)
class Kept:
    """A place that outlives workers: `path` is its directory or, with a size, its image.

    `other` is where it would lie in the other form: without its size, or with one.
    """

    target: str
    path: str
    other: str
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class SandboxTemplate:
    """A server's sandbox, but for what differs between tenants: secrets and where their volumes lie.

    `env` holds templates, so a plan can be printed without a secret in it.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    mounts: tuple[Mount, ...]
    tmpfs: tuple[Tmpfs, ...]
    limits: SandboxLimits
    syscalls: SyscallList
    require: frozenset[str]
    network: Literal["none", "proxy"]
    zygote: Zygote | None = None

    def shape(self, kept: Sequence[Kept]) -> SandboxSpec:
        """What the workers have in common, for making a zygote ahead: no environment, so no secret."""
        return replace(self, env=()).fill("zygote", {}, kept)

    def fill(self, name: str, secrets: Mapping[str, Secret], kept: Sequence[Kept]) -> SandboxSpec:
        """The spec of one worker. Every secret that `env` names must be there."""
        data = next((each for each in kept if each.target == DATA_TARGET), None)
        return SandboxSpec(
            name=name,
            argv=self.argv,
            env=tuple((key, interpolate(value, secrets).reveal()) for key, value in self.env),
            cwd=self.cwd,
            mounts=self.mounts,
            tmpfs=self.tmpfs,
            data=data.path if data else None,
            data_size_bytes=data.size_bytes if data else None,
            volumes=tuple(
                Volume(source=each.path, target=each.target, size_bytes=each.size_bytes)
                for each in kept
                if each is not data
            ),
            limits=self.limits,
            seccomp=self.syscalls.profile,
            network=self.network,
            require=self.require,
            zygote=self.zygote,
        )


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """One server as it will run. `egress` is what its workers may reach, None for nothing."""

    name: str
    server: Server
    sandbox: SandboxTemplate
    egress: Egress | None
    timeouts: Timeouts
    restart: RestartPolicy
    expect: Expectation
    message_bytes: int


@dataclass(frozen=True, slots=True)
class TenantPlan:
    """One tenant as it will be served; `servers` are those it may use anything of."""

    name: str
    allow: tuple[str, ...]
    deny: tuple[str, ...]
    limits: Limits
    servers: tuple[str, ...]
    weight: int = 1
    items: Mapping[str, Limits] = field(default_factory=dict)
    """Limits on what patterns name."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that will run."""

    policy: Policy
    servers: Mapping[str, ServerPlan]
    tenants: Mapping[str, TenantPlan]
    routes: Mapping[str, Route]


def compile_plan(
    policy: Policy,
    programs: Mapping[str, Program],
    real_path: RealPath = str,
    certificates: str | None = None,
) -> Plan:
    """Resolve a policy. `programs` holds what each server's command was found to be.

    `certificates` is the file of trusted authorities that workers with egress find at `CERTIFICATES`.

    `real_path` gives the place that a path leads to now. Links are resolved here, once, and never again when a
    worker starts, for another worker may have written a link by then.
    """
    servers = {
        name: _server(policy, name, server, programs[name], _Places(real_path, certificates))
        for name, server in policy.servers.items()
    }
    tenants = {name: _tenant(name, tenant, servers) for name, tenant in policy.tenants.items()}
    routes = {path: _route(path, route, servers) for path, route in policy.routes.items()}
    return Plan(policy, servers, tenants, routes or DEFAULT_ROUTES)


def contested_mounts(plan: Plan) -> list[tuple[str, str, str]]:
    """Mounts that lie below a place some worker may write: (server, the mount, the writable place).

    Whoever may write the place can put a link where the mount was, so nothing below it can be granted safely.
    """
    mounts = [(server.name, mount) for server in plan.servers.values() for mount in server.sandbox.mounts]
    writable = sorted({mount.source for _, mount in mounts if mount.writable})
    return [
        (name, mount.source, place)
        for name, mount in mounts
        for place in writable
        if mount.source.startswith(f"{place}/")
    ]


def mounts_of_state(plan: Plan, state_dir: str) -> list[tuple[str, str]]:
    """Mounts that show anything of a directory or file that the runtime keeps for itself: (server, mount)."""
    return [
        (server.name, mount.source)
        for server in plan.servers.values()
        for mount in server.sandbox.mounts
        if f"{mount.source}/".startswith(f"{state_dir}/") or f"{state_dir}/".startswith(f"{mount.source}/")
    ]


def sized_places(plan: Plan) -> list[tuple[str, tuple[str | int, ...]]]:
    """Where the policy asks for a size: (server, the path of the size within the server's entry)."""
    found: list[tuple[str, tuple[str | int, ...]]] = []
    for name, planned in plan.servers.items():
        if planned.server.data.size is not None:
            found.append((name, ("data", "size")))
        for index, volume in enumerate(planned.server.volumes):
            if volume.size is not None:
                found.append((name, ("volumes", index, "size")))
    return found


def worker_name(server: str, tenant: str) -> str:
    """The label of a worker, also its host name: what it is for people, and a digest that keeps labels apart."""
    readable = re.sub(r"[^a-z0-9]+", "-", f"{server}-{tenant}".lower()).strip("-")
    digest = hashlib.sha256(f"{server}/{tenant}".encode()).hexdigest()
    return f"{readable[:_NAME_CHARACTERS].rstrip('-')}-{digest[:_DIGEST_CHARACTERS]}"


def kept_places(state_dir: str | None, tenant: str, name: str, server: Server) -> tuple[Kept, ...]:
    """What a worker keeps, and where: /data and its volumes with a name.

    A shared worker serves all, so its volumes belong to the server and it has no /data.
    """
    if state_dir is None:
        return ()
    kept = []
    if tenant != SHARED:
        data = f"{state_dir}/data/{tenant}/{name}"
        kept.append(_kept(DATA_TARGET, data, f"{data}.img", server.data.size))
    for volume in server.volumes:
        if volume.name is not None:
            place = f"{state_dir}/volumes/{tenant or _ALL_TENANTS}/{name}/{volume.name}"
            kept.append(_kept(volume.target, f"{place}/files", f"{place}/image", volume.size))
    return tuple(kept)


def _kept(target: str, directory: str, image: str, size_bytes: int | None) -> Kept:
    if size_bytes is None:
        return Kept(target, directory, image, None)
    return Kept(target, image, directory, size_bytes)


@dataclass(frozen=True, slots=True)
class _Places:
    """What this machine's file system is asked about."""

    real_path: RealPath
    certificates: str | None


def _server(policy: Policy, name: str, server: Server, program: Program, places: _Places) -> ServerPlan:
    profile = policy.profile(server.profile)
    settings = server.restart
    return ServerPlan(
        name=name,
        server=server,
        sandbox=_sandbox(policy, server, profile, program, places),
        egress=Egress(profile.egress, profile.allow_addresses) if profile.egress else None,
        timeouts=Timeouts(
            server.timeouts.start, server.timeouts.call, server.timeouts.stop, dict(server.timeouts.tools)
        ),
        restart=RestartPolicy(
            settings.policy, settings.max, settings.window, settings.backoff.initial, settings.backoff.max
        ),
        expect=Expectation(frozenset(server.expect.capabilities), frozenset(server.expect.tools)),
        message_bytes=profile.message_bytes,
    )


def _sandbox(
    policy: Policy, server: Server, profile: ResolvedProfile, program: Program, places: _Places
) -> SandboxTemplate:
    mounts = _mounts(profile, program.read, server, places.real_path)
    certificates = _certificates(profile, mounts, places)
    tmpfs = tuple(Tmpfs(target=path, size_bytes=size) for path, size in profile.tmpfs.items())
    return SandboxTemplate(
        argv=program.argv,
        env=_environment(server, program, _network_environment(profile, has_certificates=bool(certificates))),
        cwd=server.cwd or "/",
        mounts=(*mounts, *certificates),
        tmpfs=tmpfs,
        limits=SandboxLimits(
            memory_bytes=profile.memory_bytes,
            pids=profile.pids,
            cpu_millis=profile.cpu_millis,
            files=profile.files,
            file_size_bytes=None,
        ),
        syscalls=profile.syscalls,
        require=frozenset(policy.require),
        network="proxy" if profile.egress else "none",
        zygote=_zygote(server, program),
    )


def _zygote(server: Server, program: Program) -> Zygote | None:
    """What a server's zygote imports, and under which settings of Python: those of `env` that hold no secret."""
    entry = program.entry
    if entry is None:
        return None
    settings = tuple(
        (key, interpolate(value, {}).reveal())
        for key, value in server.env.items()
        if key.startswith("PYTHON") and key != "PYTHONHASHSEED" and not secret_names(value)
    )
    preload = tuple(dict.fromkeys((entry.module, *server.preload)))
    return Zygote(
        interpreter=entry.interpreter, preload=preload, run=entry.run, argv=entry.argv, settings=settings
    )


def _environment(
    server: Server, program: Program, network: Sequence[tuple[str, str]]
) -> tuple[tuple[str, str], ...]:
    """What the policy gives, over a small base. Nothing of the runtime's own environment is passed on."""
    path = ":".join(dict.fromkeys((*program.search, *_BASE_PATH))).replace("$", "$$")
    return tuple({**dict(_BASE_ENVIRONMENT), **dict(network), "PATH": path, **server.env}.items())


def _network_environment(profile: ResolvedProfile, *, has_certificates: bool) -> list[tuple[str, str]]:
    """Where clients find their proxy. A server that is told otherwise only finds nothing: there is no other way."""
    if not profile.egress:
        return []
    certificates = _CERTIFICATE_VARIABLES if has_certificates else ()
    return [*_PROXY_ENVIRONMENT, *((name, CERTIFICATES) for name in certificates)]


def _certificates(profile: ResolvedProfile, mounts: Sequence[Mount], places: _Places) -> list[Mount]:
    """The trusted authorities, as one file; nothing where the policy itself grants files at that place."""
    if not profile.egress or places.certificates is None:
        return []
    if any(f"{CERTIFICATES}/".startswith(f"{mount.target}/") for mount in mounts):
        return []
    return [Mount(source=places.real_path(places.certificates), target=CERTIFICATES)]


def _mounts(
    profile: ResolvedProfile, read: Sequence[str], server: Server, real_path: RealPath
) -> tuple[Mount, ...]:
    """Outer paths before inner ones, so that none hides another."""
    paths = dict.fromkeys((*profile.read, *read), False) | dict.fromkeys(profile.write, True)
    mounts = [Mount(source=real_path(path), target=path, writable=paths[path]) for path in paths]
    for volume in server.volumes:
        if volume.source is not None:
            source = real_path(volume.source)
            mounts.append(Mount(source=source, target=volume.target, writable=volume.mode == "rw"))
    return tuple(sorted(mounts, key=lambda mount: mount.target))


def _route(path: str, route: PolicyRoute, servers: Mapping[str, ServerPlan]) -> Route:
    """One that names a disabled server goes without it."""
    return Route(
        path,
        None if route.servers is None else tuple(name for name in route.servers if name in servers),
        frozenset(route.capabilities),
        separator=route.separator if route.naming == "prefix" else "",
        interchangeable=route.prefer == "healthy",
        skips_down=route.on_server_down == "skip",
    )


def _tenant(name: str, tenant: PolicyTenant, servers: Mapping[str, ServerPlan]) -> TenantPlan:
    limits = tenant.limits
    rate = Rate(limits.rate.per_second, limits.burst)
    return TenantPlan(
        name=name,
        allow=tenant.allow,
        deny=tenant.deny,
        limits=Limits(rate, limits.concurrency, None if limits.quota is None else limits.quota.permits),
        servers=tuple(server for server in servers if tenant.may_use(server)),
        weight=limits.weight,
        items={pattern: _item_limits(each) for pattern, each in limits.tools.items()},
    )


def _item_limits(limits: ToolLimits) -> Limits:
    if limits.rate is None:
        return Limits(None, limits.concurrency)
    return Limits(Rate(limits.rate.per_second, limits.burst or limits.rate.permits), limits.concurrency)
