"""Which endpoint a path means: `/mcp`, `/servers/{name}/mcp`, and either behind `/t/{tenant}`."""

from dataclasses import dataclass

_AGGREGATE = 1
_SINGLE = 3


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a request goes: one server by name, or (None) everything its tenant may use.

    `tenant` is the prefix as written. It has to agree with the token and is never authority by itself.
    """

    server: str | None = None
    tenant: str | None = None


def endpoint_of(path: str) -> Endpoint | None:
    """The endpoint that a decoded URL path names, None if it names none. A trailing slash is accepted."""
    root, *parts = path.removesuffix("/").split("/")
    if root:
        return None
    tenant = None
    if len(parts) > _AGGREGATE and parts[0] == "t":
        tenant, parts = parts[1], parts[2:]
    if parts == ["mcp"]:
        return Endpoint(None, tenant)
    if len(parts) == _SINGLE and parts[0] == "servers" and parts[2] == "mcp" and parts[1]:
        return Endpoint(parts[1], tenant)
    return None
