"""From a file to a policy: read, include, refuse, validate; every problem told at once."""

import os
from collections.abc import Iterable

from pydantic import ValidationError

from mcphost.errors import PolicyUnreadable, Problem
from mcphost.policy.checks import Declared
from mcphost.policy.clients import SERVERS, add_included, settle_entries
from mcphost.policy.document import MAX_FILE_BYTES, Document
from mcphost.policy.files import NotText, Unreadable, decode, read_bounded
from mcphost.policy.models import Loading, Policy
from mcphost.policy.places import KeyPath, Place, Places
from mcphost.policy.problems import translate
from mcphost.policy.syscall_lists import read_syscall_lists
from mcphost.policy.unsupported import refuse_later_keys
from mcphost.policy.yamltext import read_yaml

# Where `null` is a value: no such address, URL or directory.
_NULLABLE = frozenset({("runtime", key) for key in ("admin", "publicUrl", "stateDir")})

_NAMED_PARTS = frozenset({"profiles", SERVERS, "tenants", "routes"})


def load(path: str | os.PathLike[str]) -> Policy:
    """The policy in the file at `path`, with what it includes.

    Reads no secret and looks for no program: those may not be there yet.

    Raises:
        PolicyUnreadable: the file itself could not be read.
        PolicyInvalid: it is wrong; all problems are listed, each with its place.
    """
    file = os.fspath(path)
    try:
        data = read_bounded(file, max_bytes=MAX_FILE_BYTES)
    except Unreadable as error:
        raise PolicyUnreadable(file, str(error)) from error
    try:
        text = decode(data)
    except NotText as error:
        raise Document(Places(file)).stop(Place(file, error.line, error.column), str(error)) from error
    return loads(text, file=file)


def loads(text: str, *, file: str) -> Policy:
    """The policy in `text`. `file` is its name in errors, and included paths start at its directory.

    Raises:
        PolicyInvalid: it is wrong; all problems are listed, each with its place.
    """
    document = read_yaml(text, file=file)
    add_included(document)
    servers = settle_entries(document)
    refuse_later_keys(document)
    read_syscall_lists(document)
    document.refuse_nothing(_NULLABLE)
    profiles = document.tree.get("profiles")
    loading = Loading(Declared(frozenset(profiles if isinstance(profiles, dict) else ()), servers))
    policy = _validate(document, loading)
    if policy is None or document.problems:
        raise document.invalid()
    return policy


def _validate(document: Document, loading: Loading) -> Policy | None:
    """The policy, or None with the problems noted."""
    try:
        return _build(document, document.tree, loading)
    except ValidationError as error:
        found = translate(error, document, Policy)
    _note(document, found)
    # How the parts agree is judged only where each part is right by itself. So that one run still tells
    # everything, it is judged once more without the parts that are wrong.
    try:
        _build(document, _without(document.tree, {*found, *document.broken}), loading)
    except ValidationError as error:
        _note(document, translate(error, document, Policy))
    return None


def _build(document: Document, tree: dict[str, object], loading: Loading) -> Policy:
    # Names as in Python are for Python only: in a file `session_idle` is an unknown key.
    policy = Policy.model_validate(tree, context=loading, by_alias=True, by_name=False)
    return policy.located(document.places)


def _note(document: Document, found: dict[KeyPath, list[Problem]]) -> None:
    for problems in found.values():
        document.problems.extend(problems)


def _without(tree: dict[str, object], paths: Iterable[KeyPath]) -> dict[str, object]:
    """The tree without the entries, or whole parts, to which these paths lead."""
    rest = {key: dict(part) if isinstance(part, dict) else part for key, part in tree.items()}
    for path in paths:
        part = rest.get(str(path[0])) if path else None
        if path and path[0] in _NAMED_PARTS and len(path) > 1 and isinstance(part, dict):
            part.pop(path[1], None)
        elif path:
            rest.pop(str(path[0]), None)
    return rest | {"version": 1}
