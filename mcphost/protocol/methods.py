"""What we know of each method: how it is routed, what names it, which capability it belongs to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Feature = Literal["tools", "resources", "prompts", "completions"]


@dataclass(frozen=True, slots=True)
class ListMethod:
    """A method that lists: `member` of the result holds items, each named by its `key`."""

    feature: Feature
    member: str
    key: str


@dataclass(frozen=True, slots=True)
class NamedMethod:
    """A method on one item, named by the parameter `key`; `listed_by` is the method that lists such items."""

    feature: Feature
    key: str
    listed_by: str


LISTS: Final[Mapping[str, ListMethod]] = {
    "tools/list": ListMethod("tools", "tools", "name"),
    "prompts/list": ListMethod("prompts", "prompts", "name"),
    "resources/list": ListMethod("resources", "resources", "uri"),
    "resources/templates/list": ListMethod("resources", "resourceTemplates", "uriTemplate"),
}

NAMED: Final[Mapping[str, NamedMethod]] = {
    "tools/call": NamedMethod("tools", "name", "tools/list"),
    "prompts/get": NamedMethod("prompts", "name", "prompts/list"),
    "resources/read": NamedMethod("resources", "uri", "resources/list"),
}

COMPLETE: Final = "completion/complete"

# Results that carry caching hints on the modern face (2026-07-28, server/utilities/caching).
CACHEABLE: Final = frozenset({*LISTS, "resources/read", "server/discover"})

TASKS: Final = frozenset({"tasks/get", "tasks/update", "tasks/cancel"})  # an extension of 2026-07-28

FORWARDED: Final = frozenset({*LISTS, *NAMED, *TASKS, COMPLETE})

LISTEN: Final = "subscriptions/listen"  # 2026-07-28

SUBSCRIBE: Final = "resources/subscribe"  # 2025-11-25, and what ends it
UNSUBSCRIBE: Final = "resources/unsubscribe"
SUBSCRIPTIONS: Final = frozenset({SUBSCRIBE, UNSUBSCRIBE})

# Every value the label `method` of a metric can take; all else counts as "other".
KNOWN: Final = frozenset(
    {*FORWARDED, *SUBSCRIPTIONS, LISTEN, "initialize", "logging/setLevel", "ping", "server/discover"}
)
