"""The file system a worker sees: built from nothing, read-only, with the host reachable only where it was mounted in.

Two sides meet here. The fork server, in a mount namespace of its own, keeps templates: small tmpfs trees with a
synthetic /etc, five device nodes and the mount points of one kind of worker. It also opens what a specification mounts,
as detached trees (open_tree(2)), so that neither a private parent directory nor a change of user stands in the way, and
so that a path is looked up once, by us. The worker's init receives these as descriptors, puts them together in its own
mount namespace and turns that into the root with pivot_root(2); the old root is detached, so nothing of it remains.
"""

import os
import shutil
import stat
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox import syscalls
from sandbox.spec import Mount, SandboxSpec, Tmpfs, Volume

# Directories that exist nearly everywhere and hold nothing a worker is ever given; the fork server covers one of them
# in its own mount namespace, where nobody else sees it.
_SITES = ("/dev/pts", "/dev/mqueue", "/mnt", "/media", "/srv")
_MAX_TEMPLATES = 32

_DEVICES = ("null", "zero", "full", "random", "urandom")
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
_USR_LINKS = ("bin", "sbin", "lib", "lib64", "lib32", "libx32")

# Parts of /proc that tell about the machine or its users and that no worker needs.
_HIDDEN_FILES = (
    "keys",
    "key-users",
    "kcore",
    "kallsyms",
    "timer_list",
    "sysrq-trigger",
    "kmsg",
    "sched_debug",
)
_HIDDEN_DIRECTORIES = ("acpi", "asound", "bus", "driver", "fs", "irq", "scsi", "tty")

_READ_ONLY = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
_WRITABLE = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC
_DEVICE = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC
# A worker may have written where we are about to mount from or to, and an absolute link of its would lead us to the
# host. So every path is opened without following any; who asks for a mount names the place itself (realpath(3)).
_NO_LINKS = syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
_SCRATCH_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC


@dataclass(frozen=True, slots=True)
class Source:
    """A detached tree of the host, `fd`, which its owner closes, and where it is to appear."""

    fd: int
    target: str
    is_directory: bool


class Templates:
    """The fork server's template trees, made on first use, the least recently used given up beyond `_MAX_TEMPLATES`."""

    def __init__(self, worker_id: int) -> None:
        self._worker_id = worker_id
        self._made: OrderedDict[tuple[object, ...], str] = OrderedDict()
        self._count = 0
        self.site = next(site for site in _SITES if Path(site).is_dir())
        syscalls.mount(
            "sandbox", self.site, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "size=64k,mode=0700"
        )

    def open(self, spec: SandboxSpec, sources: list[Source]) -> int:
        """A detached copy of the template for `spec`; the caller closes it."""
        key = (
            tuple(sorted((source.target, source.is_directory) for source in sources)),
            tuple(sorted(tmpfs.target for tmpfs in spec.scratch())),
        )
        if key not in self._made:
            self._made[key] = self._make([*key[0], *((target, True) for target in key[1])])
        self._made.move_to_end(key)
        if len(self._made) > _MAX_TEMPLATES:
            _, oldest = self._made.popitem(last=False)
            syscalls.umount(oldest, syscalls.MNT_DETACH)
            Path(oldest).rmdir()
        return syscalls.open_tree(-100, self._made[key])

    def hold(self, spec: SandboxSpec, targets: Iterable[tuple[str, bool]]) -> str:
        """The place of a template of the caller's own, with room for `targets` (path, is a directory), to be dropped.

        Every copy of one template has the same root, which is what rules on paths (landlock(7)) are bound to.
        """
        return self._make([*targets, *((tmpfs.target, True) for tmpfs in spec.scratch())])

    @staticmethod
    def copy(place: str) -> int:
        """A detached copy of a held template; the caller closes it."""
        return syscalls.open_tree(-100, place)

    @staticmethod
    def drop(place: str) -> None:
        """Give up a held template; its copies live on."""
        syscalls.umount(place, syscalls.MNT_DETACH)
        Path(place).rmdir()

    def _make(self, targets: list[tuple[str, bool]]) -> str:
        self._count += 1
        root = Path(self.site, f"template-{self._count}")
        root.mkdir(mode=0o755)
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
        syscalls.mount("sandbox", str(root), "tmpfs", flags, "size=4m,nr_inodes=4096,mode=0755")
        try:
            self._fill(root, targets)
        except BaseException:
            syscalls.umount(str(root), syscalls.MNT_DETACH)
            raise
        return str(root)

    def _fill(self, root: Path, targets: list[tuple[str, bool]]) -> None:
        for target, is_directory in targets:
            _make_place(root / target.lstrip("/"), is_directory=is_directory)
        (root / "proc").mkdir(exist_ok=True)
        _make_etc(root / "etc", self._worker_id)
        if any(target == "/usr" for target, _ in targets):
            _link_usr(root)
        _make_devices(root)


def open_sources(mounts: Iterable[Mount]) -> list[Source]:
    """What is mounted from the host, opened. On an error nothing stays open."""
    sources: list[Source] = []
    try:
        for mount in mounts:
            place = _open_place(mount.source, os.O_PATH)
            try:
                attributes = _WRITABLE if mount.writable else _READ_ONLY
                is_directory = stat.S_ISDIR(os.fstat(place).st_mode)
                sources.append(Source(_detached(place, attributes, None), mount.target, is_directory))
            finally:
                os.close(place)
    except BaseException:
        for source in sources:
            os.close(source.fd)
        raise
    return sources


def open_kept(volume: Volume, owner: int | None, idmap_fd: int | None) -> Source:
    """The tree of a volume that is a directory.

    The tenant may have written in it before, so no symbolic link on the way is followed. With `owner` it
    belongs to that user on disk, whatever user the worker has on this machine: a fresh one is handed over, one that
    holds anything of someone else's is refused (`PermissionError`). `idmap_fd` is the worker's user namespace, through
    which the owner on disk becomes the worker (mount_setattr(2), ID-mapped mounts).
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    place = _open_place(volume.source, flags)
    try:
        if owner is not None:
            _hand_over(place, owner)
        return kept_tree(volume, syscalls.open_tree(place), idmap_fd)
    finally:
        os.close(place)


def kept_tree(volume: Volume, tree: int, idmap_fd: int | None) -> Source:
    """A volume's own detached `tree`, as its worker gets it; the tree is closed on failure."""
    return Source(_with_attributes(tree, _WRITABLE, idmap_fd), volume.target, is_directory=True)


def _open_place(path: str, flags: int) -> int:
    """Open a path of the host. Raises `OSError` with the path in it."""
    try:
        return syscalls.openat2(-100, path, flags, _NO_LINKS)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def _hand_over(directory: int, owner: int) -> None:
    if os.fstat(directory).st_uid == owner:
        return
    if os.listdir(directory):
        raise PermissionError(1, f"the data directory has content and does not belong to user {owner}")
    os.fchown(directory, owner, owner)


def _detached(place: int, attributes: int, idmap_fd: int | None) -> int:
    return _with_attributes(syscalls.open_tree(place), attributes, idmap_fd)


def _with_attributes(tree: int, attributes: int, idmap_fd: int | None) -> int:
    try:
        syscalls.mount_setattr(tree, attributes, idmap_fd=idmap_fd)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _make_place(place: Path, *, is_directory: bool) -> None:
    if is_directory:
        place.mkdir(mode=0o755, parents=True, exist_ok=True)
    else:
        place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        place.touch(mode=0o444)


def _make_etc(etc: Path, worker_id: int) -> None:
    etc.mkdir(mode=0o755, exist_ok=True)
    files = {
        "passwd": f"root:x:0:0::/:/usr/sbin/nologin\nworker:x:{worker_id}:{worker_id}::/tmp:/usr/sbin/nologin\n",
        "group": f"root:x:0:\nworker:x:{worker_id}:\n",
        "hosts": "127.0.0.1 localhost\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
    }
    for name, text in files.items():
        (etc / name).write_text(text, "utf-8")
    # Facts of the machine that programs need and that tell nothing about anybody.
    for name in ("localtime", "ld.so.cache", "timezone"):
        if (original := Path("/etc", name)).is_file():
            shutil.copyfile(original, etc / name)
    (etc / "os-release").symlink_to("../usr/lib/os-release")
    (etc / "mtab").symlink_to("/proc/self/mounts")
    _copy_alternatives(etc / "alternatives")


def _copy_alternatives(alternatives: Path) -> None:
    """Debian's names for one of several programs: links into /usr, copied as links."""
    if not (originals := Path("/etc/alternatives")).is_dir():
        return
    alternatives.mkdir()
    for original in originals.iterdir():
        if original.is_symlink() and (goal := str(original.readlink())).startswith("/usr/"):
            (alternatives / original.name).symlink_to(goal)


def _link_usr(root: Path) -> None:
    for name in _USR_LINKS:
        original, link = Path("/", name), root / name
        if original.is_symlink() and not link.exists():
            link.symlink_to(f"usr/{name}")


def _make_devices(root: Path) -> None:
    """Five nodes, each a mount of the host's own, since nobody can make device nodes in a user namespace."""
    devices = root / "dev"
    devices.mkdir(exist_ok=True)
    for name, goal in _DEVICE_LINKS.items():
        (devices / name).symlink_to(goal)
    for name in _DEVICES:
        (devices / name).touch()
    tree = os.open(root, os.O_PATH | os.O_CLOEXEC)
    # Read-only before the nodes are mounted on it: attributes reach every mount below.
    syscalls.mount_setattr(tree, _READ_ONLY | syscalls.MOUNT_ATTR_NOEXEC)
    os.close(tree)
    for name in _DEVICES:
        place = os.open(f"/dev/{name}", os.O_PATH | os.O_CLOEXEC)
        node = _detached(place, _DEVICE, None)
        target = os.open(devices / name, os.O_PATH | os.O_CLOEXEC)
        syscalls.move_mount(node, target)
        for fd in (place, node, target):
            os.close(fd)


def make_private() -> None:
    """In the worker's own mount namespace: nothing that is mounted from now on shows anywhere else."""
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)


def assemble(
    site: str, root: int, spec: SandboxSpec, sources: Iterable[Source], owner: int, *, proc: int
) -> None:
    """In the worker's own mount namespace: put everything together at `site` and stand in it, not yet the root.

    `proc` is the tree of `mount_proc`, -1 for none.
    """
    _move(root, site)
    os.fchdir(root)
    # Outer places first, so that an inner one lands in what covers the outer.
    sizes = {tmpfs.target: tmpfs for tmpfs in spec.scratch()}
    trees = {source.target: source for source in sources}
    for target in sorted(sizes.keys() | trees.keys(), key=lambda path: path.count("/")):
        relative = target.lstrip("/")
        if _is_covered(target, sizes.keys() | trees.keys(), sizes):
            _make_place(Path(relative), is_directory=target in sizes or trees[target].is_directory)
        if tmpfs := sizes.get(target):
            size = f"size={tmpfs.size_bytes},nr_inodes={tmpfs.inodes}"
            access = f"mode=0700,uid={owner},gid={owner}"
            _mount_scratch(relative, f"{size},{access}")
            os.fchdir(root)
        else:
            _move(trees[target].fd, relative)
    if proc >= 0:
        _move(proc, "proc")


def attach(spec: SandboxSpec, sources: Iterable[Source]) -> None:
    """Inside the root, which is in use already: move in what came later. Whoever uses it may have planted links."""
    sizes = {tmpfs.target: tmpfs for tmpfs in spec.scratch()}
    places = {*sizes, *(mount.target for mount in spec.mounts), *(volume.target for volume in spec.kept())}
    for source in sorted(sources, key=lambda source: source.target.count("/")):
        if _is_covered(source.target, places, sizes):
            _make_place(Path(source.target), is_directory=source.is_directory)
        _move(source.fd, source.target)


def _is_covered(target: str, places: Iterable[str], sizes: Mapping[str, Tmpfs]) -> bool:
    """Whether the template's place for it is covered by an empty tmpfs."""
    outer = (place for place in places if target.startswith(f"{place}/"))
    return max(outer, key=len, default="") in sizes


def enter() -> None:
    """Make the directory we stand in the root. The old root is then stacked onto it, out of every path's way."""
    # This needs no directory for the old root, and every process of this mount namespace follows (pivot_root(2)).
    syscalls.pivot_root(".", ".")


def leave_old() -> None:
    """Let go of the old root; the kernel takes its time for it."""
    syscalls.umount(".", syscalls.MNT_DETACH)
    os.chdir("/")


def seal_proc(proc: int) -> None:
    """Make a /proc read-only, once nothing has to be written there any more."""
    syscalls.mount_setattr(proc, _READ_ONLY | syscalls.MOUNT_ATTR_NOEXEC)


def _move(tree: int, path: str) -> None:
    target = syscalls.openat2(-100, path, os.O_PATH, _NO_LINKS)
    try:
        syscalls.move_mount(tree, target)
    finally:
        os.close(target)


def _mount_scratch(path: str, options: str) -> None:
    """Mount a tmpfs; leaves its place as the working directory, for mount(2) itself would follow links in `path`."""
    target = syscalls.openat2(-100, path, os.O_PATH | os.O_DIRECTORY, _NO_LINKS)
    try:
        os.fchdir(target)
    finally:
        os.close(target)
    syscalls.mount("tmpfs", ".", "tmpfs", _SCRATCH_FLAGS, options)


def mount_proc(site: str) -> int:
    """The /proc of this pid namespace without what tells about the machine: a detached tree, the caller's to close."""
    # A process sees those it could trace: its own, and not init, whose memory and command line are the fork server's.
    syscalls.mount("proc", site, "proc", _SCRATCH_FLAGS, "hidepid=2")
    # Some kernels do not have all of them.
    for name in _HIDDEN_FILES:
        with suppress(FileNotFoundError):
            syscalls.mount("/dev/null", f"{site}/{name}", "", syscalls.MS_BIND)
    flags = syscalls.MS_RDONLY | _SCRATCH_FLAGS
    for name in _HIDDEN_DIRECTORIES:
        with suppress(FileNotFoundError):
            syscalls.mount("tmpfs", f"{site}/{name}", "tmpfs", flags, "size=4k,nr_inodes=1,mode=0555")
    tree = syscalls.open_tree(-100, site)
    syscalls.umount(site, syscalls.MNT_DETACH)
    return tree
