"""Archives that the kernel unpacks as its first file system: cpio, format "newc" (initramfs-buffer-format.rst).

Written here rather than with cpio(1), so that files belong to root whoever makes them, and devices need no privilege.
"""

import os
import stat
from pathlib import Path

_MAGIC = "070701"
_TRAILER = "TRAILER!!!"

Device = tuple[int, int]


class Archive:
    """Collects entries; folders above an entry are made by themselves, and nothing is added twice."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._names: set[str] = set()

    def has(self, name: str) -> bool:
        return name in self._names

    def folder(self, name: str, mode: int = 0o755) -> None:
        if name and name not in self._names:
            self.folder(os.path.dirname(name))
            self._add(name, stat.S_IFDIR | mode, b"")

    def file(self, name: str, data: bytes, mode: int = 0o644, *, changed: int = 0) -> None:
        """`changed`, in seconds, is what tells Python that a compiled module is not out of date."""
        self.folder(os.path.dirname(name))
        self._add(name, stat.S_IFREG | mode, data, changed=changed)

    def link(self, name: str, target: str) -> None:
        self.folder(os.path.dirname(name))
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def device(self, name: str, major: int, minor: int) -> None:
        self.folder(os.path.dirname(name))
        self._add(name, stat.S_IFCHR | 0o600, b"", device=(major, minor))

    def copy(self, source: Path, name: str | None = None) -> None:
        """A file or symbolic link of this machine, by default at the same place."""
        name = str(source).lstrip("/") if name is None else name
        if source.is_symlink():
            self.link(name, os.readlink(source))
        else:
            status = source.stat()
            self.file(name, source.read_bytes(), stat.S_IMODE(status.st_mode), changed=int(status.st_mtime))

    def to_bytes(self) -> bytes:
        return b"".join([*self._parts, _entry(0, _TRAILER, 0, b"", (0, 0), 0)])

    def _add(self, name: str, mode: int, data: bytes, *, device: Device = (0, 0), changed: int = 0) -> None:
        if name not in self._names:
            self._names.add(name)
            self._parts.append(_entry(len(self._names), name, mode, data, device, changed))


def _entry(number: int, name: str, mode: int, data: bytes, device: Device, changed: int) -> bytes:
    title = name.encode() + b"\0"
    # Number, mode, user, group, links, change, size, the device it is on, the device it is, length of the name, checksum.
    fields = (number, mode, 0, 0, 1, changed, len(data), 0, 0, *device, len(title), 0)
    head = (_MAGIC + "".join(f"{field:08X}" for field in fields)).encode() + title
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
