"""A mount namespace apart, in which the fork server mounts images.

Every init begins with a copy of the fork server's own mount namespace, and one that waits for its order would keep a
copied mount, and with it the image, in use for as long as it waits. Nobody is ever made with a copy of this one. It
lasts as long as its descriptor, so its mounts end with the fork server, however that ends (mount_namespaces(7)).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sandbox import syscalls


class Vault:
    """The namespace, with room for mount points in the directory `base`, which is empty at first."""

    def __init__(self, base: str) -> None:
        """`base` is covered for others, not changed. The caller has one thread. Raises `OSError`."""
        self.base = base
        self._home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            try:
                syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
                # What the fork server has mounted there is not to live on in here.
                syscalls.umount(base, syscalls.MNT_DETACH)
                flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
                syscalls.mount("sandbox", base, "tmpfs", flags, "size=64k,nr_inodes=16384,mode=0700")
                self._inside = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                syscalls.setns(self._home, syscalls.CLONE_NEWNS)
        except BaseException:
            os.close(self._home)
            raise

    def enter(self) -> None:
        """Be in there for good."""
        syscalls.setns(self._inside, syscalls.CLONE_NEWNS)

    @contextmanager
    def visit(self) -> Iterator[None]:
        """Be in there for the block. Nothing may be forked in it."""
        syscalls.setns(self._inside, syscalls.CLONE_NEWNS)
        try:
            yield
        finally:
            syscalls.setns(self._home, syscalls.CLONE_NEWNS)
