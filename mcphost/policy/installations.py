"""Which files belong to a program: its package, its interpreter, and never somebody's home directory."""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence

from mcphost.policy.faults import Fault

# Where the distribution keeps its programs and libraries. Profiles grant it as a whole or not at all.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

# What lies in the folder in which a package begins.
_PACKAGE_MARKS = (
    "package.json", "pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "deno.json",
    "composer.json", "Gemfile", "go.mod", "Cargo.toml", "pom.xml",
)  # fmt: skip

# Folders that hold more than one program's files, or files of no program at all.
_HOMES = re.compile(r"/root|/(?:home|Users|var/home|export/home)/[^/]+")
_SHARED_FOLDERS = frozenset({"/var/lib", "/var/opt", "/var/home", "/var/run", "/export/home", "/run/user"})
_SYSTEM_FOLDERS = ("/etc", "/boot", "/proc", "/sys", "/dev", "/run/secrets")

# Symbolic links that the kernel follows in one path before it gives up (MAXSYMLINKS).
_MAX_LINKS = 40
_MAX_PTH_BYTES = 64 * 1024


def is_below(path: str, folder: str) -> bool:
    """Whether `path` is the folder or inside it, by name alone."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def is_too_broad(folder: str) -> bool:
    """Whether a folder holds more than one program: the root, a home, /etc, /var/lib..."""
    if folder.count("/") <= 1 or folder in _SHARED_FOLDERS:
        return True
    if any(is_below(folder, system) for system in _SYSTEM_FOLDERS):
        return True
    # ~/.local, ~/.config and the like are as personal as the home itself.
    home, name = os.path.split(folder)
    return _is_home(folder) or (_is_home(home) and name.startswith("."))


def settle(path: str) -> str:
    """The path under which the file can be executed where only its own installation is visible.

    Links are followed to their end, except that a virtual environment is known only by the path of its own
    interpreter, and that programs of the distribution may depend on the name they are called by.
    """
    links = _hops(path)
    if all(_is_system(link) for link in links):
        return path
    return next((link for link in links if _environment_of(link)), links[-1])


class Installations:
    """The folders and files that a worker must be able to read, as they are found."""

    def __init__(self, granted: Sequence[str]) -> None:
        """`granted` are paths that the worker can read anyway."""
        self._granted = (*granted, *_SYSTEM)
        self._found: list[str] = []

    def add_executable(self, path: str) -> None:
        """What belongs to a file that is executed; `path` must be settled."""
        environment = _environment_of(path)
        if environment:
            self._add(environment)
            self._add_all(_beside_environment(environment))
            self._add_interpreter(path)
        else:
            self._add_program(path)

    def add_script(self, path: str) -> None:
        """What belongs to a script that an interpreter is given.

        Raises:
            Fault: it lies in a folder that is not its own.
        """
        for each in dict.fromkeys((path, os.path.realpath(path))):
            folder = _modules_root(each) or _package_folder(each) or os.path.dirname(each)
            if self._is_granted(each):
                continue
            if is_too_broad(folder):
                raise Fault(f"its folder {folder} is not its own; list what it needs under filesystem.read")
            self._add(folder)

    def paths(self) -> tuple[str, ...]:
        """Everything found, without what lies inside something else or is readable anyway."""
        kept: list[str] = []
        for path in sorted(set(self._found)):
            if not self._is_granted(path) and not any(is_below(path, other) for other in kept):
                kept.append(path)
        return tuple(kept)

    def _add_interpreter(self, path: str) -> None:
        """The installations that a virtual environment's interpreter leads to."""
        for link in _hops(path):
            if not _environment_of(link):
                self._add_program(link)

    def _add_program(self, path: str) -> None:
        """The folder of a program that has one of its own, else only its file."""
        prefix = _prefix_of(path)
        root = _modules_root(path) or prefix or _package_folder(path)
        self._add(path if root is None or is_too_broad(root) else root)

    def _add_all(self, paths: Iterable[str]) -> None:
        for path in paths:
            if not is_too_broad(path):
                self._add(path)

    def _add(self, path: str) -> None:
        self._found += [path, os.path.realpath(path)]

    def _is_granted(self, path: str) -> bool:
        return any(is_below(path, granted) for granted in self._granted)


def _hops(path: str) -> tuple[str, ...]:
    """The path, and where each symbolic link in place of the file leads, to the file itself."""
    links = [path]
    while os.path.islink(links[-1]) and len(links) <= _MAX_LINKS:
        target = os.path.join(os.path.dirname(links[-1]), os.readlink(links[-1]))
        links.append(os.path.normpath(target))
    return tuple(dict.fromkeys((*links, os.path.realpath(path))))


def _is_system(path: str) -> bool:
    return any(is_below(path, folder) for folder in _SYSTEM)


def _is_home(folder: str) -> bool:
    return _HOMES.fullmatch(folder) is not None or folder == os.path.expanduser("~")


def _environment_of(path: str) -> str | None:
    """The virtual environment (PEP 405) whose bin folder holds the file."""
    root = os.path.dirname(os.path.dirname(path))
    return root if os.path.isfile(os.path.join(root, "pyvenv.cfg")) else None


def _beside_environment(root: str) -> Iterator[str]:
    """What a virtual environment leads to: the Python it was made from, and packages installed in place."""
    home = _setting(os.path.join(root, "pyvenv.cfg"), "home")
    if home and os.path.isabs(home):
        yield os.path.dirname(os.path.normpath(home))
        yield os.path.dirname(os.path.realpath(home))
    for file in glob.glob(os.path.join(glob.escape(root), "lib", "python3*", "site-packages", "*.pth")):
        for line in _lines(file):
            # A line that is a folder is put on the module path as it is (module `site`).
            if os.path.isabs(line) and os.path.isdir(line):
                yield os.path.normpath(line)


def _prefix_of(path: str) -> str | None:
    """The prefix of an installation with bin and lib folders."""
    prefix, name = os.path.split(os.path.dirname(path))
    has_libraries = any(os.path.isdir(os.path.join(prefix, part)) for part in ("lib", "libexec", "lib64"))
    return prefix if name in {"bin", "sbin", "libexec"} and has_libraries else None


def _modules_root(path: str) -> str | None:
    """The outermost node_modules folder around the file: Node looks there for what the package imports."""
    parts = path.split("/")
    return "/".join(parts[: parts.index("node_modules") + 1]) if "node_modules" in parts[:-1] else None


def _package_folder(path: str) -> str | None:
    """The nearest folder around the file in which a package begins."""
    folder = os.path.dirname(path)
    while not is_too_broad(folder):
        if any(os.path.isfile(os.path.join(folder, mark)) for mark in _PACKAGE_MARKS):
            return folder
        folder = os.path.dirname(folder)
    return None


def _setting(file: str, key: str) -> str | None:
    """The value of `key = value` in a file like pyvenv.cfg."""
    for line in _lines(file):
        name, equals, value = line.partition("=")
        if equals and name.strip().lower() == key:
            return value.strip()
    return None


def _lines(file: str) -> list[str]:
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            return lines.read(_MAX_PTH_BYTES).splitlines()
    except OSError:
        return []
