"""Lists of system calls: the shipped ones by name, or a file of the policy's author.

A file is read once, with the policy, and carried on as what it says: who changes it later changes nothing of what
runs. What it may say is the sandbox's to judge; here its faults get their place in the file.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, InstanceOf, PlainSerializer, WithJsonSchema

from mcphost.errors import PolicyInvalid
from mcphost.policy.document import Document
from mcphost.policy.faults import Fault, nearest
from mcphost.policy.files import NotText, Unreadable, decode, read_bounded
from mcphost.policy.jsontext import read_json
from mcphost.policy.places import KeyPath, Place
from sandbox import FILTERS, MAX_FILTER_BYTES, FilterInvalid, encode_filter

_ALLOWED = f"{', '.join(FILTERS)}, or the absolute path of a JSON file"


@dataclass(frozen=True, slots=True)
class SyscallList:
    """`written` is what the policy says; `profile` what the sandbox is told: a name, or a whole profile as text."""

    written: str
    profile: str

    def __str__(self) -> str:
        return self.written


DEFAULT_SYSCALLS = SyscallList("default", "default")


def read_syscall_lists(document: Document) -> None:
    """Read the file of every profile that names one and put what it holds in its place; what is wrong is noted."""
    profiles = document.tree.get("profiles")
    for name, profile in profiles.items() if isinstance(profiles, dict) else ():
        path = profile.get("syscalls") if isinstance(profile, dict) else None
        if isinstance(path, str) and path.startswith("/"):
            at = ("profiles", name, "syscalls")
            text = _read(document, at, path)
            if text is None:
                document.broken.add(at)
            else:
                profile["syscalls"] = SyscallList(path, text)


def _read(document: Document, at: KeyPath, path: str) -> str | None:
    try:
        content = read_json(decode(read_bounded(path, max_bytes=MAX_FILTER_BYTES)), file=path)
    except NotText as error:
        document.note(Place(path, error.line, error.column), str(error))
    except Unreadable as error:
        document.blame(at, Fault(f"the file {path}: {error}"))
    except PolicyInvalid as error:
        document.problems.extend(error.problems)
    else:
        return _judged(document, content)
    return None


def _judged(document: Document, content: Document) -> str | None:
    document.problems.extend(content.problems)
    if content.problems:
        return None
    try:
        return encode_filter(content.tree)
    except FilterInvalid as error:
        on_key = error.on_key
        fault = Fault(error.problem, suggestion=error.suggestion, on_key=on_key)
        document.problems.append(content.places.problem(error.path, fault))
    return None


def _known(value: object) -> SyscallList:
    if isinstance(value, SyscallList):
        return value
    if isinstance(value, str) and value in FILTERS:
        return SyscallList(value, value)
    if isinstance(value, str) and value.startswith("/"):
        raise Fault("a file is only read by load() and loads()")
    near = nearest(value, FILTERS) if isinstance(value, str) else None
    raise Fault("is no list of system calls", allowed=_ALLOWED, suggestion=near)


Syscalls = Annotated[
    SyscallList,
    InstanceOf,
    BeforeValidator(_known),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema({"anyOf": [{"enum": list(FILTERS)}, {"type": "string", "pattern": "^/"}]}),
]
