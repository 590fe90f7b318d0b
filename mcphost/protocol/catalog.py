"""What one client sees of one server or of many: capabilities, advice, and lists cut to what is allowed."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec import Raw

from mcphost.errors import UpstreamProtocolError
from mcphost.protocol import jsonrpc, rewriting
from mcphost.protocol.jsonrpc import Fields
from mcphost.protocol.listening import declares
from mcphost.protocol.methods import ListMethod
from mcphost.protocol.naming import Names

MAX_INSTRUCTIONS: Final = 16_384  # characters; what many servers say together goes into a model's context

# A list is cut apart item by item, which takes many times its size; real ones have some ten KiB.
MAX_LIST_BYTES: Final = 4 * 1024 * 1024
MAX_LIST_PAGES: Final = 100  # a server that pages for ever must not hold a start or a list

MAX_TTL_DIGITS: Final = 15  # past that it is no span of time, and no number that every client can read

# Each feature, and which of its flags are carried: that a list's changes are told, and those of single resources.
_FEATURES: Final[Mapping[str, tuple[str, ...]]] = {
    "tools": ("listChanged",),
    "resources": ("subscribe", "listChanged"),
    "prompts": ("listChanged",),
    "completions": (),
}


def capabilities(offered: Iterable[Fields]) -> dict[str, dict[str, object]]:
    """The capabilities of an endpoint: the features that any of its servers has, and what it tells of them.

    All else inside a feature is left out: what is not carried is not promised.
    """
    parts = list(offered)
    return {
        feature: {flag: True for flag in flags if any(declares(each, feature, flag) for each in parts)}
        for feature, flags in _FEATURES.items()
        if any(feature in each for each in parts)
    }


def instructions(parts: Sequence[tuple[str, str | None]]) -> str | None:
    """What several servers advise, each under its name, cut to a bound."""
    sections = [f"## {server}\n\n{text}" for server, text in parts if text]
    return "\n\n".join(sections)[:MAX_INSTRUCTIONS] or None


def page(result: Raw, method: ListMethod) -> tuple[Fields, list[Fields]]:
    """A list result as its members and its items.

    Raises:
        UpstreamProtocolError: it is no such list.
    """
    try:
        members = jsonrpc.fields(result, "result")
        return members, jsonrpc.objects(members.get(method.member), method.member)
    except jsonrpc.Malformed as error:
        raise UpstreamProtocolError(f"the server answered with a malformed list: {error}") from None


class Gathered:
    """All pages of one list of one server, put together. `ttl_ms` is the shortest that any page grants."""

    def __init__(self, method: ListMethod) -> None:
        self._method = method
        self._bytes = 0
        self._pages = 0
        self._cursors: set[bytes] = set()
        self.items: list[Fields] = []
        self.ttl_ms: int | None = None

    def __repr__(self) -> str:
        return f"<Gathered {len(self.items)} {self._method.member} on {self._pages} pages>"

    def take(self, result: Raw) -> Raw | None:
        """Add a page; gives the cursor of the next, None after the last.

        Raises:
            UpstreamProtocolError: it is no such list, or one too large, or its pages do not end.
        """
        self._bytes += len(bytes(result))
        if self._bytes > MAX_LIST_BYTES:
            raise UpstreamProtocolError(
                f"the list of {self._method.member} is larger than {MAX_LIST_BYTES} bytes"
            )
        members, items = page(result, self._method)
        self.items.extend(items)
        ttl_ms = ttl_of(members)
        self.ttl_ms = ttl_ms if self.ttl_ms is None else min(ttl_ms, self.ttl_ms)
        cursor = members.get("nextCursor")
        if cursor is None or jsonrpc.text(cursor) is None:
            return None
        self._pages += 1
        if self._pages >= MAX_LIST_PAGES:
            raise UpstreamProtocolError(
                f"the list of {self._method.member} did not end after {MAX_LIST_PAGES} pages"
            )
        if bytes(cursor) in self._cursors:
            raise UpstreamProtocolError(
                f"the pages of the list of {self._method.member} go round in a circle"
            )
        self._cursors.add(bytes(cursor))
        return cursor


def ttl_of(members: Fields) -> int:
    """How many milliseconds a result may be kept, by its own word (2026-07-28, server/utilities/caching)."""
    text = bytes(members.get("ttlMs", b""))
    return int(text) if text.isdigit() and len(text) <= MAX_TTL_DIGITS else 0


@dataclass(frozen=True, slots=True)
class Part:
    """What one server adds to a list: items under their exposed names, which stand beside them."""

    server: str
    items: list[Fields]
    names: tuple[str, ...]

    @property
    def generation(self) -> str:
        """Tells whether an offset into the part still means what it meant."""
        digest = hashlib.sha256("\0".join(self.names).encode())
        return f"{len(self.names)}-{digest.hexdigest()[:16]}"


def visible(
    items: Iterable[Fields], method: ListMethod, allowed: Callable[[str], bool]
) -> list[tuple[str, Fields]]:
    """The items that a tenant may see, each with its name.

    An item without a name is dropped, for nobody could be asked whether it is allowed. `execution` is
    dropped because it offers task execution, which is not carried.
    """
    shown = []
    for item in items:
        name = jsonrpc.text(item.get(method.key))
        if name is not None and allowed(name):
            item.pop("execution", None)
            shown.append((name, item))
    return shown


def exposed(server: str, items: Iterable[tuple[str, Fields]], method: ListMethod, names: Names) -> Part:
    """A server's items as an endpoint of many servers shows them; of two with one name the first."""
    found: dict[str, Fields] = {}
    for name, item in items:
        label = names.expose(server, method.key, name)
        if label in found:
            continue
        item[method.key] = jsonrpc.raw(label)
        rewriting.expose_app(names, server, item)
        found[label] = item
    return Part(server, list(found.values()), tuple(found))


def merge(parts: Sequence[Part]) -> tuple[list[Part], list[tuple[str, str]]]:
    """The parts of one list, in which every name stands once: the first server that has it keeps it.

    Gives what was left out, too, as server and name; nothing is where names carry their server's.
    """
    taken: set[str] = set()
    kept: list[Part] = []
    lost: list[tuple[str, str]] = []
    for part in parts:
        pairs = [pair for pair in zip(part.names, part.items, strict=True) if pair[0] not in taken]
        lost.extend((part.server, name) for name in part.names if name in taken)
        taken.update(part.names)
        kept.append(Part(part.server, [item for _, item in pairs], tuple(name for name, _ in pairs)))
    return kept, lost
