"""What clients listen for besides their calls: which notifications, how they are asked for, and how they are told.

The modern era asks with one `subscriptions/listen` whose filter says all, and every message on it names it
(2026-07-28, basic/patterns/subscriptions). The legacy era tells of changed lists unasked, and of a resource after
`resources/subscribe` (2025-11-25, server/resources, "Subscriptions"). An `Interest` is what either comes to.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, Literal

from msgspec import Raw

from mcphost.errors import INVALID_PARAMS, DownstreamProtocolError
from mcphost.protocol import jsonrpc, versions
from mcphost.protocol.envelope import (
    META_CAPABILITIES,
    META_CLIENT,
    META_PREFIX,
    META_SERVER,
    META_VERSION,
)
from mcphost.protocol.jsonrpc import EMPTY_OBJECT, Fields

ListKind = Literal["tools", "prompts", "resources"]

ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
UPDATED: Final = "notifications/resources/updated"
TASK_CHANGED: Final = "notifications/tasks"
META_SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"
TASKS_EXTENSION: Final = "io.modelcontextprotocol/tasks"

LISTS_CHANGED: Final[Mapping[str, ListKind]] = {
    "notifications/tools/list_changed": "tools",
    "notifications/prompts/list_changed": "prompts",
    "notifications/resources/list_changed": "resources",
}

MAX_NAMED: Final = 512  # URIs, or tasks, of one filter; a client that watches more opens another
MAX_NAME_CHARACTERS: Final = 2048  # a URI longer than this is data in disguise, and is looked up often
MAX_LEVELS: Final = 16  # how many parents of an updated resource are looked for among what was subscribed to

FIRST_WAIT_SECONDS: Final = 1.0
LONGEST_WAIT_SECONDS: Final = 60.0

_FLAGS: Final[Mapping[str, ListKind]] = {
    "toolsListChanged": "tools",
    "promptsListChanged": "prompts",
    "resourcesListChanged": "resources",
}
_URIS: Final = "resourceSubscriptions"
_TASKS: Final = "taskIds"
_TRUE: Final = Raw(b"true")


@dataclass(frozen=True, slots=True)
class Heard:
    """One notification that somebody may have asked for; `params` as the server wrote them.

    One of three is set: `kind`, the list that changed; `uris`, the updated resource followed by what it may be a
    part of; `task`, the task that it tells of.
    """

    method: str
    params: Fields
    kind: ListKind | None = None
    uris: tuple[str, ...] = ()
    task: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What it tells of. Of two with the same key the later one says all that the earlier one said."""
        return self.method, self.uris[0] if self.uris else self.task


@dataclass(frozen=True, slots=True)
class Interest:
    """Which notifications somebody wants: of changed lists, of updated resources, of tasks."""

    tools: bool = False
    prompts: bool = False
    resources: bool = False
    uris: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.kinds or self.uris or self.tasks)

    def __or__(self, other: "Interest") -> "Interest":
        return of_kinds(self.kinds | other.kinds, self.uris | other.uris, self.tasks | other.tasks)

    def __and__(self, other: "Interest") -> "Interest":
        return of_kinds(self.kinds & other.kinds, self.uris & other.uris, self.tasks & other.tasks)

    @property
    def kinds(self) -> frozenset[ListKind]:
        """The lists whose changes are wanted."""
        flags: dict[ListKind, bool] = {
            "tools": self.tools,
            "prompts": self.prompts,
            "resources": self.resources,
        }
        return frozenset(kind for kind, wanted in flags.items() if wanted)

    @property
    def named(self) -> frozenset[str]:
        """What is wanted by its name."""
        return self.uris | self.tasks

    def without(self, names: AbstractSet[str]) -> "Interest":
        """The same, but nothing by one of these names."""
        return of_kinds(self.kinds, self.uris - names, self.tasks - names)

    def of_no_tasks(self) -> "Interest":
        """The same, but no task."""
        return of_kinds(self.kinds, self.uris)

    def wants(self, heard: Heard) -> bool:
        """Whether a notification is among those that are wanted.

        An update may name a part of what was subscribed to (2025-11-25 and 2026-07-28, schema,
        `ResourceUpdatedNotificationParams`).
        """
        if heard.kind is not None:
            return heard.kind in self.kinds
        if heard.uris:
            return not self.uris.isdisjoint(heard.uris)
        return heard.task in self.tasks


NO_INTEREST: Final = Interest()
ALL_LISTS: Final = Interest(tools=True, prompts=True, resources=True)


def of_kinds(
    kinds: Iterable[ListKind], uris: frozenset[str] = frozenset(), tasks: frozenset[str] = frozenset()
) -> Interest:
    """An interest in the changes of some lists, and whatever else."""
    wanted = frozenset(kinds)
    return Interest("tools" in wanted, "prompts" in wanted, "resources" in wanted, uris, tasks)


def union(interests: Iterable[Interest]) -> Interest:
    """What is to be asked of a server so that everybody can be told."""
    parts = list(interests)
    return of_kinds(
        frozenset().union(*(each.kinds for each in parts)),
        frozenset().union(*(each.uris for each in parts)),
        frozenset().union(*(each.tasks for each in parts)),
    )


def read_filter(params: Fields) -> Interest:
    """What a client asks for in `subscriptions/listen`; kinds that are not known here are passed over.

    Raises:
        DownstreamProtocolError: -32602, no filter, a member of another type, or more than may be named.
    """
    if "notifications" not in params:
        raise DownstreamProtocolError(INVALID_PARAMS, "params.notifications is required")
    try:
        wanted = jsonrpc.fields(params["notifications"], "params.notifications")
    except jsonrpc.Malformed as error:
        raise DownstreamProtocolError(error.code, str(error)) from None
    for key in _FLAGS:
        if bytes(wanted.get(key, _TRUE)) not in {b"true", b"false"}:
            raise DownstreamProtocolError(INVALID_PARAMS, f"params.notifications.{key} must be a boolean")
    kinds = [kind for key, kind in _FLAGS.items() if bytes(wanted.get(key, b"")) == b"true"]
    return of_kinds(kinds, _names(wanted, _URIS), _names(wanted, _TASKS))


def _names(wanted: Fields, key: str) -> frozenset[str]:
    if key not in wanted:
        return frozenset()
    names = frozenset(jsonrpc.strings(wanted[key]))
    if not names and bytes(wanted[key]).translate(None, b" \t\r\n") != b"[]":
        raise DownstreamProtocolError(INVALID_PARAMS, f"params.notifications.{key} must be a list of strings")
    if len(names) > MAX_NAMED or any(len(name) > MAX_NAME_CHARACTERS for name in names):
        most = f"at most {MAX_NAMED} of at most {MAX_NAME_CHARACTERS} characters each"
        raise DownstreamProtocolError(INVALID_PARAMS, f"params.notifications.{key} may name {most}")
    return names


def read_granted(params: Fields, asked: Interest) -> Interest:
    """What a server's acknowledgement grants of what it was asked for; what makes no sense grants nothing."""
    try:
        return read_filter(params) & asked
    except DownstreamProtocolError:
        return NO_INTEREST


def supported(wanted: Interest, capabilities: Fields) -> Interest:
    """The part of an interest that a server declares to serve, by its capabilities."""
    kinds = [kind for kind in wanted.kinds if declares(capabilities, kind, "listChanged")]
    uris = wanted.uris if declares(capabilities, "resources", "subscribe") else frozenset[str]()
    tasks = wanted.tasks if _has(capabilities, "extensions", TASKS_EXTENSION) else frozenset[str]()
    return of_kinds(kinds, uris, tasks)


def declares(capabilities: Fields, feature: str, flag: str) -> bool:
    """Whether a server declares a flag of a feature, such as `listChanged` of its tools."""
    return _has(capabilities, feature, flag) and bytes(_member(capabilities, feature)[flag]) == b"true"


def _has(capabilities: Fields, feature: str, key: str) -> bool:
    return key in _member(capabilities, feature)


def _member(capabilities: Fields, feature: str) -> Fields:
    try:
        return jsonrpc.fields(capabilities.get(feature, EMPTY_OBJECT))
    except jsonrpc.Malformed:
        return {}


def read_heard(method: str, params: Fields) -> Heard | None:
    """A server's notification, if it is one that can be asked for and says of what it tells."""
    if method in LISTS_CHANGED:
        return Heard(method, params, kind=LISTS_CHANGED[method])
    name = jsonrpc.text(params.get("taskId" if method == TASK_CHANGED else "uri"))
    if name is None or len(name) > MAX_NAME_CHARACTERS:
        return None
    if method == UPDATED:
        return Heard(method, params, uris=(name, *_parents(name)))
    return Heard(method, params, task=name) if method == TASK_CHANGED else None


def _parents(uri: str) -> list[str]:
    """What a resource may be a part of: its URI cut at each boundary, with the slash and without, longest last."""
    cuts = [index for index, letter in enumerate(uri) if letter in "/?#"][:MAX_LEVELS]
    return [uri[:end] for cut in cuts for end in (cut, cut + 1) if 0 < end < len(uri)]


def list_changed(kind: ListKind) -> Heard:
    """What is told where a list may have changed and no server said so: after a restart."""
    return Heard(f"notifications/{kind}/list_changed", {}, kind=kind)


def updated(uri: str) -> Heard:
    """What is told where a resource may have changed and no server said so."""
    return Heard(UPDATED, {"uri": jsonrpc.raw(uri)}, uris=(uri, *_parents(uri)))


def filter_of(interest: Interest) -> Raw:
    """An interest as the filter of a request or of an acknowledgement."""
    members: dict[str, object] = {key: True for key, kind in _FLAGS.items() if kind in interest.kinds}
    if interest.uris:
        members[_URIS] = sorted(interest.uris)
    if interest.tasks:
        members[_TASKS] = sorted(interest.tasks)
    return jsonrpc.raw(members)


def request_params(wanted: Interest, client_info: Raw) -> Fields:
    """The params of our own `subscriptions/listen` to a modern server; nothing else can be asked on it."""
    extensions = {TASKS_EXTENSION: EMPTY_OBJECT} if wanted.tasks else {}
    meta = {
        META_VERSION: versions.MODERN,
        META_CLIENT: client_info,
        META_CAPABILITIES: {"extensions": extensions} if extensions else EMPTY_OBJECT,
    }
    return {"notifications": filter_of(wanted), "_meta": jsonrpc.raw(meta)}


def acknowledgement(listen_id: bytes, granted: Interest) -> bytes:
    """The first message of a client's stream: what it will be told of. `listen_id` is its own, as raw JSON."""
    return tagged(ACKNOWLEDGED, {"notifications": filter_of(granted)}, listen_id)


def tagged(method: str, params: Fields, listen_id: bytes) -> bytes:
    """A notification for a modern client, on the stream of its request `listen_id`, without line breaks."""
    meta = _member(params, "_meta")
    meta[META_SUBSCRIPTION] = Raw(listen_id)
    return _notification(method, {**params, "_meta": jsonrpc.raw(meta)})


def untagged(method: str, params: Fields) -> bytes:
    """A notification for a legacy client, without what only the modern era knows and without line breaks."""
    meta = {key: value for key, value in _member(params, "_meta").items() if not key.startswith(META_PREFIX)}
    plain = {key: value for key, value in params.items() if key != "_meta"}
    if meta:
        plain["_meta"] = jsonrpc.raw(meta)
    return _notification(method, plain)


def _notification(method: str, params: Fields) -> bytes:
    return jsonrpc.one_line(jsonrpc.raw_bytes({"jsonrpc": "2.0", "method": method, "params": params}))


def completion(listen_id: bytes, server_info: Raw) -> Raw:
    """The result that ends a client's stream in order ("Graceful Closure")."""
    meta = {META_SUBSCRIPTION: Raw(listen_id), META_SERVER: server_info}
    return jsonrpc.raw({"resultType": "complete", "_meta": meta})


def wait_before_retry(failures: int) -> float:
    """Seconds to wait before a server that failed to listen `failures` times in a row is asked again."""
    return min(FIRST_WAIT_SECONDS * 2.0 ** min(failures - 1, 16), LONGEST_WAIT_SECONDS)
