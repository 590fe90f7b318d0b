"""What to confine and how: frozen values with their units in their names, checked once when they are made.

A specification crosses a socket to the fork server as JSON (`to_wire` and `from_wire`); what arrives there is checked
by the same constructors, so a malformed one is refused with `SpecInvalid` and never half applied.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Literal, cast

from sandbox.errors import SpecInvalid
from sandbox.layers import LAYERS
from sandbox.seccomp import filters

KIB = 1024
MIB = 1024 * KIB
DATA_TARGET = "/data"
DEFAULT_TMPFS_BYTES = 64 * MIB
DEFAULT_TMPFS_INODES = 4096

# An ext4 file system with its journal takes about 4 MiB for itself; below this little would be left of what was asked.
MIN_VOLUME_BYTES = 16 * MIB

# A start carries one descriptor per mount through the fork server; the bound keeps a start cheap and its message small.
MAX_MOUNTS = 64
MAX_TMPFS = 16
MAX_ARGUMENTS = 1024
MAX_VARIABLES = 1024
# A server's own module brings in what it imports; more than a few are named only to catch what is imported late.
MAX_PRELOAD = 64
# A start itself needs some, and no language runtime does with fewer.
MIN_FILES = 64

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?")
# Where the sandbox builds its own files; a mount over one of these would undo a confinement.
_RESERVED = ("/", "/proc", "/dev", "/sys", "/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A path of this machine, `source`, seen as `target` inside: read-only unless `writable`.

    A writable mount is never executable, and the machine's own permissions still apply to it: the worker's user is
    nobody there.
    """

    source: str
    target: str
    writable: bool = False

    def __post_init__(self) -> None:
        _check_path("mount source", self.source)
        _check_target("mount target", self.target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A place that is kept from one worker to the next and belongs to them alone: writable, never executable.

    Without `size_bytes`, `source` is a directory of this machine, made by the caller. With it, `source` is the path of
    an image file in such a directory: made when it is missing, grown when it is smaller, refused when it is larger or
    damaged, and shared by all workers of one fork server that name it. Neither path may hold a symbolic link.
    """

    source: str
    target: str
    size_bytes: int | None = None

    def __post_init__(self) -> None:
        _check_path("volume source", self.source)
        _check_target("volume target", self.target)
        _check_number("volume size_bytes", self.size_bytes, minimum=MIN_VOLUME_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tmpfs:
    """Scratch space in memory, empty at every start and never executable."""

    target: str
    size_bytes: int
    inodes: int = DEFAULT_TMPFS_INODES

    def __post_init__(self) -> None:
        if self.target != "/dev/shm":  # noqa: S108 - a path inside the sandbox
            _check_target("tmpfs target", self.target)
        _check_number("tmpfs size_bytes", self.size_bytes, minimum=4 * KIB)
        _check_number("tmpfs inodes", self.inodes, minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Caps on one worker, all its descendants included. None leaves that resource uncapped.

    `cpu_millis` is thousandths of one cpu; `files` is open descriptors per process; `file_size_bytes` the largest file
    a process may write.
    """

    memory_bytes: int | None = None
    pids: int | None = None
    cpu_millis: int | None = None
    files: int = 256
    file_size_bytes: int | None = None

    def __post_init__(self) -> None:
        _check_number("memory_bytes", self.memory_bytes, minimum=4 * MIB)
        _check_number("pids", self.pids, minimum=1)
        _check_number("cpu_millis", self.cpu_millis, minimum=10)
        _check_number("files", self.files, minimum=MIN_FILES)
        _check_number("file_size_bytes", self.file_size_bytes, minimum=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Zygote:
    """Fork the worker from a process that has imported already, instead of starting its program with exec.

    `interpreter` is the Python (3.9 or later) and its options, seen inside; `preload` the modules imported ahead. `run`
    is what the worker then runs: `module` as `python -m` does, or `module:function` as an installed script does, with
    `argv` as its sys.argv. `settings` are the environment of the importing: PYTHON... variables, and nothing secret,
    for every worker forked from there can read them.
    """

    interpreter: tuple[str, ...]
    preload: tuple[str, ...]
    run: str
    argv: tuple[str, ...]
    settings: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        _check_argv(self.interpreter)
        _check_argv(self.argv)
        _check_env(self.settings)
        if not self.interpreter[0].startswith("/"):
            raise SpecInvalid("a zygote's interpreter must be an absolute path inside")
        if strange := [
            key for key, _ in self.settings if not key.startswith("PYTHON") or key == "PYTHONHASHSEED"
        ]:
            raise SpecInvalid(f"{strange[0]} is no setting of a zygote: PYTHON..., and not the hash seed")
        if not 1 <= len(self.preload) <= MAX_PRELOAD or not all(map(_is_module, self.preload)):
            raise SpecInvalid(f"a zygote imports 1 to {MAX_PRELOAD} modules, by their dotted names")
        module, colon, attribute = self.run.partition(":")
        if not _is_module(module) or (colon and not _is_module(attribute)):
            raise SpecInvalid(f"{self.run!r} is neither a module nor module:function")


def _is_module(name: object) -> bool:
    return isinstance(name, str) and len(name) < 256 and all(part.isidentifier() for part in name.split("."))  # noqa: PLR2004


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """One worker to be. `disable` leaves layers out on purpose and exists for tests that prove a test can fail.

    `data`, with or without `data_size_bytes`, is what `Volume` has as its source and size; it appears as /data. `cwd`
    is a path inside. `network` is nothing, or with "proxy" one listening socket on the worker's own loopback, which
    arrives with `Spawned` (see `egress`). `seccomp` names a shipped profile of system calls, or is one as JSON text
    (`encode_filter`).
    """

    name: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    cwd: str = "/tmp"  # noqa: S108 - a path inside the sandbox
    mounts: tuple[Mount, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    data: str | None = None
    data_size_bytes: int | None = None
    volumes: tuple[Volume, ...] = ()
    limits: Limits = field(default_factory=Limits)
    seccomp: str = "default"
    network: Literal["none", "proxy"] = "none"
    require: frozenset[str] = frozenset()
    disable: frozenset[str] = frozenset()
    zygote: Zygote | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise SpecInvalid(f"name {self.name!r} is not 1-48 of a-z, 0-9 and inner hyphens")
        _check_argv(self.argv)
        _check_env(self.env)
        _check_path("cwd", self.cwd)
        if self.data is None and self.data_size_bytes is not None:
            raise SpecInvalid("data_size_bytes without data bounds nothing")
        if self.network not in {"none", "proxy"}:
            raise SpecInvalid(f"network {self.network!r} is not known; allowed: none, proxy")
        _check_seccomp(self.seccomp)
        for title, layers in (("require", self.require), ("disable", self.disable)):
            if unknown := sorted(layers - set(LAYERS)):
                raise SpecInvalid(f"{title} names unknown layers: {', '.join(unknown)}")
        self._check_targets()

    def _check_targets(self) -> None:
        kept = self.kept()
        if len(self.mounts) + len(kept) > MAX_MOUNTS or len(self.tmpfs) > MAX_TMPFS:
            raise SpecInvalid(f"more than {MAX_MOUNTS} mounts and volumes, or {MAX_TMPFS} tmpfs")
        sources = [volume.source for volume in kept]
        if len(sources) != len(set(sources)):
            raise SpecInvalid("two volumes have the same source")
        targets = [mount.target for mount in self.mounts] + [tmpfs.target for tmpfs in self.tmpfs]
        targets += [volume.target for volume in kept]
        if len(targets) != len(set(targets)):
            twice = sorted({target for target in targets if targets.count(target) > 1})
            raise SpecInvalid(f"more than one thing is to appear at {', '.join(twice)}")

    def kept(self) -> tuple[Volume, ...]:
        """Every volume, the data directory among them."""
        if self.data is None:
            return self.volumes
        data = Volume(source=self.data, target=DATA_TARGET, size_bytes=self.data_size_bytes)
        return (data, *self.volumes)

    def scratch(self) -> tuple[Tmpfs, ...]:
        """The tmpfs to make: those asked for, and /tmp and /dev/shm in any case, which programs expect to exist."""
        asked = {tmpfs.target for tmpfs in self.tmpfs} | {mount.target for mount in self.mounts}
        asked |= {volume.target for volume in self.volumes}
        extra = (
            Tmpfs(target=target, size_bytes=DEFAULT_TMPFS_BYTES)
            for target in ("/tmp", "/dev/shm")  # noqa: S108 - paths inside the sandbox
            if target not in asked
        )
        return (*self.tmpfs, *extra)

    def to_wire(self) -> dict[str, object]:
        """This specification as values that JSON can carry."""
        return {**asdict(self), "require": sorted(self.require), "disable": sorted(self.disable)}

    @classmethod
    def from_wire(cls, value: object) -> "SandboxSpec":
        """The specification `to_wire` was made from.

        Raises:
            SpecInvalid: for anything else, whatever it is.
        """
        try:
            fields = dict(cast("Mapping[str, object]", value))
            limits = cast("Mapping[str, int | None]", fields.pop("limits"))
            mounts = cast("list[Mapping[str, str]]", fields.pop("mounts"))
            tmpfs = cast("list[Mapping[str, int]]", fields.pop("tmpfs"))
            volumes = cast("list[Mapping[str, str]]", fields.pop("volumes"))
            env = cast("list[tuple[str, str]]", fields.pop("env"))
            zygote = fields.pop("zygote")
            return cls(
                argv=tuple(cast("list[str]", fields.pop("argv"))),
                env=tuple((key, text) for key, text in env),
                mounts=tuple(Mount(**mount) for mount in mounts),  # type: ignore[arg-type]  # checked by Mount
                tmpfs=tuple(Tmpfs(**item) for item in tmpfs),  # type: ignore[arg-type]  # checked by Tmpfs
                volumes=tuple(Volume(**item) for item in volumes),  # type: ignore[arg-type]  # checked by Volume
                limits=Limits(**limits),  # type: ignore[arg-type]  # checked by Limits
                require=frozenset(cast("list[str]", fields.pop("require"))),
                disable=frozenset(cast("list[str]", fields.pop("disable"))),
                zygote=None if zygote is None else _zygote_from_wire(zygote),
                **fields,  # type: ignore[arg-type]  # checked by __post_init__
            )
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise SpecInvalid(
                f"the specification does not have the expected form: {type(error).__name__}"
            ) from None


def _check_seccomp(choice: str) -> None:
    if not isinstance(choice, str):
        raise SpecInvalid("seccomp is neither the name of a profile nor one as text")
    if choice.startswith("{"):
        filters.load_profile(choice)
    elif choice not in filters.SHIPPED:
        allowed = ", ".join(filters.SHIPPED)
        raise SpecInvalid(
            f"seccomp profile {choice[:64]!r} is not known; allowed: {allowed}, or a profile as text"
        )


def _zygote_from_wire(value: object) -> Zygote:
    fields = dict(cast("Mapping[str, object]", value))
    settings = cast("list[tuple[str, str]]", fields.pop("settings"))
    return Zygote(
        interpreter=tuple(cast("list[str]", fields.pop("interpreter"))),
        preload=tuple(cast("list[str]", fields.pop("preload"))),
        argv=tuple(cast("list[str]", fields.pop("argv"))),
        settings=tuple((key, text) for key, text in settings),
        **fields,  # type: ignore[arg-type]  # checked by Zygote
    )


def _check_argv(argv: tuple[str, ...]) -> None:
    if not argv or len(argv) > MAX_ARGUMENTS:
        raise SpecInvalid(f"argv must have 1 to {MAX_ARGUMENTS} items, not {len(argv)}")
    if not all(isinstance(item, str) and "\0" not in item for item in argv) or not argv[0]:
        raise SpecInvalid("argv must be text without NUL, and the program's name must not be empty")


def _check_env(env: tuple[tuple[str, str], ...]) -> None:
    if len(env) > MAX_VARIABLES:
        raise SpecInvalid(f"more than {MAX_VARIABLES} environment variables")
    for key, text in env:
        if not isinstance(key, str) or not key or "=" in key or "\0" in key:
            raise SpecInvalid("an environment variable's name is empty, not text, or contains = or NUL")
        if not isinstance(text, str) or "\0" in text:
            raise SpecInvalid(f"the value of environment variable {key} is not text, or contains NUL")


def _check_path(title: str, path: object) -> None:
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path or len(path) >= 4096:  # noqa: PLR2004
        raise SpecInvalid(f"{title} {path!r} is not an absolute path")
    if ".." in PurePosixPath(path).parts or str(PurePosixPath(path)) != path:
        raise SpecInvalid(f"{title} {path!r} is not in its plain form (no .., no double or trailing slash)")


def _check_target(title: str, path: str) -> None:
    _check_path(title, path)
    inside_kernel_files = path.startswith(("/proc/", "/sys/", "/dev/"))
    if path in _RESERVED or inside_kernel_files:
        raise SpecInvalid(f"{title} {path!r} belongs to the sandbox itself")


def _check_number(title: str, number: object, *, minimum: int) -> None:
    if number is None:
        return
    if not isinstance(number, int) or isinstance(number, bool) or not minimum <= number < 2**62:
        raise SpecInvalid(f"{title} {number!r} is not a whole number of at least {minimum}")
