"""Turn this process into one of a `Place`, then into a command: `python container.py PACKAGES PLACE ARGV...`.

What a stock container is was taken from its documents: the OCI runtime specification's masked and read-only paths as
Docker sets them (moby, oci/defaults.go), the default Linux capabilities (same file), the default seccomp profile
(moby, profiles/seccomp/default.json). Ours lists what that profile refuses to a container without added Linux
capabilities, and lets the rest through.
"""

import errno
import fcntl
import json
import os
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.append(sys.argv[1])

from sandbox import namespaces, syscalls
from sandbox.cgroups import v1, v2
from sandbox.seccomp import filters

_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER, _ARGUMENT = 0, 16

_NAMESPACES = ("mount", "umount2", "pivot_root", "setns", "unshare", "mount_setattr", "move_mount", "open_tree",
               "fsopen", "fsconfig", "fsmount", "fspick", "open_tree_attr", "sethostname")  # fmt: skip
_REFUSED = (
    "acct", "add_key", "bpf", "clock_adjtime", "clock_settime", "delete_module", "fanotify_init", "finit_module",
    "get_mempolicy", "init_module", "io_uring_enter", "io_uring_register", "io_uring_setup", "ioperm", "iopl", "kcmp",
    "kexec_file_load", "kexec_load", "keyctl", "listmount", "lookup_dcookie", "lsm_get_self_attr", "mbind",
    "migrate_pages", "move_pages", "nfsservctl", "open_by_handle_at", "perf_event_open", "pidfd_getfd",
    "process_madvise", "quotactl", "quotactl_fd", "reboot", "request_key", "set_mempolicy", "set_mempolicy_home_node",
    "setdomainname", "settimeofday", "statmount", "swapoff", "swapon", "sysfs", "syslog",
    "_sysctl", "uselib", "userfaultfd", "ustat", "vhangup",
)  # fmt: skip
_NAMESPACE_FLAGS = 0x7E020000
_AF_ALG, _AF_VSOCK = 38, 40

# CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD,
# AUDIT_WRITE, SETFCAP
_CAPABILITIES = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31})
_CAPABILITY_COUNT = 64

_MASKED = (
    "acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi",
)  # fmt: skip
_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_MS_REMOUNT = 32

# include/uapi/linux/sockios.h
_SIOCSIFADDR = 0x8916
_STAND_INS = ("169.254.169.254", "10.0.0.1")


def main(place: dict[str, Any], argv: list[str]) -> None:
    """Become `argv` there."""
    if place["delegated_groups"]:
        _enter_delegated_groups(place["user"] or 0)
    if place["stand_ins"]:
        _enter_network_of_stand_ins()
    if place["container"]:
        _enter_namespaces(own_network=place["own_network"] and not place["stand_ins"])
        _arrange_files(place)
        syscalls.seccomp_filter(_filter(allow_namespaces=place["allow_namespaces"]))
        for number in set(range(_CAPABILITY_COUNT)) - _CAPABILITIES:
            try:
                syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
            except OSError:
                break
    # A group of its own, so that nothing that goes wrong in there reaches whoever started this.
    os.setpgid(0, 0)
    if place["user"] is not None:
        os.setgroups([])
        os.setresgid(place["user"], place["user"], place["user"])
        os.setresuid(place["user"], place["user"], place["user"])
    os.chdir("/")
    os.execvp(argv[0], argv)


def _enter_delegated_groups(user: int) -> None:
    """Go into groups made for this; a parent stays behind to remove them."""
    name = f"attacks.{os.getpid()}"
    places = [place / name for place in _places_for_groups()]
    for place in places:
        place.mkdir()
        for path in (place, *(place / file for file in ("cgroup.procs", "tasks", "cgroup.subtree_control"))):
            if path.exists():
                os.chown(path, user, user)
    child = os.fork()
    if child:
        try:
            _pass_through(child)
        finally:
            for place in places:
                for path in (*place.iterdir(), place):
                    with suppress(OSError):
                        path.rmdir()
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    for place in places:
        (place / "cgroup.procs").write_text("0")


def _places_for_groups() -> list[Path]:
    """Version 1: inside the own groups. Version 2: beside the own one, since a group that is divided holds nobody."""
    own = v1.own_places()
    if found := [own[controller] for controller in ("memory", "pids", "cpu") if controller in own]:
        return found
    place = v2.own_place()
    return [] if place is None else [place.parent]


def _enter_network_of_stand_ins() -> None:
    syscalls.unshare(syscalls.CLONE_NEWNET)
    namespaces.loopback_up()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for number, address in enumerate(_STAND_INS):
            family = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(control, _SIOCSIFADDR, struct.pack("=16s16s8x", f"lo:{number}".encode(), family))
    Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 2147483647")


def _enter_namespaces(*, own_network: bool) -> None:
    flags = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
    syscalls.unshare(flags | (syscalls.CLONE_NEWNET if own_network else 0))
    if own_network:
        namespaces.loopback_up()
    init = os.fork()
    if init:
        _pass_through(init)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    program = os.fork()
    if program:
        # The first process of the namespace, as `docker run --init` has one.
        _reap_until(program)


def _pass_through(child: int) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.kill(child, signal.SIGKILL))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    sys.exit(code if code >= 0 else 128 - code)


def _reap_until(program: int) -> None:
    for fd in range(3):
        os.close(fd)
    while True:
        pid, status = os.wait()
        if pid == program:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _arrange_files(place: dict[str, Any]) -> None:
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    plain = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("proc", "/proc", "proc", plain)
    if place["masked_proc"]:
        for name in filter(lambda name: Path("/proc", name).exists(), _MASKED):
            _mask(f"/proc/{name}")
        for name in filter(lambda name: Path("/proc", name).exists(), _READ_ONLY):
            syscalls.mount(f"/proc/{name}", f"/proc/{name}", "", syscalls.MS_BIND | syscalls.MS_REC)
            syscalls.mount(
                "", f"/proc/{name}", "", _MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY | plain
            )
    tree = os.open("/sys/fs/cgroup" if place["writable_cgroups"] else "/sys", os.O_PATH)
    if not place["writable_cgroups"]:
        syscalls.mount_setattr(tree, syscalls.MOUNT_ATTR_RDONLY)
    os.close(tree)
    _mask("/sys/firmware")
    _make_devices()


def _mask(path: str) -> None:
    if Path(path).is_dir():
        syscalls.mount("tmpfs", path, "tmpfs", syscalls.MS_RDONLY)
    elif Path(path).exists():
        syscalls.mount("/dev/null", path, "", syscalls.MS_BIND)


def _make_devices() -> None:
    """A small /dev over the machine's; put together elsewhere, since the old one is the source."""
    site = Path("/mnt")
    syscalls.mount("tmpfs", str(site), "tmpfs", syscalls.MS_NOSUID, "mode=755,size=64k")
    for name in _DEVICES:
        (site / name).touch()
        syscalls.mount(f"/dev/{name}", str(site / name), "", syscalls.MS_BIND)
    for name, kind, options in (
        ("pts", "devpts", "newinstance,ptmxmode=0666,mode=0620"), ("shm", "tmpfs", "mode=1777,size=64m"),
        ("mqueue", "mqueue", ""),
    ):  # fmt: skip
        (site / name).mkdir()
        syscalls.mount(kind, str(site / name), kind, syscalls.MS_NOSUID | syscalls.MS_NOEXEC, options)
    for name, goal in (
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
        ("ptmx", "pts/ptmx"),
    ):
        (site / name).symlink_to(goal)
    tree = syscalls.open_tree(-100, str(site))
    target = os.open("/dev", os.O_PATH)
    syscalls.move_mount(tree, target)
    os.close(tree)
    os.close(target)
    syscalls.umount(str(site), syscalls.MNT_DETACH)


def _filter(*, allow_namespaces: bool) -> bytes:
    table = filters.numbers(syscalls.MACHINE)
    refused = _REFUSED + (() if allow_namespaces else _NAMESPACES)
    program = [_step(_LOAD, _NUMBER)]
    for name in refused:
        if name in table:
            program += [_step(_EQUAL, table[name], 0, 1), _answer(errno.EPERM)]
    program += [_step(_EQUAL, table["clone3"], 0, 1), _answer(errno.ENOSYS)]
    program += [_step(_EQUAL, table["socket"], 0, 4), _step(_LOAD, _ARGUMENT)]
    program += [_step(_EQUAL, _AF_ALG, 1, 0), _step(_EQUAL, _AF_VSOCK, 0, 1), _answer(errno.EPERM)]
    if not allow_namespaces:
        program += [_step(_LOAD, _NUMBER), _step(_EQUAL, table["clone"], 0, 3), _step(_LOAD, _ARGUMENT)]
        program += [_step(_ANY_BIT, _NAMESPACE_FLAGS, 0, 1), _answer(errno.EPERM)]
    return b"".join([*program, _step(_RETURN, _ALLOW)])


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _answer(number: int) -> bytes:
    return _step(_RETURN, _REFUSE | number)


if __name__ == "__main__":
    main(json.loads(sys.argv[2]), sys.argv[3:])
