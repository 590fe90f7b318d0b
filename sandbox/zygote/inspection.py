"""What a zygote and its workers are, asked of the kernel from outside, since their own code may have been changed.

A worker is looked at after it says that it is confined and before it is told anything; its zygote while it is stopped.
Together they answer: is there a way, other than what the kernel cannot hide, for one worker to reach another, or for
anybody to reach a worker later? Each fault is a sentence; no fault means go. See proc(5), kcmp(2), unix(7).
"""

import fcntl
import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox import namespaces, syscalls

# include/uapi/linux/sockios.h: what is sent and not yet taken. Read by unix(7) as by tcp(7).
_SIOCOUTQ = 0x5411

# include/uapi/asm-generic/socket.h, Linux 6.16; where the kernel has no such thing they are closed as they come.
_SO_PASSRIGHTS = 83

_CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_STANDARD = {0: "/dev/null", 1: "/dev/null", 2: "/dev/null"}
_FILTERS = 2  # the zygote's, inherited, and the worker's own


@dataclass(frozen=True, slots=True)
class Ids:
    """The user and group a worker must be on this machine; `groups` is what its other groups may be."""

    uid: int
    gid: int
    groups: frozenset[int]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker must be: the namespaces of its init by layer, their root, and the devices it can write to there."""

    namespaces: dict[str, str]
    root: "Standing"
    writable: frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Standing:
    """A directory that a process is in. The mount counts: the roots of all workers of a kind are one inode."""

    mount: int
    device: int
    inode: int


def place_of(init: int) -> Place:
    """Asked before init hides itself, from an ordinary user's fork server too. Raises `OSError`."""
    return Place(namespaces.own_identities(init), _standing(init, "root"), _writable_devices(init))


def standings(pid: int) -> tuple[Standing, Standing]:
    """The root and the directory of a process. Raises `OSError`, `LookupError`."""
    return _standing(pid, "root"), _standing(pid, "cwd")


def _standing(pid: int, name: str) -> Standing:
    place = os.open(f"/proc/{pid}/{name}", os.O_PATH | os.O_CLOEXEC)
    try:
        found = os.fstat(place)
        lines = Path(f"/proc/self/fdinfo/{place}").read_text("ascii").splitlines()
    finally:
        os.close(place)
    titles = dict(line.split(":", 1) for line in lines if ":" in line)
    return Standing(int(titles["mnt_id"]), found.st_dev, found.st_ino)


def _writable_devices(pid: int) -> frozenset[tuple[int, int]]:
    """Major and minor number of what is mounted to be written to."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    devices = [line.split()[2].split(":") for line in lines if "rw" in line.split()[5].split(",")]
    return frozenset((int(major), int(minor)) for major, minor in devices)


def turns(pid: int) -> tuple[str, ...]:
    """The same at two moments only if the process stood still from the one to the other.

    What stopped it can be undone from within: by SIGCONT, which a timer sends as well (timer_create(2)).
    """
    fields = status_fields(pid)
    return tuple(fields[name] for name in ("State", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"))


def channel() -> tuple[socket.socket, socket.socket]:
    """Our end of a socket, and theirs, who are not trusted: they can send words and no descriptors.

    Of what they send the last close would be ours, and that of a connection that lingers waits (socket(7), SO_LINGER).
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with suppress(OSError):
        ours.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
    return ours, theirs


def socket_name(end: socket.socket) -> str:
    """How a socket shows in /proc/<pid>/fd."""
    return f"socket:[{os.fstat(end.fileno()).st_ino}]"


def status_fields(pid: int) -> dict[str, str]:
    """/proc/<pid>/status, by title."""
    lines = Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def inner_pid(pid: int, outer: int) -> int:
    """What `pid` is called in the pid namespace of `outer`, which is around it."""
    level = len(status_fields(outer)["NSpid"].split()) - 1
    return int(status_fields(pid)["NSpid"].split()[level])


def worker_faults(pid: int, place: Place, zygote: int, gate: str, ids: Ids) -> list[str]:
    """What is wrong with the worker `pid`, which should be in `place` and share nothing with `zygote`."""
    fields = status_fields(pid)
    return [
        *_namespace_faults(pid, place),
        *_identity_faults(fields, ids),
        *_privilege_faults(fields),
        *_alone_faults(pid, fields, zygote),
        *_descriptor_faults(pid, {**_STANDARD, 3: gate}),
        *_shared_file_faults(pid, zygote),
        *_mapping_faults(pid),
        *_root_faults(pid, place),
    ]


def zygote_faults(pid: int, init: int, workers: frozenset[int], end: socket.socket, name: str) -> list[str]:
    """What is wrong with the zygote `pid`, stopped, whose init is `init`, and `workers` its workers that live.

    `end` is our end of its channel; `name` how its own end shows. What was sent and not taken could still hold the
    descriptors of a worker's namespaces, to be looked at without taking them (MSG_PEEK).
    """
    fields = status_fields(pid)
    faults = [] if fields["State"].startswith("T") else [f"it is not stopped but {fields['State']}"]
    if fields["Threads"] != "1":
        faults.append(f"{fields['Threads']} threads run in it; a module started one while it was imported")
    faults += left_behind(pid, init, workers)
    if _unsent(end):
        faults.append("it left an order unread")
    return [*faults, *_descriptor_faults(pid, {**_STANDARD, 5: name}), *_mapping_faults(pid)]


def left_behind(pid: int, init: int, workers: frozenset[int]) -> list[str]:
    """Who else was forked there. A worker is not stopped, so this is asked once more after it was looked at."""
    faults = [f"it left the process {child} behind" for child in children(pid)]
    known = {pid, *workers}
    return faults + [
        f"the process {child} was left beside it" for child in children(init) if child not in known
    ]


def mapped_faults(pid: int, place: Place) -> list[str]:
    """Files of a worker's place that its zygote has mapped: it would see there what the worker writes later."""
    lines = Path(f"/proc/{pid}/maps").read_text("utf-8", "surrogateescape").splitlines()
    devices = {line.split()[3] for line in lines}
    mapped = {(int(major, 16), int(minor, 16)) for major, minor in (each.split(":") for each in devices)}
    return ["it has mapped a file that its worker can write to"] if mapped & place.writable else []


def children(pid: int) -> list[int]:
    """The children of every thread of a process. Raises `OSError` where the kernel does not list them."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(word) for word in (task / "children").read_text("ascii").split()]
    return found


def _namespace_faults(pid: int, place: Place) -> list[str]:
    its, wanted = namespaces.own_identities(pid), place.namespaces
    return [
        f"it is not in its {layer} but in {its[layer]}" for layer in wanted if its[layer] != wanted[layer]
    ]


def _identity_faults(fields: dict[str, str], ids: Ids) -> list[str]:
    faults = []
    for title, wanted in (("Uid", ids.uid), ("Gid", ids.gid)):
        if set(fields[title].split()) != {str(wanted)}:
            faults.append(f"its {title} is {' '.join(fields[title].split())}, not {wanted}")
    if {int(group) for group in fields["Groups"].split()} - ids.groups:
        faults.append(f"it is in the groups {fields['Groups']}")
    return faults


def _privilege_faults(fields: dict[str, str]) -> list[str]:
    faults = [f"its {name} is {fields[name]}" for name in _CAPABILITY_SETS if int(fields[name], 16)]
    for name, wanted in (("NoNewPrivs", "1"), ("Seccomp", "2"), ("TracerPid", "0")):
        if fields[name] != wanted:
            faults.append(f"its {name} is {fields[name]}")
    # Kernels before 5.9 do not count them; they have no other way to be asked.
    if int(fields.get("Seccomp_filters", _FILTERS)) < _FILTERS:
        faults.append("it did not take its own system call filter")
    return faults


def _alone_faults(pid: int, fields: dict[str, str], zygote: int) -> list[str]:
    """One thread, no child, a session of its own; neither memory nor descriptor table is anybody else's."""
    # Before its children: what shares the zygote's memory and is not this worker itself can only be one of those then.
    faults = []
    if syscalls.shares(pid, zygote, syscalls.KCMP_VM):
        faults.append("its memory is the zygote's own")
    if syscalls.shares(pid, zygote, syscalls.KCMP_FILES):
        faults.append("its table of descriptors is the zygote's own")
    if fields["Threads"] != "1":
        faults.append(f"it has {fields['Threads']} threads")
    faults += [f"it has a child, {child}" for child in children(pid)]
    state = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    group, session = int(state[2]), int(state[3])
    if {group, session} != {pid}:
        faults.append("it is not in a session of its own")
    return faults


def _descriptor_faults(pid: int, wanted: dict[int, str]) -> list[str]:
    found = {}
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found[int(entry)] = os.readlink(f"/proc/{pid}/fd/{entry}")
    return [
        f"its descriptor {number} is {found.get(number, 'closed')}"
        for number in sorted(found.keys() | wanted.keys())
        if found.get(number) != wanted.get(number)
    ]


def _shared_file_faults(pid: int, zygote: int) -> list[str]:
    """One open file has settings that whoever holds it can write and read, /dev/null too (fcntl(2), F_SETSIG)."""
    if any(syscalls.is_one_file(pid, fd, zygote, other) for fd in _STANDARD for other in _STANDARD):
        return ["it holds a standard stream of the zygote's"]
    return []


def _mapping_faults(pid: int) -> list[str]:
    """Memory that a child has in common with its parent: shared, and writable now or whenever it likes."""
    lines = Path(f"/proc/{pid}/maps").read_text("utf-8", "surrogateescape").splitlines()
    # Most processes have none, and the long form costs a walk through all of the memory.
    if not any(line.split()[1].endswith("s") for line in lines):
        return []
    faults, header = [], ""
    for line in Path(f"/proc/{pid}/smaps").read_text("utf-8", "surrogateescape").splitlines():
        if line.startswith("VmFlags:"):
            flags = set(line.split()[1:])
            if {"ms", "mw"} <= flags:
                faults.append(f"it shares writable memory: {' '.join(header.split()[1:])}")
        elif not line.split()[0].endswith(":"):
            header = line
    return faults


def _root_faults(pid: int, place: Place) -> list[str]:
    names = zip(("root", "cwd"), standings(pid), strict=True)
    return [f"its {name} is not the root of its place" for name, found in names if found != place.root]


def _unsent(end: socket.socket) -> int:
    (count,) = struct.unpack("i", fcntl.ioctl(end, _SIOCOUTQ, struct.pack("i", 0)))
    return int(count)
