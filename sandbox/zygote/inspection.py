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
    """Where a worker must be: the namespaces of its init by layer, and the device and inode of their root."""

    namespaces: dict[str, str]
    root: tuple[int, int]


def place_of(init: int) -> Place:
    """Asked before init hides itself, from an ordinary user's fork server too. Raises `OSError`."""
    return Place(namespaces.own_identities(init), _inode(f"/proc/{init}/root"))


def _inode(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


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
    faults += [f"it left the process {child} behind" for child in children(pid)]
    faults += [
        f"the process {child} was left beside it" for child in children(init) if child not in {pid, *workers}
    ]
    if _unsent(end):
        faults.append("it left an order unread")
    return [*faults, *_descriptor_faults(pid, {**_STANDARD, 5: name}), *_mapping_faults(pid)]


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
    faults = []
    if fields["Threads"] != "1":
        faults.append(f"it has {fields['Threads']} threads")
    faults += [f"it has a child, {child}" for child in children(pid)]
    state = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    group, session = int(state[2]), int(state[3])
    if {group, session} != {pid}:
        faults.append("it is not in a session of its own")
    if syscalls.shares(pid, zygote, syscalls.KCMP_VM):
        faults.append("its memory is the zygote's own")
    if syscalls.shares(pid, zygote, syscalls.KCMP_FILES):
        faults.append("its table of descriptors is the zygote's own")
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
    names = (name for name in ("root", "cwd") if _inode(f"/proc/{pid}/{name}") != place.root)
    return [f"its {name} is not the root of its place" for name in names]


def _unsent(end: socket.socket) -> int:
    (count,) = struct.unpack("i", fcntl.ioctl(end, _SIOCOUTQ, struct.pack("i", 0)))
    return int(count)
