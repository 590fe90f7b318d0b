"""Entries of `mcpServers` as other clients write them, in a file that is included or pasted into the policy."""

import os
from collections.abc import Callable, Mapping

from mcphost.errors import PolicyInvalid
from mcphost.policy.document import MAX_FILE_BYTES, Document
from mcphost.policy.faults import Fault, nearest
from mcphost.policy.files import NotText, Unreadable, decode, read_bounded
from mcphost.policy.jsontext import read_json
from mcphost.policy.places import KeyPath, Place

SERVERS = "mcpServers"

# More files than anybody reviews.
_MAX_INCLUDES = 64

# Keys that clients write and that change nothing here, with what their values must look like: they are for
# the client's own windows, or say what is the case anyway.
CLIENT_KEYS: Mapping[str, Callable[[object], bool]] = {
    "type": lambda value: value == "stdio",
    "disabled": lambda value: isinstance(value, bool),
    "description": lambda value: isinstance(value, str),
    "alwaysAllow": lambda value: isinstance(value, list),
    "autoApprove": lambda value: isinstance(value, list),
}

_ALLOWED: Mapping[str, str] = {"type": "stdio", "disabled": "true, false", "description": "text"}
# A tuple, for the value may be of any kind.
_REMOTE_TYPES = ("http", "sse", "streamable-http", "streamableHttp", "ws")
_TOP_KEYS = (SERVERS, "$schema")


def add_included(document: Document) -> None:
    """Read the files of `include` and add their servers to the tree; what is wrong is noted."""
    paths = document.tree.get("include")
    if not isinstance(paths, list):
        return
    if len(paths) > _MAX_INCLUDES:
        document.blame(("include",), Fault(f"at most {_MAX_INCLUDES} files can be included"))
        return
    for index, path in enumerate(paths):
        if isinstance(path, str) and path.strip():
            _include(document, ("include", index), path)


def settle_entries(document: Document) -> frozenset[str]:
    """Take clients' own keys, and disabled entries, out of the tree. Gives the names of all entries."""
    servers = document.tree.get(SERVERS)
    if not isinstance(servers, dict):
        return frozenset()
    names = frozenset(servers)
    for name in names:
        if isinstance(servers[name], dict) and not _keep(document, (SERVERS, name), servers[name]):
            del servers[name]
    return names


def _include(document: Document, at: KeyPath, path: str) -> None:
    file = os.path.normpath(os.path.join(os.path.dirname(document.places.file), path))
    try:
        included = read_json(decode(read_bounded(file, max_bytes=MAX_FILE_BYTES)), file=file)
    except NotText as error:
        document.note(Place(file, error.line, error.column), str(error))
    except Unreadable as error:
        document.blame(at, Fault(f"the file {file}: {error}"), path)
    except PolicyInvalid as error:
        document.problems.extend(error.problems)
    else:
        document.problems.extend(included.problems)
        _merge(document, included)


def _merge(document: Document, included: Document) -> None:
    entries = included.tree.get(SERVERS)
    for key in included.tree:
        if key not in _TOP_KEYS:
            suggestion = SERVERS if key == "servers" else nearest(key, _TOP_KEYS)
            fault = Fault("a client file holds mcpServers only", suggestion=suggestion, on_key=True)
            document.problems.append(included.places.problem((key,), fault))
    if not isinstance(entries, dict):
        document.problems.append(
            included.places.problem((SERVERS,), Fault("a mapping of servers is expected"))
        )
        return
    servers = document.tree.setdefault(SERVERS, {})
    if isinstance(servers, dict):
        _add(document, included, servers, entries)


def _add(
    document: Document, included: Document, servers: dict[str, object], entries: dict[str, object]
) -> None:
    """Add the entries whose names are new; an entry that was there before stays, and the second is noted."""
    for name in entries.keys() & servers.keys():
        at = (SERVERS, name)
        first = document.places.of(at, on_key=True)
        fault = Fault(f"the server is defined twice; first at {first}", on_key=True)
        document.problems.append(included.places.problem(at, fault))
    new = {name: entry for name, entry in entries.items() if name not in servers}
    servers.update(new)
    document.places.adopt(included.places, SERVERS, new)


def _keep(document: Document, at: KeyPath, entry: dict[str, object]) -> bool:
    """Whether the entry is to be run. Its client keys are taken out."""
    if "url" in entry or entry.get("type") in _REMOTE_TYPES:
        key = "url" if "url" in entry else "type"
        fault = Fault("remote servers are not hosted; only servers that are run here", on_key=key == "url")
        document.blame((*at, key), fault)
        return False
    disabled = entry.get("disabled") is True
    for key, looks_right in CLIENT_KEYS.items():
        if key in entry and not looks_right(entry[key]):
            document.blame(
                (*at, key), Fault("is not understood", allowed=_ALLOWED.get(key, "a list")), entry[key]
            )
        entry.pop(key, None)
    return not disabled
