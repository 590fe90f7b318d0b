"""Under which names an endpoint of many servers shows their items, and back.

A tool or prompt is exposed as `server__name` and a resource as `server+uri`, so that each name has one reading:
the separator cannot occur in a server's name, nor begin within it. Clients hand names to language models, which take
64 characters of letters, digits, `_` and `-`: a name that would not fit is cut to a short form that ends in `--` and
a digest of the whole name. What looks like a short form by itself gets one too, so no server can give a tool the
exposed name of another tool.

A URI keeps its form: `one+file:///a`, since a scheme may hold `+` (RFC 3986, section 3.1); a server's `_`, which a
scheme may not hold, becomes `.`. Hosts of MCP Apps go by the scheme `ui`, so there the server stands in the authority:
`ui://one+board/main.html`.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MAX_NAME: Final = 64  # what the APIs of language models take as the name of a tool

URI_SEPARATOR: Final = "+"

_APP_SCHEME: Final = "ui://"
_DIGEST: Final = 12  # hexadecimal digits; what one server's own names could collide in
_SHORT: Final = re.compile(rf"--[0-9a-f]{{{_DIGEST}}}\Z")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Reading:
    """What an exposed name says: the server, and its item's name; None where only its list tells which it is."""

    server: str
    name: str | None


@dataclass(frozen=True, slots=True)
class Names:
    """The naming of one endpoint; without a separator everything keeps its own name."""

    separator: str

    @property
    def bare(self) -> bool:
        """Whether names and URIs are the servers' own."""
        return not self.separator

    def expose(self, server: str, key: str, name: str) -> str:
        """The name or URI of a server's item; `key` is the member that names it."""
        if self.bare:
            return name
        return self._exposed_name(server, name) if key == "name" else _exposed_uri(server, name)

    def read(self, key: str, exposed: str, servers: Iterable[str]) -> Reading | None:
        """What an exposed name or URI means; None if it names no server. Not for bare names."""
        if key != "name":
            return _read_uri(exposed, servers)
        server, separator, name = exposed.partition(self.separator)
        if not separator or server not in servers:
            return None
        if _SHORT.search(name):
            return Reading(server, None)
        return Reading(server, name) if self.expose(server, key, name) == exposed else None

    def _exposed_name(self, server: str, name: str) -> str:
        prefix = f"{server}{self.separator}"
        if len(prefix) + len(name) <= MAX_NAME and not _UNSAFE.search(name) and not _SHORT.search(name):
            return prefix + name
        digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
        readable = _UNSAFE.sub("-", name)[: MAX_NAME - len(prefix) - len("--") - _DIGEST]
        return f"{prefix}{readable}--{digest}"


BARE: Final = Names("")


def _exposed_uri(server: str, uri: str) -> str:
    label = _label(server)
    if uri.startswith(_APP_SCHEME):
        return f"{_APP_SCHEME}{label}{URI_SEPARATOR}{uri.removeprefix(_APP_SCHEME)}"
    return f"{label}{URI_SEPARATOR}{uri}"


def _read_uri(exposed: str, servers: Iterable[str]) -> Reading | None:
    """A scheme and an authority are case-insensitive (RFC 3986, sections 3.1 and 3.2.2); some clients lower them."""
    app = exposed[: len(_APP_SCHEME)].lower() == _APP_SCHEME
    label, separator, rest = exposed[len(_APP_SCHEME) if app else 0 :].partition(URI_SEPARATOR)
    if not separator:
        return None
    for server in servers:
        if _label(server) == label.lower():
            return Reading(server, _APP_SCHEME + rest if app else rest)
    return None


def _label(server: str) -> str:
    return server.replace("_", ".").lower()
