"""What a Python program runs, found without running it: for servers whose workers are forked, not started anew."""

import ast
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mcphost.policy.faults import Fault

# What installers generate is some hundred bytes.
_MAX_SCRIPT_BYTES = 64 * 1024
_PYTHON = re.compile(r"python[0-9.]*")
# Options of python(1) that take the next argument when it is not joined to them.
_WITH_VALUE = frozenset({"-X", "-W", "--check-hash-based-pycs"})
_REMEDY = "the script that a Python package installs, or python -m MODULE; anything else is started with spawn: exec"


@dataclass(frozen=True, slots=True)
class Entry:
    """A Python program taken apart: the interpreter with its options, what to run, and its sys.argv.

    `run` is `module` for what `python -m` runs, `module:function` for an installed script; `module` what to import.
    """

    interpreter: tuple[str, ...]
    module: str
    run: str
    argv: tuple[str, ...]


def find_entry(command: Sequence[str]) -> Entry:
    """Take the argument list of a program that was found (`Program.argv`) apart.

    Raises:
        Fault: it is no Python program of the two kinds. Its `at` starts from the server's entry.
    """
    argv = tuple(command)
    if not _PYTHON.fullmatch(os.path.basename(argv[0])):
        raise _unknown(f"{argv[0]} is no Python")
    index = 1
    while index < len(argv) and argv[index].startswith("-") and argv[index] not in {"-m", "-c", "-"}:
        index += 2 if argv[index] in _WITH_VALUE else 1
    interpreter, rest = argv[:index], argv[index:]
    if not rest or (rest[0] == "-m" and len(rest) == 1):
        raise _unknown("the command names nothing that Python is to run")
    if rest[0] == "-m":
        return Entry(interpreter, _module(rest[1]), rest[1], rest[1:])
    module, attribute = _of_script(rest[0])
    return Entry(interpreter, module, f"{module}:{attribute}", rest)


def _module(name: str) -> str:
    if not all(part.isidentifier() for part in name.split(".")):
        raise _unknown(f"{name} is no module's name")
    return name


def _of_script(path: str) -> tuple[str, str]:
    """The module and function of a script as installers write it: one import, and `sys.exit(function())`."""
    try:
        with open(path, encoding="utf-8") as file:
            tree = ast.parse(file.read(_MAX_SCRIPT_BYTES))
    except (OSError, ValueError, SyntaxError):
        raise _unknown(f"{path} cannot be read as a Python script") from None
    imported = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "sys.exit" and len(node.args) == 1:
            called = node.args[0]
            if isinstance(called, ast.Call) and not called.args and not called.keywords:
                first, *more = ast.unparse(called.func).split(".")
                if first in imported:
                    module, name = imported[first]
                    return module, ".".join((name, *more))
    raise _unknown(f"{path} is not a script as installers of Python packages write it")


def _unknown(why: str) -> Fault:
    return Fault(f"its workers cannot be forked: {why}", allowed=_REMEDY, at=("spawn",))
