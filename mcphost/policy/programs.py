"""What a server's command is: the file to execute, and the installation that it needs to read.

A worker sees nothing of the host but what it is given. What belongs to a command itself (its package, its
interpreter, the interpreter's own installation) is found here, so that nobody has to list it. Nothing is
executed to find it.
"""

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcphost.policy.entries import Entry
from mcphost.policy.faults import Fault
from mcphost.policy.installations import Installations, settle

# The kernel reads 256 bytes of a script to find its interpreter (BINPRM_BUF_SIZE); what installers write in
# the second line where that is too little must fit, too.
_HEAD_BYTES = 4096
# A script's interpreter may be a script; the kernel stops after a few (binfmt_script), and so do we.
_MAX_INTERPRETERS = 3

_INTERPRETER = re.compile(r"(?:python|pypy|node|deno|bun|ruby|perl|php|bash|sh|java)[0-9.]*")
# Options of interpreters whose value is the next argument, those among them that name a file to run, and
# those after which no script follows.
_WITH_VALUE = frozenset({"-r", "--require", "--import", "--loader", "-W", "-X", "-I", "--env-file", "-C"})
_LOADED_TOO = frozenset({"-r", "--require", "--import", "--loader"})
_WITHOUT_SCRIPT = frozenset({"-m", "-c", "-e", "-p", "--eval", "--print", "-cp", "-classpath"})
_SUBCOMMANDS = frozenset({"run", "-jar"})

# Commands that fetch what they run; the second table says with which of their own commands.
_DOWNLOADERS = frozenset({"npx", "bunx", "pnpx", "uvx", "docker", "podman", "nerdctl"})
_DOWNLOADING: Mapping[str, frozenset[str]] = {
    "npm": frozenset({"exec", "x", "init", "create"}),
    "pnpm": frozenset({"dlx"}),
    "yarn": frozenset({"dlx"}),
    "bun": frozenset({"x"}),
    "uv": frozenset({"run", "tool", "x"}),
    "pipx": frozenset({"run"}),
}
# Options such as `--directory /x` may come first.
_LEADING_ARGUMENTS = 6


@dataclass(frozen=True, slots=True)
class Program:
    """What to execute: an absolute path, the whole argument list, and the paths it must be able to read.

    Scripts are already taken apart: `path` is the interpreter's, so that nothing is searched for later.
    `search` are the directories with which PATH should begin in its environment. `entry` is the Python program taken
    apart, where its workers are to be forked.
    """

    path: str
    argv: tuple[str, ...]
    read: tuple[str, ...]
    search: tuple[str, ...]
    entry: Entry | None = None


def resolve_program(
    command: str, args: Sequence[str], *, search_path: str, granted: Sequence[str] = ("/usr",)
) -> Program:
    """Find the command, its interpreters, and what belongs to them.

    A bare name is searched for beside the running Python first, so that servers installed together with the
    runtime are found without activating anything, and then in `search_path` (as PATH is written). `granted`
    are the paths that the profile makes readable anyway.

    Raises:
        Fault: not found, not to be executed, fetched at start, or in a folder that is not its own. Its `at`
            starts from the server's entry.
    """
    _refuse_downloaders(command, args)
    beside = os.path.dirname(os.path.abspath(sys.executable))
    folders = [folder for folder in (beside, *search_path.split(os.pathsep)) if os.path.isabs(folder)]
    found = settle(_find(command, folders, at=("command",)))
    installations = Installations(granted)
    argv = [found]
    installations.add_executable(found)
    for _ in range(_MAX_INTERPRETERS):
        interpreter = _interpreter(argv[0], folders)
        if not interpreter:
            break
        argv[:0] = interpreter
        installations.add_executable(argv[0])
    else:
        raise Fault(f"{found} is run by scripts that are run by scripts", at=("command",))
    if len(argv) == 1 and _INTERPRETER.fullmatch(os.path.basename(found)):
        _add_scripts(installations, args)
    search = dict.fromkeys(os.path.dirname(part) for part in (argv[0], found))
    return Program(argv[0], (*argv, *args), installations.paths(), tuple(search))


def _refuse_downloaders(command: str, args: Sequence[str]) -> None:
    name = os.path.basename(command)
    if name in _DOWNLOADERS or _DOWNLOADING.get(name, frozenset()).intersection(args[:_LEADING_ARGUMENTS]):
        raise Fault(
            f"{name} fetches what it runs at every start, which a sandboxed server cannot do",
            allowed="install the server once, and name the command that it installs",
            at=("command",),
        )


def _find(command: str, folders: Sequence[str], *, at: tuple[str, ...]) -> str:
    """The file that the command names."""
    if "/" in command:
        if not os.path.isabs(command):
            raise Fault("must be a bare name or an absolute path", at=at)
        candidates = [os.path.normpath(command)]
    else:
        candidates = [os.path.join(folder, command) for folder in folders]
    present = [path for path in dict.fromkeys(candidates) if os.path.isfile(path)]
    for path in present:
        if os.access(path, os.X_OK):
            return _no_shim(path, at)
    if present:
        raise Fault(f"{present[0]} is not executable", at=at)
    places = ", ".join(dict.fromkeys(folders)) if "/" not in command else None
    raise Fault(f"{command} was not found" + (f" in {places}" if places else ""), at=at)


def _no_shim(path: str, at: tuple[str, ...]) -> str:
    """Version managers put scripts in place of programs, which need the home directory to find the real one."""
    if os.path.basename(os.path.dirname(path)) == "shims":
        raise Fault(
            f"{path} is a version manager's shim; name the program itself by its absolute path", at=at
        )
    return path


def _interpreter(path: str, folders: Sequence[str]) -> list[str]:
    """The interpreter of a script and its options; empty for a program that is no script."""
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head.startswith(b"#!"):
        return []
    first, _, rest = head[2:].decode("utf-8", "replace").partition("\n")
    # What pip and uv write where the interpreter's path is too long for the kernel, or holds a space.
    trampoline = re.match(r"""'''exec'\s+(?:"([^"]+)"|'([^']+)'|(\S+))""", rest)
    if trampoline:
        return [settle(_find(trampoline[1] or trampoline[2] or trampoline[3], folders, at=("command",)))]
    words = first.strip().split(None, 1)
    if not words:
        raise Fault(f"{path} names no interpreter", at=("command",))
    if os.path.basename(words[0]) == "env":
        words = _after_env(words[1:], path)
    return [settle(_find(words[0], folders, at=("command",))), *words[1:]]


def _after_env(words: Sequence[str], path: str) -> list[str]:
    """What `env` would run: `env node`, or with -S also `env -S node --flag`."""
    try:
        split = shlex.split(words[0]) if words else []
    except ValueError:
        split = []
    while split and split[0] in {"-S", "--split-string"}:
        split.pop(0)
    if not split or split[0].startswith("-") or "=" in split[0]:
        raise Fault(f"the interpreter of {path} cannot be told", at=("command",))
    return split


def _add_scripts(installations: Installations, args: Sequence[str]) -> None:
    """What belongs to the script that an interpreter is given by an absolute path."""
    index = 0
    while index < len(args) and args[index] not in _WITHOUT_SCRIPT:
        option = args[index]
        takes_value = option in _WITH_VALUE
        index += takes_value
        if takes_value and option not in _LOADED_TOO:
            pass
        elif takes_value or not (option.startswith("-") or option in _SUBCOMMANDS):
            _add_script(installations, args, index)
            if not takes_value:
                return
        index += 1


def _add_script(installations: Installations, args: Sequence[str], index: int) -> None:
    path = os.path.normpath(args[index]) if index < len(args) else ""
    if not os.path.isabs(path):
        return
    if not os.path.isfile(path):
        raise Fault("the script was not found", at=("args", index))
    try:
        installations.add_script(path)
    except Fault as fault:
        raise Fault(fault.message, at=("args", index)) from fault
