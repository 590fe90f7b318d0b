"""The ground the fork server stands on: its own mount namespace and the users it may hand out.

As root it makes a private mount namespace and gives every worker a user of its own. An ordinary user does the same
inside a user namespace in which it is only itself, and every worker is that one user, told apart by namespaces.
"""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sandbox import privileges, syscalls
from sandbox.rootfs import Templates

# Above the ranges in use for containers and below systemd's foreign users (systemd, UIDS-GIDS.md: 524288-1879048191
# are for containers, 2147352576 and up for foreign images).
_FIRST_UID = 1_879_048_192
_UIDS_PER_SPAWNER = 16_384
_SLOTS = 16_000
_UMASK = 0o022


@dataclass
class UserIds:
    """The users of this fork server's workers. A user comes back only after its worker's last process is gone."""

    first: int
    count: int
    lock: socket.socket | None = None
    _returned: list[int] = field(default_factory=list)
    _given: int = 0

    def take(self) -> int:
        if self._given < self.count:
            self._given += 1
            return self.first + self._given - 1
        if self._returned:
            return self._returned.pop(0)
        raise BlockingIOError(11, "every user is in use")

    def give_back(self, uid: int) -> None:
        self._returned.append(uid)


@dataclass
class OneUser:
    """The one user an ordinary user can hand out: itself."""

    uid: int

    def take(self) -> int:
        return self.uid

    def give_back(self, uid: int) -> None:
        """It was never ours alone."""


@dataclass
class Ground:
    """What `settle` came to. `templates` is None where mounts are impossible, `mounts_missing` says why."""

    privileged: bool
    users: UserIds | OneUser
    templates: Templates | None = None
    mounts_missing: str = ""
    data_owner: int | None = None


def settle() -> Ground:
    """Give this process its mount namespace. Changes it for good, so it is for the fork server and trials only."""
    # What is made here has to be readable to workers, whatever the runtime was started with; they inherit this, too.
    os.umask(_UMASK)
    if os.geteuid() == 0:
        users = _own_users()
        # Without users to give away nothing can be handed to one of them either.
        owner = None if isinstance(users, OneUser) else privileges.WORKER_ID
        ground = Ground(True, users, data_owner=owner)
    else:
        ground = Ground(False, OneUser(os.geteuid()))
    try:
        if ground.privileged:
            syscalls.unshare(syscalls.CLONE_NEWNS)
        else:
            _enter_own_user_namespace()
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        ground.templates = Templates(privileges.WORKER_ID)
    except (OSError, StopIteration) as error:
        ground.mounts_missing = f"no private mount namespace: {error}"
    return ground


def _enter_own_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
    Path("/proc/self/setgroups").write_bytes(b"deny")
    Path("/proc/self/uid_map").write_bytes(f"{uid} {uid} 1\n".encode())
    Path("/proc/self/gid_map").write_bytes(f"{gid} {gid} 1\n".encode())


def _own_users() -> UserIds | OneUser:
    """A range of users no other fork server of this network namespace uses; a socket name, freed with us, is the claim.

    A root that is the only user of its user namespace has none to give but itself, who outside is an ordinary user.
    """
    first, count = _available()
    if not count:
        return OneUser(os.geteuid())
    if first != _FIRST_UID:
        return UserIds(first, count)
    for attempt in range(_SLOTS):
        slot = (os.getpid() + attempt) % _SLOTS
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with suppress(OSError):
            claim.bind(f"\0sandbox-users-{slot}")
            return UserIds(_FIRST_UID + slot * _UIDS_PER_SPAWNER, _UIDS_PER_SPAWNER, claim)
        claim.close()
    return UserIds(_FIRST_UID, _UIDS_PER_SPAWNER)


def _available() -> tuple[int, int]:
    """The users this namespace knows, as (first, count): ours by preference, else the upper half of the largest range.

    Inside a container that has a user namespace of its own, the preferred range does not exist.
    """
    ranges = []
    for line in Path("/proc/self/uid_map").read_text("ascii").splitlines():
        inside, _, length = (int(word) for word in line.split())
        if inside <= _FIRST_UID and inside + length >= _FIRST_UID + _SLOTS * _UIDS_PER_SPAWNER:
            return _FIRST_UID, _SLOTS * _UIDS_PER_SPAWNER
        ranges.append((length, inside))
    length, inside = max(ranges)
    return inside + length - length // 2, length // 2
