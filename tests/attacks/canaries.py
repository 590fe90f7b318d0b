"""What attacks are aimed at: files, sockets and a process of the machine, made for this and harmless to lose."""

import contextlib
import ctypes
import os
import select
import signal
import socket
from pathlib import Path
from typing import Any

from attacks import targets
from sandbox import syscalls

_PONG = b"pong"
_LIMIT = 512
_IPC_CREATE = 0o1000 | 0o666
_DNS_ANSWER = b"\x00\x01\x81\x80"


class World:
    """The targets of one place. They live below `base`, which its owner removes; `close` lets go of the rest."""

    def __init__(self, base: Path, text: str, leaked: str) -> None:
        self.base = base
        self.text = text
        self.leaked = leaked
        self.folder = base / "host"
        self.data = base / "data"
        self.exhibits = base / "exhibits"
        self._held = contextlib.ExitStack()
        self._servers = self._listen()
        self._ipc = self._make_ipc()
        self._group = self._make_group()
        with contextlib.closing(self.start_process(os.geteuid(), os.getegid(), os.getpid())) as process:
            self.has_namespaces = int(process.facts["namespace_pid"]) > 0

    def _listen(self) -> dict[str, socket.socket]:
        hold = self._held.enter_context
        abstract = f"attacks-{os.getpid()}"
        servers = {
            "port": hold(socket.create_server(("0.0.0.0", 0), backlog=64)),
            "udp": hold(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
            "dns": hold(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
            "abstract": hold(socket.socket(socket.AF_UNIX)),
            "abstract-datagrams": hold(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)),
            "unix": hold(socket.socket(socket.AF_UNIX)),
        }
        servers["udp"].bind(("127.0.0.1", 0))
        servers["dns"].bind(("127.0.0.53", 0))
        servers["abstract"].bind(f"\0{abstract}")
        servers["abstract-datagrams"].bind(f"\0{abstract}-datagrams")
        servers["unix"].bind(str(self.base / "socket"))
        os.chmod(self.base / "socket", 0o777)
        for name in ("abstract", "unix"):
            servers[name].listen(64)
        with contextlib.suppress(OSError):
            servers["port6"] = hold(socket.create_server(("::1", 0), family=socket.AF_INET6, backlog=64))
        self.abstract = abstract
        return servers

    def _make_ipc(self) -> dict[str, int]:
        libc = ctypes.CDLL(None)
        key = 0x5A4D0000 | (os.getpid() & 0xFFFF)
        made = {
            "shm": libc.shmget(key, 4096, _IPC_CREATE),
            "msg": libc.msgget(key, _IPC_CREATE),
            "sem": libc.semget(key, 1, _IPC_CREATE),
        }
        self.ipc_key = key
        self.queue = f"attacks-{os.getpid()}"
        number, mask = -1, os.umask(0)
        with contextlib.suppress(OSError, AttributeError):
            number = ctypes.CDLL("librt.so.1").mq_open(
                f"/{self.queue}".encode(), os.O_CREAT | os.O_RDWR, 0o666, None
            )
        os.umask(mask)
        self.has_queue = number >= 0
        return made

    def _make_group(self) -> str:
        """A group of this process's that the worker's user owns, so that only walls keep it out."""
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "pids":
                place = Path(f"/sys/fs/cgroup/pids{path}/attacks-canary.{os.getpid()}")
                with contextlib.suppress(OSError):
                    place.mkdir()
                    return str(place)
        return ""

    def hand_to(self, uid: int, gid: int, *, data_owner: int) -> None:
        """Give everything to the user that the worker is on this machine: then ownership is not what protects it."""
        self.data.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            os.chown(self.data, data_owner, data_owner)
        for folder in (self.folder, self.folder / "neighbour"):
            folder.mkdir(exist_ok=True)
        files = [self.folder / name for name in ("secret", "writable", "deletable", "neighbour/data")]
        for file in files:
            file.write_text(self.text)
        owned = [self.folder, self.folder / "neighbour", *files, self.exhibits / "tool"]
        if self._group:
            owned += [Path(self._group), Path(self._group, "cgroup.procs"), Path(self._group, "tasks")]
        if os.geteuid() == 0:
            for path in owned:
                os.chown(path, uid, gid)

    def describe(self, *, own_root: bool, process: "Canary") -> dict[str, Any]:
        """What the attacker is told."""
        ports = {
            name: server.getsockname()[1]
            for name, server in self._servers.items()
            if name in {"port", "port6", "udp", "dns"}
        }
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports["free"] = free.getsockname()[1]
        loaders = [str(path) for path in Path("/lib64").glob("ld-linux*")] + [
            str(path) for path in Path("/lib").glob("ld-linux*")
        ]
        return {
            **process.facts,
            **ports,
            "text": self.text,
            "leaked": list(self.leaked.encode()),
            "secret": str(self.folder / "secret"),
            "folder": str(self.folder),
            "writable": str(self.folder / "writable"),
            "deletable": str(self.folder / "deletable"),
            "neighbour": str(self.folder / "neighbour/data"),
            "unix": str(self.base / "socket"),
            "abstract": self.abstract,
            "ipc": self.ipc_key,
            "queue": self.queue,
            "data": "/data" if own_root else str(self.data),
            "exhibits": "/exhibits" if own_root else str(self.exhibits),
            "tmp": "/tmp" if own_root else str(self.data),
            "python": targets.python(),
            "passwd": Path("/etc/passwd").read_text().splitlines()[-1],
            "root_names": [name for name in ("home", "root", "var", "boot") if Path("/", name).exists()],
            "loader": next(iter(loaders), "/none"),
            "group": f"{self._group}/cgroup.procs",
            "disk": next((str(path) for path in Path("/dev").glob("vd?")), ""),
            "hostname": socket.gethostname(),
            "session": os.getsid(0),
        }

    def start_process(self, uid: int, gid: int, neighbour: int) -> "Canary":
        """The canary process, run by that user, in the user namespace of process `neighbour`."""
        with open(f"/proc/{neighbour}/ns/user", "rb") as place:
            return Canary(self, uid, gid, list(self._servers.values()), place.fileno())

    @property
    def possible(self) -> dict[str, bool]:
        """Which targets there are."""
        return {
            "group": bool(self._group),
            "ipv6": "port6" in self._servers,
            "sysv": min(self._ipc.values()) >= 0,
            "mqueue": self.has_queue,
            "namespaces": self.has_namespaces,
        }

    def close(self) -> None:
        """Let go of everything that is not below `base`."""
        self._held.close()
        libc = ctypes.CDLL(None)
        libc.shmctl(self._ipc["shm"], 0, None)
        libc.msgctl(self._ipc["msg"], 0, None)
        libc.semctl(self._ipc["sem"], 0, 0)
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("librt.so.1").mq_unlink(f"/{self.queue}".encode())
        if self._group:
            with contextlib.suppress(OSError):
                Path(self._group).rmdir()


class Canary:
    """A process of the worker's own user outside, which answers on every socket and notes every signal."""

    def __init__(self, world: World, uid: int, gid: int, servers: list[socket.socket], place: int) -> None:
        ours, theirs = socket.socketpair()
        self._memory = ctypes.create_string_buffer(world.text.encode(), _LIMIT)
        secret = os.memfd_create("secret")
        os.write(secret, world.text.encode())
        self._channel = ours
        self.pid = os.fork()
        if self.pid == 0:
            try:
                ours.close()
                _enter_user_namespace(place)
                _be_canary(theirs, uid, gid, servers, secret)
            finally:
                os._exit(0)
        theirs.close()
        os.close(secret)
        self.facts = {
            "pid": self.pid,
            "namespace_pid": int(ours.recv(100)),
            "address": ctypes.addressof(self._memory),
            "fd": secret,
        }

    def noticed(self) -> set[str]:
        """The signals it got."""
        self._channel.send(b"?")
        return set(self._channel.recv(1000).decode().split())

    def close(self) -> None:
        """End it and its child."""
        self._channel.close()
        child = int(self.facts["namespace_pid"])
        if child > 0:  # 0 would be everyone around us
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _be_canary(channel: socket.socket, uid: int, gid: int, servers: list[socket.socket], secret: int) -> None:
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    # Above all the pipes of the worker, which could not end while they are held here.
    kept = {0, 1, 2, channel.fileno(), secret, *(server.fileno() for server in servers)}
    for fd in set(range(max(kept) + 100)) - kept:
        with contextlib.suppress(OSError):
            os.close(fd)
    noticed = set()
    for number in (signal.SIGWINCH, signal.SIGURG):
        signal.signal(number, lambda seen, _: noticed.add(signal.Signals(seen).name))
    os.setpgid(0, 0)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    # A change of user makes a process unreadable; this one is to be read by whoever can.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    channel.send(str(_namespace_process()).encode())
    poll = select.poll()
    by_fd = {server.fileno(): server for server in servers}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    poll.register(channel, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == channel.fileno():
                if not channel.recv(10):
                    return
                channel.send(" ".join(["", *noticed]).encode() or b" ")
            else:
                with contextlib.suppress(OSError):
                    _answer(by_fd[fd], secret)


def _enter_user_namespace(place: int) -> None:
    """The fork server of an ordinary user stands in a namespace of its own; only there do user and owner count alike."""
    if os.fstat(place).st_ino != os.stat("/proc/self/ns/user").st_ino:
        ctypes.CDLL(None).setns(place, 0)
        syscalls.capset_nothing()


def _namespace_process() -> int:
    """A child in a user namespace that its user made, and may therefore enter; 0 where there are none."""
    ready, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(OSError):
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            syscalls.unshare(syscalls.CLONE_NEWUSER)
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
            os.write(end, b"x")
            signal.pause()
        os._exit(0)
    os.close(end)
    made = os.read(ready, 1)
    os.close(ready)
    return pid if made else 0


def _answer(server: socket.socket, secret: int) -> None:
    if server.type == socket.SOCK_DGRAM:
        packet, sender = server.recvfrom(1000)
        if sender:
            server.sendto(_DNS_ANSWER if packet[:2] == b"\x00\x01" else _PONG, sender)
        return
    connection, _ = server.accept()
    with connection:
        connection.settimeout(1)
        if server.family == socket.AF_UNIX:
            descriptor = os.open(f"/proc/self/fd/{secret}", os.O_RDONLY)
            socket.send_fds(connection, [b"x"], [descriptor])
            os.close(descriptor)
        elif connection.recv(100):
            connection.send(_PONG)
