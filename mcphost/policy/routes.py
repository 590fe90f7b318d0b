"""`routes`: the paths that stand for several servers, and how each shows them."""

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema, model_validator

from mcphost.policy.faults import Fault, first_repeated, must_be_known
from mcphost.policy.fields import FilledText, Items, Model, ServerName

_PATH = re.compile(r"/mcp(?:/[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_SEPARATOR = re.compile(r"[_-]{1,4}")
_MAX_PATH = 64  # it is sealed into session ids, which travel in a header

_EVERY = "*"

Offer = Literal["tools", "resources", "prompts", "completions"]


def _path(text: str) -> str:
    if not _PATH.fullmatch(text) or len(text) > _MAX_PATH:
        allowed = "/mcp, and below it segments of lower-case letters, digits and inner `-`"
        raise Fault("is not usable as the path of a route", allowed=allowed, on_key=True)
    return text


def _separator(text: str) -> str:
    if not _SEPARATOR.fullmatch(text):
        raise Fault("is not usable as a separator", allowed="one to four `_` and `-`")
    return text


def _server_list(value: object) -> object:
    """`*` is the list that is not written out."""
    if isinstance(value, str) and value != _EVERY:
        raise Fault('is neither "*" nor a list of servers', allowed='"*", or [name, ...]')
    return None if value == _EVERY else value


RoutePath = Annotated[
    str,
    AfterValidator(_path),
    WithJsonSchema({"type": "string", "pattern": f"^{_PATH.pattern}$", "maxLength": _MAX_PATH}),
]
Separator = Annotated[
    FilledText,
    AfterValidator(_separator),
    WithJsonSchema({"type": "string", "pattern": f"^{_SEPARATOR.pattern}$"}),
]
ServerList = Annotated[
    Items[ServerName] | None,
    BeforeValidator(_server_list),
    WithJsonSchema(
        {"anyOf": [{"enum": [_EVERY]}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]}
    ),
]


class Route(Model):
    """One path over several servers. A tenant sees of it what it is allowed."""

    servers: ServerList = None
    """Which servers, in the order of their lists; "*", the default, for all in the order of `mcpServers`."""

    capabilities: Items[Offer] = ("tools", "resources", "prompts", "completions")
    """What of them is shown. Default: everything."""

    naming: Literal["prefix", "none"] = "prefix"
    """`prefix` shows `server__tool` and `server+uri`; `none` the servers' own names, the first server having each."""

    separator: Separator = "__"
    """What stands between a server's name and a tool's."""

    prefer: Literal["first", "healthy"] = "first"
    """With `naming: none`, who gets a call where several servers have its name; `healthy`: the first that is up."""

    on_server_down: Literal["skip", "fail"] = "skip"
    """What a list does while one of the servers is down: go without its part, or fail."""

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        for key, written in (("servers", self.servers), ("capabilities", self.capabilities)):
            if written is not None and not written:
                raise Fault("must name at least one", at=(key,))
            repeated = first_repeated(written or ())
            if repeated is not None:
                raise Fault("is listed twice", at=(key, repeated))
        if self.naming == "none" and "separator" in self.model_fields_set:
            raise Fault("names without a prefix have no separator", at=("separator",), on_key=True)
        if self.naming == "prefix" and self.prefer == "healthy":
            why = "a name with its server's prefix leaves no choice; use `naming: none`"
            raise Fault(why, at=("prefer",))
        return self


def route_faults(path: str, route: Route, servers: Iterable[str]) -> Iterator[Fault]:
    """What does not fit the servers that the policy declares."""
    known = list(servers)
    at = ("routes", path)
    for index, name in enumerate(route.servers or ()):
        if name not in known:
            yield must_be_known(name, known, "server", at=(*at, "servers", index))
    for name in route.servers or known:
        if route.naming == "prefix" and f"{name}{route.separator}".find(route.separator) != len(name):
            why = f"cannot be told apart from the name of the server {name!r}"
            yield Fault(why, at=(*at, "separator"))
            return
