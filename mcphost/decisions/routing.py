"""Which endpoint a path means: a route of the policy, `/servers/{name}/mcp`, and either behind `/t/{tenant}`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

_SINGLE = 3
_TENANT = 3  # the fewest segments of a path with a tenant: `t`, its name, and what it asks for


@dataclass(frozen=True, slots=True)
class Route:
    """One path that stands for several servers, and how it shows them.

    `servers` in the policy's order, None for all of them; `features` the capabilities that are shown, None for all.
    `separator` stands between a server's name and an item's; empty where names and URIs are shown bare, and then the
    first server that has an item has it. `interchangeable` says that servers with an item of the same name do the
    same, so that one which is up may take a call in place of one that is not. `skips_down` that a list lacks the
    part of a server that is down, where otherwise it would fail.
    """

    path: str
    servers: tuple[str, ...] | None = None
    features: frozenset[str] | None = None
    separator: str = "__"
    interchangeable: bool = False
    skips_down: bool = True

    def offers(self, feature: str) -> bool:
        """Whether this capability of its servers is shown."""
        return self.features is None or feature in self.features


EVERYTHING: Final = Route("/mcp")
DEFAULT_ROUTES: Final[Mapping[str, Route]] = {EVERYTHING.path: EVERYTHING}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a request goes: one server by name, or (None) the route of the path `route`.

    `tenant` is the prefix as written. It has to agree with the token and is never authority by itself.
    """

    server: str | None = None
    tenant: str | None = None
    route: str = EVERYTHING.path

    @property
    def path(self) -> str:
        """The one path without a tenant that means this endpoint: its name wherever something is bound to it."""
        return self.route if self.server is None else f"/servers/{self.server}/mcp"


def endpoint_of(path: str, routes: Mapping[str, Route] = DEFAULT_ROUTES) -> Endpoint | None:
    """The endpoint that a decoded URL path names, None if it names none. A trailing slash is accepted."""
    root, *parts = path.removesuffix("/").split("/")
    if root:
        return None
    tenant = None
    if len(parts) >= _TENANT and parts[0] == "t":
        tenant, parts = parts[1], parts[2:]
    route = "/" + "/".join(parts)
    if route in routes:
        return Endpoint(None, tenant, route)
    if len(parts) == _SINGLE and parts[0] == "servers" and parts[2] == "mcp" and parts[1]:
        return Endpoint(parts[1], tenant)
    return None


# From those that can take a call at once to those that will take none soon.
_HEALTH: Final = {
    "ready": 0,
    "starting": 1,
    "stopped": 1,
    "draining": 2,
    "stopping": 2,
    "backoff": 2,
    "failed": 3,
}


def healthiest(candidates: Iterable[tuple[str, str]]) -> str:
    """Of servers with the state of each one's workers the one to call; of equals the first. Not for none."""
    return min(candidates, key=lambda candidate: _HEALTH[candidate[1]])[0]
