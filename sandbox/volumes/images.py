"""Sized images: an ext4 file system in a sparse file, which gives a directory a size and a number of files that hold.

The kernel keeps the limit, on whatever file system the file lies (loop(4), ext4(5)). The file takes from that one only
what is written into it and gives back what is deleted (`discard`); it never has more than its size. Nothing is
reserved: where the file system below is full, writing inside fails as on a broken disk, and what was not written out
yet is lost.

A file is checked each time before it is mounted, as a machine checks its disks at boot: `e2fsck -p` repairs what can be
repaired without a decision; whatever it leaves is a refusal. An image is never made anew over one that is there.

All of this needs root and may wait for the disk: `attach` is for a process of its own.
"""

import fcntl
import os
import signal
import stat
import struct
import subprocess
from contextlib import suppress
from typing import Literal

from sandbox import privileges, syscalls
from sandbox.errors import SandboxSetupFailed

BLOCK_BYTES = 4096
# From `attach` until another holder of the image, such as a runtime that is just ending, has let go of it.
LOCK_SECONDS = 3
# The tools take milliseconds for a sound image of any size; this is for one that is repaired on a slow disk.
TOOL_SECONDS = 300
# The worker's own part of an image: beside it lies `lost+found`, which is nobody's business.
TREE = "tree"

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# Named one by one, so that neither a machine's mke2fs.conf nor a newer mke2fs decides: all of them are known to any
# kernel that can map ids on ext4 (Linux 5.12). One inode for each 16 KiB is mke2fs's own measure.
_FEATURES = (
    "none,has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize,sparse_super,large_file,"
    "filetype,resize_inode,dir_index"
)
_MAKE = (
    "mke2fs", "-q", "-F", "-b", str(BLOCK_BYTES), "-I", "256", "-i", "16384", "-m", "0", "-O", _FEATURES,
    "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
)  # fmt: skip
# A hole in the file reads as zeros, so inode tables need not be written; an error never stops the machine.
_OPTIONS = "errors=remount-ro,noinit_itable,discard"
_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC

Work = Literal["check", "grow"]
# resize2fs(8) wants the whole of it looked at before, not only what the journal says.
_CHECK: dict[Work, tuple[str, ...]] = {"check": ("-p",), "grow": ("-f", "-p")}
# e2fsck(8), "Exit code": 1 and 2 mean that errors were corrected.
_REPAIRED = 3

# struct ext4_super_block, fs/ext4/ext4.h
_SUPERBLOCK_OFFSET, _SUPERBLOCK_BYTES, _MAGIC = 1024, 1024, 0xEF53
_INCOMPAT_64BIT = 0x80

# include/uapi/linux/loop.h
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE, _LO_FLAGS_AUTOCLEAR = 0x4C82, 0x4C0A, 4
_LOOP_ATTEMPTS = 16
# include/uapi/linux/fs.h
_FITRIM = 0xC0185879

_NO_LINKS = syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS


def usable_bytes(size_bytes: int) -> int:
    """What of a size an image can have: whole blocks."""
    return size_bytes // BLOCK_BYTES * BLOCK_BYTES


def filesystem_bytes(superblock: bytes) -> int | None:
    """The size that the file system says of itself; None where there is no ext4."""
    if len(superblock) < _SUPERBLOCK_BYTES or struct.unpack_from("<H", superblock, 56) != (_MAGIC,):
        return None
    (low,), (shift,) = struct.unpack_from("<I", superblock, 4), struct.unpack_from("<I", superblock, 24)
    (features,), (high,) = struct.unpack_from("<I", superblock, 96), struct.unpack_from("<I", superblock, 336)
    if shift > 6:  # noqa: PLR2004 - blocks of 64 KiB, the largest there are
        return None
    blocks: int = low | (high << 32 if features & _INCOMPAT_64BIT else 0)
    return blocks * (1024 << int(shift))


def judge(superblock: bytes, file_bytes: int, wanted_bytes: int) -> Work:
    """What is to be done with an image that is there, so that it has `wanted_bytes`. Pure.

    Raises:
        SandboxSetupFailed: nothing may be done with it.
    """
    has = filesystem_bytes(superblock)
    if has is None or has > file_bytes:
        raise SandboxSetupFailed("check-volume", 117, "the image is damaged; restore it, or move it away")
    if has > usable_bytes(wanted_bytes):
        why = f"the image has {has} bytes and is never made smaller; ask for as many, or move it away"
        raise SandboxSetupFailed("check-volume", 27, why)
    return "check" if has == usable_bytes(wanted_bytes) else "grow"


def attach(path: str, size_bytes: int, place: str, owner: int) -> None:
    """Mount the image at `path` on the directory `place`; what belongs to `owner` is `place`/tree.

    Waits for the disk and, at most `LOCK_SECONDS`, for whoever has the image mounted. Nothing is left on failure, but
    an image that was made or grown.

    Raises:
        SandboxSetupFailed: with the step and the kernel's or the tool's answer.
    """
    try:
        image = _open(path, size_bytes)
        try:
            _mount(image, place)
        finally:
            os.close(image)
    except OSError as error:
        raise SandboxSetupFailed(
            "attach-volume", error.errno or 0, str(error.filename or error.strerror)
        ) from None
    try:
        _settle(place, size_bytes, owner)
    except OSError as error:
        syscalls.umount(place, syscalls.MNT_DETACH)
        raise SandboxSetupFailed("mount-volume", error.errno or 0, path) from None


def detach(place: str) -> None:
    """Take a mounted image off its place; waits until it is written out. Raises `OSError`.

    What the kernel had no time to give back to the file system below is given back before: at once, so that there is
    room to write out where that one is full, and again for what is free only when its transaction is on the disk.
    """
    root = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _give_back(root)
        with suppress(OSError):  # lost then, as the worker's own fsync would have said
            syscalls.syncfs(root)
        _give_back(root)
    finally:
        os.close(root)
    syscalls.umount(place, syscalls.MNT_DETACH)


def _give_back(root: int) -> None:
    with suppress(OSError):  # not every file system can have holes made in a file
        fcntl.ioctl(root, _FITRIM, struct.pack("=3Q", 0, 2**64 - 1, 0))


def _open(path: str, size_bytes: int) -> int:
    """The image, made where there is none, locked, checked, and of the size that is wanted."""
    parent, name = os.path.split(path)
    directory = syscalls.openat2(-100, parent, os.O_RDONLY | os.O_DIRECTORY, _NO_LINKS)
    try:
        # Whoever makes an image in this directory holds it, so that no second one takes its place.
        _lock(directory, parent)
        image = _open_own(directory, name)
        if image is None:
            return _make(directory, name, size_bytes)
    finally:
        os.close(directory)
    try:
        _lock(image, path)
        superblock = os.pread(image, _SUPERBLOCK_BYTES, _SUPERBLOCK_OFFSET)
        work = judge(superblock, os.fstat(image).st_size, size_bytes)
        _run_tool("check-volume", "e2fsck", *_CHECK[work], image=image, good=_REPAIRED)
        if work == "grow":
            os.ftruncate(image, usable_bytes(size_bytes))
            _run_tool("grow-volume", "resize2fs", image=image, good=0, outlives_us=True)
    except BaseException:
        os.close(image)
        raise
    return image


def _open_own(directory: int, name: str) -> int | None:
    """An image of ours, or None. What lies there is looked at before it is opened: opening a device does something."""
    try:
        found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        facts = os.fstat(found)
        ours = facts.st_uid == os.geteuid() and not facts.st_mode & 0o077 and facts.st_nlink == 1
        if not stat.S_ISREG(facts.st_mode) or not ours:
            why = f"{name} is no image of ours: not a file that only we can open"
            raise SandboxSetupFailed("open-volume", 1, why)
        return os.open(f"/proc/self/fd/{found}", os.O_RDWR | os.O_CLOEXEC)
    finally:
        os.close(found)


def _make(directory: int, name: str, size_bytes: int) -> int:
    """A new image. It gets its name when it is whole, so that a half-made one is never taken for a damaged one."""
    fresh = f".{name}.new"
    with suppress(FileNotFoundError):
        os.unlink(fresh, dir_fd=directory)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    image = os.open(fresh, flags, mode=0o600, dir_fd=directory)
    try:
        _lock(image, name)
        os.ftruncate(image, usable_bytes(size_bytes))
        _run_tool("make-volume", *_MAKE, image=image, good=0)
        os.fsync(image)
        os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
    except BaseException:
        os.close(image)
        raise
    return image


def _lock(fd: int, name: str) -> None:
    """Hold a file for ourselves alone. The lock is the open file's, so a loop device keeps it when we close ours.

    That is why no image is ever attached twice, whoever asks (flock(2)).
    """

    def give_up(*_: object) -> None:
        raise SandboxSetupFailed("lock-volume", 16, f"{name} is in use by another runtime")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LOCK_SECONDS)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    finally:
        signal.alarm(0)


def _run_tool(step: str, *command: str, image: int, good: int, outlives_us: bool = False) -> None:
    """Run one of e2fsprogs on the open image; what it says becomes part of the error.

    Ended half-way, a check is simply done again, but a growth could lose data: that one `outlives_us` when we are
    killed, and holds the lock until it is done.
    """
    try:
        done = subprocess.run(  # noqa: S603 - fixed programs, searched for in the system's own directories
            [*command, f"/proc/self/fd/{image}"],
            env={"PATH": _PATH, "LC_ALL": "C", "MKE2FS_CONFIG": "/dev/null"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(image,),
            preexec_fn=None if outlives_us else privileges.die_with_parent,
            timeout=None if outlives_us else TOOL_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        why = f"{command[0]} is not installed; it comes with e2fsprogs"
        raise SandboxSetupFailed(step, 2, why) from None
    except subprocess.TimeoutExpired:
        raise SandboxSetupFailed(
            step, 110, f"{command[0]} took more than {TOOL_SECONDS} s; run it by hand"
        ) from None
    if done.returncode & ~good:
        said = " ".join(done.stdout.decode("utf-8", "replace").split())[-300:]
        what = {"check-volume": "is damaged", "make-volume": "cannot be made"}.get(step, "cannot be grown")
        why = f"the image {what}; {command[0]} ended with {done.returncode}: {said}"
        raise SandboxSetupFailed(step, 117 if step == "check-volume" else 5, why)


def _mount(image: int, place: str) -> None:
    """Through a loop device that the kernel frees by itself at the last unmount, or when we die before."""
    device = _attach_loop(image)
    try:
        syscalls.mount(os.readlink(f"/proc/self/fd/{device}"), place, "ext4", _FLAGS, _OPTIONS)
    finally:
        os.close(device)


def _attach_loop(image: int) -> int:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_LOOP_ATTEMPTS):
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
            # struct loop_config: the descriptor, the block size, then a loop_info64 of which only the flags matter.
            setting = struct.pack("=2I52xI", image, 0, _LO_FLAGS_AUTOCLEAR).ljust(304, b"\0")
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, setting)
            except OSError as error:
                os.close(device)
                if error.errno != 16:  # noqa: PLR2004 - EBUSY: somebody was faster, take the next
                    raise OSError(error.errno, error.strerror, f"/dev/loop{number}") from None
            else:
                return device
    finally:
        os.close(control)
    raise OSError(16, "no free loop device", "/dev/loop-control")


def _settle(place: str, size_bytes: int, owner: int) -> None:
    """Have the tenant's part of it, and see that the kernel holds it to the size asked for."""
    root = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(FileExistsError):
            os.mkdir(TREE, mode=0o700, dir_fd=root)
        tree = os.open(TREE, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
        try:
            os.fchown(tree, owner, owner)
        finally:
            os.close(tree)
        facts = os.fstatvfs(root)
    finally:
        os.close(root)
    if facts.f_blocks * facts.f_frsize > size_bytes:
        raise OSError(27, "the mounted file system is larger than asked for")
