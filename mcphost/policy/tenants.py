"""`tenants`: who may call what, how often, and with which credentials."""

import datetime as dt
import fnmatch
import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from mcphost.policy.faults import Fault, first_repeated
from mcphost.policy.fields import (
    AbsolutePath,
    Count,
    Items,
    Model,
    PlainName,
    VariableName,
)
from mcphost.policy.secrets import SecretRef, exactly_one
from mcphost.policy.units import Quota, Rate, RateLimit

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
# RFC 3339, section 5.6, `date-time`; leap seconds are left out.
_INSTANT = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?(?:[Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
_INSTANT_ALLOWED = "YYYY-MM-DD, or YYYY-MM-DDTHH:MM:SSZ"


def _read_instant(value: object) -> object:
    """A date alone means its first instant in UTC: from that day on the token is refused."""
    if isinstance(value, dt.datetime):
        return value
    text = str(value)
    if not (_DATE.fullmatch(text) or _INSTANT.fullmatch(text)):
        raise Fault("is not a date", allowed=_INSTANT_ALLOWED)
    try:
        moment = dt.datetime.fromisoformat(text.upper())
    except ValueError:
        raise Fault("there is no such date", allowed=_INSTANT_ALLOWED) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _aware(moment: dt.datetime) -> dt.datetime:
    if moment.tzinfo is None:
        raise Fault("needs its offset from UTC")
    return moment.astimezone(dt.UTC)


def _digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise Fault("is not a SHA-256 digest; never write the token itself", allowed="64 hexadecimal digits")
    return text.lower()


def _pattern(text: str) -> str:
    if re.search(r"[\[\]\s]", text):
        raise Fault("is not a pattern", allowed="server/name with * and ?, or * alone")
    server, slash, name = text.partition("/")
    if text != "*" and not (server and slash and name):
        wanted = f"{text.rstrip('/')}/*" if server else None
        raise Fault(
            "a pattern names a server and what it offers", allowed="server/name, or *", suggestion=wanted
        )
    return text


Instant = Annotated[
    dt.datetime,
    BeforeValidator(_read_instant),
    AfterValidator(_aware),
    PlainSerializer(lambda moment: moment.isoformat(), when_used="json"),
    WithJsonSchema({"type": "string", "pattern": f"^(?:{_DATE.pattern}|{_INSTANT.pattern})$"}),
]
Digest = Annotated[
    str, AfterValidator(_digest), WithJsonSchema({"type": "string", "pattern": "^[0-9a-fA-F]{64}$"})
]
Pattern = Annotated[
    str,
    AfterValidator(_pattern),
    WithJsonSchema({"type": "string", "pattern": r"^(\*|[^/\[\]\s]+/[^\[\]\s]+)$"}),
]


Weight = Annotated[int, Field(ge=1, le=1000)]
"""A share beside others'; a thousand times another's is as good as alone."""


class Token(Model):
    """One bearer token of a tenant. The policy knows its digest, or where the token is read from."""

    id: PlainName
    """What logs call it; unique within the tenant."""

    sha256: Digest | None = Field(default=None, repr=False)
    """The SHA-256 digest of the token, in hexadecimal."""

    from_file: AbsolutePath | None = None
    """A file that holds the token."""

    from_env: VariableName | None = None
    """A variable in the runtime's own environment that holds the token."""

    generate: Literal[True] | None = None
    """Make a token when the runtime starts and show it once: for trying out, on a loopback address only."""

    expires: Instant | None = None
    """From when on the token is refused; a date alone means its first instant in UTC."""

    allow: Items[Pattern] | None = None
    """What it may list and call of what its tenant may, as patterns of the same kind. Default: all of it."""

    deny: Items[Pattern] = ()
    """What it may not, even where `allow` matches. Default: nothing more than its tenant may not."""

    @property
    def source(self) -> SecretRef | None:
        """Where the token is read from, if the policy says so."""
        if self.from_file is None and self.from_env is None:
            return None
        return SecretRef(from_file=self.from_file, from_env=self.from_env)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        exactly_one(self, "sha256", "from_file", "from_env", "generate")
        return self


class ToolLimits(Model):
    """How much a tenant can ask of what a pattern names, all of it together."""

    rate: RateLimit | None = None
    """Calls that are let through over time."""

    burst: Count | None = None
    """Calls that are let through at once after a quiet time; the number in `rate` if left out."""

    concurrency: Count | None = None
    """Calls under way at the same time."""

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.burst is not None and self.rate is None:
            raise Fault("a burst is of a rate; give `rate` too", at=("burst",))
        if self.rate is None and self.concurrency is None:
            raise Fault("limits nothing", allowed="rate, burst, concurrency")
        return self


class TenantLimits(Model):
    """How much a tenant can ask for."""

    rate: RateLimit = Rate(600, 60.0)
    """Calls that are let through over time."""

    burst: Count = 60
    """Calls that are let through at once after a quiet time."""

    concurrency: Count = 16
    """Calls under way at the same time, over all servers."""

    quota: Quota | None = None
    """Calls that are let through on one day in UTC; null for any number."""

    weight: Weight = 1
    """Its share where tenants wait for the same server: twice the weight has twice the turns."""

    tools: Mapping[Pattern, ToolLimits] = Field(default_factory=dict)
    """Further limits on what `server/name` patterns name."""


class Tenant(Model):
    """One owner of tokens, secrets and limits. Nothing crosses from one tenant to another."""

    tokens: Items[Token] = ()
    """The tokens that stand for this tenant."""

    secrets: Mapping[PlainName, SecretRef] = Field(default_factory=dict)
    """What `${secret:name}` in a server's env stands for in this tenant's workers."""

    allow: Items[Pattern] = ()
    """What it may list and call: `server/name` with * and ?, or * for everything. Default: nothing."""

    deny: Items[Pattern] = ()
    """What it may not, even where `allow` matches."""

    limits: TenantLimits = TenantLimits()
    """How much it can ask for."""

    @model_validator(mode="after")
    def _token_ids_differ(self) -> Self:
        index = first_repeated(token.id for token in self.tokens)
        if index is not None:
            raise Fault("another token of this tenant has this id", at=("tokens", index, "id"))
        return self

    def may_use(self, server: str) -> bool:
        """Whether anything of this server could be allowed, as far as can be said before it is running."""
        if not any(fnmatch.fnmatchcase(server, server_part(pattern)) for pattern in self.allow):
            return False
        return not any(_denies_all(pattern, server) for pattern in self.deny)


def server_part(pattern: str) -> str:
    """The glob over server names in an `allow` or `deny` pattern."""
    return pattern.partition("/")[0]


def _denies_all(pattern: str, server: str) -> bool:
    glob, _, name = pattern.partition("/")
    return name in {"", "*"} and fnmatch.fnmatchcase(server, glob)
