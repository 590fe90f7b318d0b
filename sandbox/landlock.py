"""Access control by the worker over itself, for good: files by place, TCP, signals, abstract sockets (landlock(7)).

The rules repeat in the kernel's own access checks what the mounts already say, so that neither wall stands alone.
"""

import os
import socket
import stat
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from sandbox import syscalls

# include/uapi/linux/landlock.h, LANDLOCK_ACCESS_FS_*
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = (
    1 << bit for bit in range(6, 13)
)
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15

_ALL_OF_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_ALL_FROM_ABI_5 = (1 << 16) - 1
_NET_SINCE, _SCOPE_SINCE = 4, 6
_BIND_TCP_AND_CONNECT_TCP = 0b11
_CONNECT_TCP = 0b10
_SCOPE_ABSTRACT_UNIX_AND_SIGNAL = 0b11
_SCOPE_SIGNAL = 0b10
_RULE_PATH_BENEATH, _RULE_NET_PORT = 1, 2
# tcpmux: never the port that is allowed, and nothing listens there in a fresh network namespace.
_OTHER_PORT = 1

# What may be granted on something that is no directory; the kernel refuses the rest there (EINVAL).
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV

Access = Literal["look", "run", "write", "device"]
_RIGHTS: dict[Access, int] = {
    "look": _READ_FILE | _READ_DIR,
    "run": _READ_FILE | _READ_DIR | _EXECUTE,
    "write": _READ_FILE | _READ_DIR | _WRITE_FILE | _TRUNCATE | _REFER | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR
    | _MAKE_REG | _MAKE_SOCK | _MAKE_FIFO | _MAKE_SYM,
    "device": _READ_FILE | _WRITE_FILE | _IOCTL_DEV,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """What is granted on `path` and everything beneath it."""

    path: str
    access: Access


def portable(rules: Iterable[Rule], *, connect_port: int | None = None) -> dict[str, object]:
    """The same as plain values, for a process that has none of this code.

    The ruleset's attributes; every path with its rights, and those of them a file may have; the port's rule.
    """
    abi = syscalls.landlock_abi()
    handled, attributes = _attributes(abi, scoped=True)
    with_port = connect_port is not None and abi >= _NET_SINCE
    return {
        "attributes": attributes.hex(),
        "paths": [[rule.path, _RIGHTS[rule.access] & handled, _FILE_RIGHTS] for rule in rules],
        "port": struct.pack("=QQ", _CONNECT_TCP, connect_port).hex() if with_port else None,
    }


def restrict(rules: Iterable[Rule], *, scoped: bool = True, connect_port: int | None = None) -> int:
    """Apply `rules` to this process and all it will start, and give the ABI version used. Needs no-new-privs.

    `scoped` keeps signals and abstract sockets among the processes confined by this very call. From ABI 4 on no TCP port
    may be bound, and none connected to but `connect_port`.
    """
    abi = syscalls.landlock_abi()
    handled, attributes = _attributes(abi, scoped=scoped)
    ruleset = syscalls.landlock_create_ruleset(attributes)
    try:
        for rule in rules:
            _add(ruleset, rule, handled)
        if connect_port is not None and abi >= _NET_SINCE:
            port = struct.pack("=QQ", _CONNECT_TCP, connect_port)
            syscalls.landlock_add_rule(ruleset, _RULE_NET_PORT, port)
        syscalls.landlock_restrict_self(ruleset)
    finally:
        os.close(ruleset)
    return abi


def _attributes(abi: int, *, scoped: bool) -> tuple[int, bytes]:
    """The file rights that are governed, and struct landlock_ruleset_attr."""
    handled = _ALL_OF_ABI.get(abi, _ALL_FROM_ABI_5)
    attributes = struct.pack("=Q", handled)
    if abi >= _NET_SINCE:
        attributes += struct.pack("=Q", _BIND_TCP_AND_CONNECT_TCP)
    if abi >= _SCOPE_SINCE and scoped:
        attributes += struct.pack("=Q", _SCOPE_ABSTRACT_UNIX_AND_SIGNAL)
    return handled, attributes


def scope_signals() -> bool:
    """From now on this process and its descendants can signal nobody but each other; whether the kernel can do that.

    For an init that is no pid 1: kill(-1) then reaches all that it ever started, in one step that no fork gets past, and
    nobody else (ABI 6, Linux 6.12). Needs no-new-privs.
    """
    if syscalls.landlock_abi() < _SCOPE_SINCE:
        return False
    ruleset = syscalls.landlock_create_ruleset(struct.pack("=3Q", 0, 0, _SCOPE_SIGNAL))
    try:
        syscalls.landlock_restrict_self(ruleset)
    finally:
        os.close(ruleset)
    return True


def _add(ruleset: int, rule: Rule, handled: int) -> None:
    try:
        place = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(error.errno, rule.path) from None
    try:
        is_directory = stat.S_ISDIR(os.fstat(place).st_mode)
        rights = _RIGHTS[rule.access] & handled & (-1 if is_directory else _FILE_RIGHTS)
        syscalls.landlock_add_rule(ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, place))
    finally:
        os.close(place)


def denial_seen(abi: int) -> str | None:
    """Do what only Landlock refuses here, and say what was refused; None when something was not.

    A confined process may change no mount, whatever Linux capabilities it holds; asking to make the root mount private
    changes nothing where it is private already. From ABI 4 on it may not bind a TCP port either, nor connect to one.
    """
    try:
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    except PermissionError:
        return _port_denial_seen() if abi >= _NET_SINCE else "a change of mounts was refused"
    return None


def _port_denial_seen() -> str | None:
    attempts: tuple[Callable[[socket.socket], None], ...] = (
        lambda tried: tried.bind(("127.0.0.1", 0)),
        lambda tried: tried.connect(("127.0.0.1", _OTHER_PORT)),
    )
    for attempt in attempts:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
            tried.setblocking(False)
            try:
                attempt(tried)
            except PermissionError:
                continue
            except OSError:
                return None
            return None
    return "a change of mounts, a TCP port and a connection were refused"
