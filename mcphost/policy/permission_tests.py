"""`tests`: what a policy says of its own permissions, so that a change of a pattern cannot grant more unnoticed."""

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, WithJsonSchema, model_validator

from mcphost.policy.faults import Fault, must_be_known
from mcphost.policy.fields import FilledText, Model, PlainName, TenantName
from mcphost.policy.tenants import Tenant


def _item(text: str) -> str:
    server, slash, name = text.partition("/")
    if not (server and slash and name):
        raise Fault("names no tool, prompt or resource of a server", allowed="server/name")
    return text


def _literal(text: str) -> str:
    if "*" in text:
        raise Fault("a test is about one name, not about a pattern", allowed="server/name")
    return text


_SCHEMA = WithJsonSchema({"type": "string", "pattern": "^[^/]+/.+$"})
Resource = Annotated[FilledText, AfterValidator(_item), _SCHEMA]
Item = Annotated[FilledText, AfterValidator(_item), AfterValidator(_literal), _SCHEMA]


class PermissionTest(Model):
    """One expectation: a tenant, or one of its tokens, and one tool, resource or prompt."""

    tenant: TenantName
    """For whom."""

    token: PlainName | None = None
    """The id of one of its tokens. Default: the tenant, as a token without patterns of its own."""

    call: Item | None = None
    """A tool, as `server/name`, by the name that the server itself gives it."""

    read: Resource | None = None
    """A resource, as `server/URI`."""

    get: Item | None = None
    """A prompt, as `server/name`."""

    expect: Literal["allowed", "denied"]
    """What the answer must be."""

    @property
    def verb(self) -> Literal["call", "read", "get"]:
        """The key that names the item."""
        return "call" if self.call is not None else "read" if self.read is not None else "get"

    @property
    def item(self) -> tuple[str, str]:
        """The server, and the name or URI of what it offers."""
        server, _, name = (self.call or self.read or self.get or "").partition("/")
        return server, name

    @model_validator(mode="after")
    def _one_item(self) -> Self:
        given = [name for name in ("call", "read", "get") if getattr(self, name) is not None]
        if len(given) != 1:
            what = "exactly one tool, resource or prompt must be named"
            raise Fault(what, allowed="call, read, get", at=tuple(given[1:2]))
        return self


def test_faults(
    index: int, test: PermissionTest, tenants: Mapping[str, Tenant], servers: Collection[str]
) -> Iterator[Fault]:
    """Names in a test that are nobody's."""
    at = ("tests", index)
    if test.tenant not in tenants:
        yield must_be_known(test.tenant, tenants, "tenant", at=(*at, "tenant"))
    elif test.token is not None:
        ids = [token.id for token in tenants[test.tenant].tokens]
        if test.token not in ids:
            yield must_be_known(test.token, ids, "token of this tenant", at=(*at, "token"))
    server, name = test.item
    if server not in servers:
        fault = must_be_known(server, servers, "server", at=(*at, test.verb))
        fault.suggestion = fault.suggestion and f"{fault.suggestion}/{name}"
        yield fault
