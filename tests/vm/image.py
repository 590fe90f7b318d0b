"""What the machine is made of: Debian's kernel for virtual machines, its Python, a busybox, and this repository."""

import functools
import os
import re
import subprocess
from pathlib import Path

from vm.archive import Archive

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".peers" / "vm"

_META_PACKAGE = "linux-image-cloud-amd64"
# For a file system of the ordinary kind: workers' data may lie on ext4, and this kernel cannot map users on a tmpfs.
_MODULE = "loop.ko"
_PYTHON = Path("/usr/bin/python3")
# Of the standard library, what a server's process does not import and what is large.
_LEFT_OUT = re.compile(
    r"test|idlelib|lib2to3|pydoc_data|tkinter|turtledemo|ensurepip|distutils|config-.*|.*\.opt-[12]\.pyc"
)
_REPOSITORY = ("sandbox", "tests")
_NOT_CARRIED = {"__pycache__", "peers"}


class CannotMake(Exception):
    """This machine lacks what the other one is made of."""


def kernel() -> Path:
    """The kernel, fetched as a package of this Debian and unpacked, not installed; kept in `CACHE`."""
    if (found := sorted(CACHE.glob("boot/vmlinuz-*"))) and _modules():
        return found[-1]
    CACHE.mkdir(parents=True, exist_ok=True)
    depends = _output("apt-cache", "depends", _META_PACKAGE)
    name = re.search(r"Depends: (linux-image-\S+-cloud-amd64)", depends)
    if name is None:
        raise CannotMake(f"apt knows no {_META_PACKAGE}; run apt-get update")
    _output("apt-get", "download", "-q", name[1])
    (package,) = CACHE.glob("linux-image-*.deb")
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as unpacking:
        arguments = ["tar", "-x", "-C", str(CACHE), "--wildcards", "./boot/vmlinuz-*", f"*/{_MODULE}"]
        subprocess.run(arguments, stdin=unpacking.stdout, check=True)
    package.unlink()
    return max(CACHE.glob("boot/vmlinuz-*"))


def first_files(config: bytes) -> bytes:
    """The first file system of a machine that reads `config` at its start; after `kernel`, of which it has a part."""
    archive = Archive()
    archive.file("vm.json", config)
    archive.copy(Path(__file__).with_name("init.sh"), "init")
    for top in _REPOSITORY:
        for path in sorted((ROOT / top).rglob("*")):
            if path.is_file() and not _NOT_CARRIED & set(path.parts):
                archive.copy(path, f"repository/{path.relative_to(ROOT)}")
    return _system() + archive.to_bytes()


def _modules() -> list[Path]:
    return sorted(CACHE.glob(f"**/{_MODULE}"))


@functools.cache
def _system() -> bytes:
    """Programs and libraries; the same in every machine of this process."""
    archive = Archive()
    for folder in ("proc", "sys", "dev", "run", "mnt", "newroot", "etc", "home/user", "var/tmp"):
        archive.folder(folder)
    archive.folder("tmp", 0o1777)
    for name in ("bin", "sbin", "lib", "lib64"):
        archive.link(name, f"usr/{name}")
    archive.device("dev/console", 5, 1)
    archive.file("etc/passwd", b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
    archive.file("etc/group", b"root:x:0:\nuser:x:1000:\n")
    for module in _modules():
        archive.copy(module, f"modules/{module.name}")
    _busybox(archive)
    _python(archive)
    return archive.to_bytes()


def _busybox(archive: Archive) -> None:
    busybox = Path("/usr/bin/busybox")
    if not busybox.exists():
        raise CannotMake("busybox-static is not installed")
    if _libraries(busybox):
        raise CannotMake("busybox needs libraries; install busybox-static")
    archive.copy(busybox, "usr/bin/busybox")
    for applet in _output(str(busybox), "--list").split():
        if not archive.has(f"usr/bin/{applet}"):
            archive.link(f"usr/bin/{applet}", "busybox")
    archive.folder("usr/sbin")


def _python(archive: Archive) -> None:
    program = _PYTHON.resolve()
    library = Path(f"/usr/lib/{program.name}")
    if not library.is_dir():
        raise CannotMake(f"{library} is missing; install Debian's python3")
    archive.copy(program, f"usr/bin/{program.name}")
    archive.link("usr/bin/python3", program.name)
    files = [path for path in sorted(library.rglob("*")) if path.is_file() and not _left_out(path, library)]
    for path in files:
        archive.copy(path)
    extensions = [path for path in files if path.suffix == ".so"]
    for needed in sorted({real for path in (program, *extensions) for real in _libraries(path)}):
        archive.file(
            needed.lstrip("/").replace("lib/", "usr/lib/", 1)
            if needed.startswith("/lib/")
            else needed.lstrip("/").replace("lib64/", "usr/lib64/", 1)
            if needed.startswith("/lib64/")
            else needed.lstrip("/"),
            Path(needed).read_bytes(),
            0o755,
        )


def _left_out(path: Path, library: Path) -> bool:
    return any(_LEFT_OUT.fullmatch(part) for part in path.relative_to(library).parts)


def _libraries(program: Path) -> list[str]:
    """The shared libraries of a program, by the paths it looks for them (ldd(1))."""
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listed, re.MULTILINE)


def _output(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=CACHE, env={**os.environ, "LC_ALL": "C"}
        )
    except FileNotFoundError:
        raise CannotMake(f"{command[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise CannotMake(f"{' '.join(command)} failed: {error.stderr.strip()[-500:]}") from None
    return done.stdout
