"""What no single part of a policy can judge: whether its parts agree with each other."""

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mcphost.policy.faults import Fault, first_repeated, listing, must_be_known, nearest
from mcphost.policy.permission_tests import test_faults
from mcphost.policy.places import KeyPath
from mcphost.policy.profiles import DEFAULT_PROFILE, Profile, lineage, resolve_profile
from mcphost.policy.routes import route_faults
from mcphost.policy.secrets import secret_names
from mcphost.policy.servers import Server
from mcphost.policy.tenants import Tenant, server_part
from sandbox import Egress, address_of

if TYPE_CHECKING:
    from mcphost.policy.models import Policy


@dataclass(frozen=True, slots=True)
class Declared:
    """Every name that a file declares, also those whose entries are wrong or disabled.

    To refer to such a name is no second mistake.
    """

    profiles: frozenset[str]
    servers: frozenset[str]


def all_faults(policy: "Policy", declared: Declared) -> Iterator[Fault]:
    """Every disagreement, each with its full path."""
    yield from _runtime_faults(policy)
    yield from _token_faults(policy)
    yield from _profile_faults(policy, declared)
    yield from _server_faults(policy, declared)
    for path, route in policy.routes.items():
        yield from route_faults(path, route, declared.servers)
    for name, tenant in policy.tenants.items():
        yield from _pattern_faults(name, tenant, declared)
        yield from _secret_faults(name, tenant, policy.servers)
    for index, test in enumerate(policy.tests):
        yield from test_faults(index, test, policy.tenants, declared.servers)


def _runtime_faults(policy: "Policy") -> Iterator[Fault]:
    runtime = policy.runtime
    if runtime.admin == runtime.listen and runtime.listen.port:
        yield Fault(
            f"{runtime.admin} is where clients connect", at=("runtime", "admin"), also=("runtime", "listen")
        )
    if runtime.auth == "token":
        return
    at = ("runtime", "auth")
    if not runtime.listen.is_loopback:
        yield Fault("without tokens only a loopback address may be served", at=at, also=("runtime", "listen"))
    if len(policy.tenants) != 1:
        yield Fault(f"without tokens there must be exactly one tenant, not {len(policy.tenants)}", at=at)
    for name, tenant in policy.tenants.items():
        if tenant.tokens:
            yield Fault("tokens have no effect when auth is none", at=("tenants", name, "tokens"), also=at)


def _token_faults(policy: "Policy") -> Iterator[Fault]:
    seen: dict[str, KeyPath] = {}
    for name, tenant in policy.tenants.items():
        for index, token in enumerate(tenant.tokens):
            at: KeyPath = ("tenants", name, "tokens", index)
            if token.generate and not policy.runtime.listen.is_loopback:
                why = "a token is only made and shown where nobody else can connect"
                yield Fault(why, at=(*at, "generate"), also=("runtime", "listen"))
            if token.sha256 is None:
                continue
            if token.sha256 in seen:
                yield Fault("this digest is given twice", at=(*at, "sha256"), also=seen[token.sha256])
            seen.setdefault(token.sha256, (*at, "sha256"))


def _profile_faults(policy: "Policy", declared: Declared) -> Iterator[Fault]:
    known = declared.profiles | {DEFAULT_PROFILE}
    for name, profile in policy.profiles.items():
        at = ("profiles", name, "extends")
        if profile.extends is not None and profile.extends not in known:
            yield must_be_known(profile.extends, known, "profile", at=at)
            continue
        try:
            lineage(policy.profiles, name)
        except Fault as fault:
            yield Fault(fault.message, at=at)
            continue
        yield from _egress_faults(policy.profiles, name)


def _egress_faults(profiles: Mapping[str, Profile], name: str) -> Iterator[Fault]:
    """Entries that are given twice, or are addresses that would be refused at every connection."""
    written = profiles[name].network.egress or ()
    at = ("profiles", name, "network", "egress")
    repeated = first_repeated(map(str, written))
    if repeated is not None:
        yield Fault("is listed twice", at=(*at, repeated))
    allowed = Egress((), resolve_profile(profiles, name).allow_addresses)
    for index, rule in enumerate(written):
        address = address_of(rule.host)
        if address is not None and (why := allowed.refuses(address)):
            yield Fault(f"no worker can reach this address: {why}", at=(*at, index))


def _server_faults(policy: "Policy", declared: Declared) -> Iterator[Fault]:
    known = declared.profiles | {DEFAULT_PROFILE}
    folded: dict[str, str] = {}
    for name, server in policy.servers.items():
        at = ("mcpServers", name)
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            why = "differs from another server's name by case only; clients could not tell them apart"
            yield Fault(why, at=at, also=("mcpServers", other), on_key=True)
        if server.profile not in known:
            yield must_be_known(server.profile, known, "profile", at=(*at, "profile"))
        if server.scope == "shared":
            for variable, template in server.env.items():
                if secret_names(template):
                    why = "a shared server serves every tenant, so it may hold no tenant's secret; use `scope: tenant`"
                    yield Fault(why, at=(*at, "env", variable))
        yield from _kept_faults(policy, server, at)


def _kept_faults(policy: "Policy", server: Server, at: KeyPath) -> Iterator[Fault]:
    kept: list[KeyPath] = [
        ("volumes", i) for i, volume in enumerate(server.volumes) if volume.name is not None
    ]
    if server.data.size is not None and server.scope == "shared":
        why = "a shared server has no data directory; give it a volume with a name"
        yield Fault(why, at=(*at, "data", "size"))
    elif server.data.size is not None:
        kept.append(("data", "size"))
    if policy.runtime.state_dir is None:
        for path in kept:
            yield Fault("there is nowhere to keep it; name a directory in runtime.stateDir", at=(*at, *path))


def _pattern_faults(name: str, tenant: Tenant, declared: Declared) -> Iterator[Fault]:
    lists: list[tuple[KeyPath, tuple[str, ...]]] = [(("allow",), tenant.allow), (("deny",), tenant.deny)]
    for at, token in enumerate(tenant.tokens):
        lists += [(("tokens", at, "allow"), token.allow or ()), (("tokens", at, "deny"), token.deny)]
    places: list[tuple[KeyPath, str]] = [
        ((*path, index), pattern) for path, patterns in lists for index, pattern in enumerate(patterns)
    ]
    places += [(("limits", "tools", pattern), pattern) for pattern in tenant.limits.tools]
    for path, pattern in places:
        glob = server_part(pattern)
        if pattern == "*" or any(fnmatch.fnmatchcase(server, glob) for server in declared.servers):
            continue
        near = nearest(glob, declared.servers)
        yield Fault(
            "no server has this name",
            allowed=listing(sorted(declared.servers)),
            suggestion=near and near + pattern.removeprefix(glob),
            on_key=path[0] == "limits",
            at=("tenants", name, *path),
        )


def _secret_faults(name: str, tenant: Tenant, servers: Mapping[str, Server]) -> Iterator[Fault]:
    for server_name, server in servers.items():
        if server.scope == "shared" or not tenant.may_use(server_name):
            continue
        for variable, template in server.env.items():
            for secret in secret_names(template):
                if secret not in tenant.secrets:
                    yield Fault(
                        f"the secret {secret} is missing, which a server that this tenant may use needs",
                        suggestion=nearest(secret, tenant.secrets),
                        at=("tenants", name, "secrets"),
                        also=("mcpServers", server_name, "env", variable),
                    )
