"""Reads the parts; says what is wrong with them; and writes the page."""

import ast
import re
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
TESTS = HERE.parent
PAGE = TESTS.parent / "docs" / "protocol.md"
WIDTH = 110
ERAS = {"both": "", "legacy": "Legacy only. ", "modern": "Modern only. "}


@dataclass(frozen=True)
class Behaviour:
    """One of them; see the package."""

    id: str
    says: str
    shown: tuple[str, ...]
    eras: str = "both"
    source: str = ""
    unspoken: str = ""


@dataclass(frozen=True)
class Part:
    """One part of the page."""

    title: str
    intro: str
    behaviours: tuple[Behaviour, ...]


@cache
def parts() -> tuple[Part, ...]:
    """All parts in their order. Raises `TypeError` for a member that no behaviour has."""
    read = [tomllib.loads(path.read_text()) for path in sorted(HERE.glob("*.toml"))]
    return tuple(
        Part(
            each["title"],
            each["intro"],
            tuple(Behaviour(**one | {"shown": tuple(one.get("shown", ()))}) for one in each["behaviour"]),
        )
        for each in read
    )


def behaviours() -> list[Behaviour]:
    """Of all parts."""
    return [one for part in parts() for one in part.behaviours]


@cache
def names_in(file: str) -> frozenset[str]:
    """The names of the tests in a file below `tests`; none if there is no such file."""
    path = TESTS / file
    if not path.is_file():
        return frozenset()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, functions)]
    return frozenset(name for name in names if name.startswith("test_"))


def faults() -> Iterator[str]:
    """What is wrong with the manifest."""
    known = behaviours()
    ids = [one.id for one in known]
    yield from (f"{name} occurs twice" for name in sorted({each for each in ids if ids.count(each) > 1}))
    for one in known:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", one.id):
            yield f"{one.id!r} is no id"
        if one.eras not in ERAS:
            yield f"{one.id}: no such era: {one.eras}"
        if not one.shown:
            yield f"{one.id}: no test shows it"
        for shown in one.shown:
            file, _, name = shown.partition("::")
            if name not in names_in(file):
                yield f"{one.id}: there is no test {shown}"


def page() -> str:
    """The page docs/protocol.md."""
    lines = [
        "# The protocol: what is spoken, and what is not",
        "",
        *_wrapped(
            "Made from `tests/behaviours` by `make protocol-doc`, not by hand. Every line names the tests that show it, "
            "and a test sees to it that they exist. *Legacy* means the revisions that begin with `initialize`, up to "
            "2025-11-25; *modern* means 2026-07-28. Whatever a client and a server speak, they are brought together; "
            "part 5 says how, and what is lost."
        ),
    ]
    for part in parts():
        lines += ["", f"## {part.title}", "", *_wrapped(part.intro), ""]
        for one in part.behaviours:
            lines += _entry(one)
    missing = [one for one in behaviours() if one.unspoken]
    lines += ["", "## What is not spoken, in short", ""]
    lines += [line for one in missing for line in _wrapped(f"- `{one.id}`: {one.unspoken}", "  ")]
    return "\n".join(lines) + "\n"


def _entry(one: Behaviour) -> list[str]:
    told = f"- `{one.id}`: {ERAS[one.eras]}{one.says}"
    if one.unspoken:
        told = f"- `{one.id}`: **Not spoken.** {ERAS[one.eras]}{one.says} {one.unspoken}"
    if one.source:
        told += f" ({one.source})"
    files: dict[str, list[str]] = {}
    for shown in one.shown:
        file, _, name = shown.partition("::")
        files.setdefault(file, []).append(name.removeprefix("test_"))
    shown = "; ".join(f"`{file}`: {', '.join(names)}" for file, names in files.items())
    return [*_wrapped(told, "  "), *_wrapped(f"  <br>*{shown}*", "  ")]


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
