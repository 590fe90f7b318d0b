"""One worker as the fork server holds it: a process, its gate, its groups and its user, from clone to removal."""

import array
import errno
import json
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, TypeVar

from sandbox import _child, _nest, _order, _readback, namespaces, privileges, rootfs, syscalls
from sandbox._confine import Subject
from sandbox._ground import Ground
from sandbox._nest import Within
from sandbox.cgroups.groups import Driver, Group
from sandbox.errors import SandboxSetupFailed, SandboxUnsupported
from sandbox.layers import LayerStatus
from sandbox.messages import Exited, KillReason, Reason, Spawned
from sandbox.rootfs import Source
from sandbox.seccomp import filters
from sandbox.spec import DATA_TARGET, SandboxSpec, Volume
from sandbox.steps import Plan, prepare_steps
from sandbox.volumes.shelves import Volumes
from sandbox.zygote_plan import prepare_zygote_steps

_Result = TypeVar("_Result")

# More than can be refused in a year; what is above is not a count.
_MAX_COUNT = 2**53

# An init says no more than the counts of all denied calls, under 12 KiB. Whatever it says must fit, escaped, into one
# packet to the runtime.
_MAX_SAID_BYTES = 16 * 1024
_NONSENSE: dict[str, object] = {"failed": ["gate", 0, "the worker's init does not make sense"]}

_CREDENTIALS_BYTES = 12  # struct ucred: pid, uid, gid (unix(7))
_DESCRIPTOR_BYTES = 4


Role = Literal["worker", "zygote", "site"]


@dataclass
class Worker:
    """Owned by the fork server from `make` to `bury`."""

    number: int
    pid: int
    pidfd: int
    gate: socket.socket
    group: Group
    uid: int
    namespaces: frozenset[str]
    prepared: tuple[str, ...]
    phase: Literal["spare", "starting", "running"] = "spare"
    request: int = -1
    spec: SandboxSpec | None = None
    plan: Plan | None = None
    made_at: float = field(default_factory=time.monotonic)
    deadline: float = 0.0
    killed: KillReason | None = None
    failure: SandboxSetupFailed | SandboxUnsupported | None = None
    confined: bool = False
    poised: tuple[int, _readback.Evidence] | None = None
    statuses: tuple[LayerStatus, ...] = ()
    ended: tuple[int | None, int | None] | None = None
    cpu_seconds: float = 0.0
    listener: int | None = None
    uncounted: str = ""
    denied_calls: dict[str, int] = field(default_factory=dict)
    denied_unsaid: dict[str, int] = field(default_factory=dict)
    role: Role = "worker"

    def take_listener(self) -> int | None:
        """The descriptor of the worker's way out, if there is one; whoever takes it owns it."""
        taken, self.listener = self.listener, None
        return taken

    def job(self) -> tuple[SandboxSpec, Plan]:
        """What this worker is for, and how; only once it has been told."""
        if self.spec is None or self.plan is None:
            raise SandboxSetupFailed("order", 0, "a worker without a specification")
        return self.spec, self.plan


@dataclass(frozen=True, slots=True)
class Made:
    """How an init is made: for which layers, without which groups on purpose, for what, and where.

    For a spare no order is on its way yet.
    """

    layers: frozenset[str]
    without: frozenset[str] = frozenset()
    role: Role = "worker"
    within: Within | None = None
    is_spare: bool = False


def make(number: int, ground: Ground, driver: Driver, how: Made) -> Worker:
    """Clone an init that prepares itself and then waits for its order. Raises `OSError`."""
    layers, within = how.layers, how.within
    prepare = prepare_zygote_steps(layers) if how.role == "zygote" else prepare_steps(layers)
    with ExitStack() as undo:
        group = driver.create(f"worker-{number}", without=how.without)
        undo.callback(group.remove)
        uid = ground.users.take()
        undo.callback(ground.users.give_back, uid)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        undo.callback(ours.close)
        with theirs:
            born_in, entries = group.entry()
            try:
                flags = namespaces.clone_flags(layers)
                cloned = _nest.clone(flags, born_in, within) if within else syscalls.clone(flags, born_in)
                if cloned is None:
                    site = ground.templates.site if ground.templates else ""
                    subject = Subject(theirs, entries, layers, site, how.role, is_spare=how.is_spare)
                    _child.main(subject, prepare)
            finally:
                for fd in (*entries, *(() if born_in is None else (born_in,))):
                    os.close(fd)
        undo.pop_all()
    worker = Worker(number, cloned.pid, cloned.pidfd, ours, group, uid, layers, prepare, role=how.role)
    try:
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        if "userns" in layers:
            namespaces.write_maps(worker.pid, privileges.WORKER_ID, uid, privileged=ground.privileged)
            worker.gate.send(json.dumps({"mapped": True}).encode())
    except OSError:
        abandon(worker, ground)
        raise
    return worker


def abandon(worker: Worker, ground: Ground) -> None:
    """End an init that has not been given an order, and wait for it: it dies at once, nothing runs in it yet."""
    kill(worker)
    bury(worker, ground)
    worker.group.remove()


def order(worker: Worker, ground: Ground, streams: list[int], volumes: Volumes) -> None:
    """Hand over the specification and everything it needs; sized volumes must have been claimed and be there.

    Raises `SandboxSetupFailed`; the caller kills then.
    """
    spec, plan = worker.job()
    sources: list[Source] = []
    root = -1
    try:
        if "rootfs" in plan.layers and ground.templates is not None:
            sources += attempt("open-mounts", lambda: rootfs.open_sources(spec.mounts))
            open_volumes(worker, ground, volumes, sources)
            templates = ground.templates
            root = attempt("open-root", lambda: templates.open(spec, sources))
        told = _order.Order(
            spec=spec,
            layers=plan.layers,
            confine=plan.confine,
            withdraw=plan.withdraw,
            finish=plan.finish,
            uid=worker.uid,
            streams=tuple(streams),
            root=root,
            sources=tuple(sources),
        )
        attempt("send-order", lambda: _order.send(worker.gate, told))
        # While init is at work already: the program does not run before the caps have been read back.
        attempt("set-limits", lambda: worker.group.limit(spec.limits))
        # The next inits are forks of this process and must not carry this worker's secrets.
        worker.spec = replace(spec, env=())
    finally:
        for fd in (root, *(source.fd for source in sources)):
            if fd >= 0:
                os.close(fd)


def open_volumes(worker: Worker, ground: Ground, volumes: Volumes, sources: list[Source]) -> None:
    """Add its volumes, the data directory among them, to `sources`. Raises `SandboxSetupFailed`."""
    spec, _ = worker.job()
    for volume in spec.kept():
        step = "open-data" if volume.target == DATA_TARGET else "open-volume"
        sources.append(attempt(step, partial(_open_kept, worker, ground, volume, volumes)))


def _open_kept(worker: Worker, ground: Ground, volume: Volume, volumes: Volumes) -> Source:
    owner, idmap = None, None
    if ground.privileged and "userns" in worker.namespaces:
        # The namespace maps the owner on disk, which is what the worker is inside, to its user on this machine.
        owner = ground.data_owner
        idmap = os.open(f"/proc/{worker.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if volume.size_bytes is None:
            return rootfs.open_kept(volume, owner, idmap)
        return rootfs.kept_tree(volume, volumes.open(volume.source), idmap)
    finally:
        if idmap is not None:
            os.close(idmap)


def receive(worker: Worker) -> tuple[dict[str, object], int] | None:
    """The next packet from init's side and its sender's pid; an empty one at the end, None when there is none now.

    A listening socket that comes along belongs to the worker from here on.
    """
    try:
        space = socket.CMSG_SPACE(_CREDENTIALS_BYTES) + socket.CMSG_SPACE(_DESCRIPTOR_BYTES)
        packet, ancillary, flags, _ = worker.gate.recvmsg(_MAX_SAID_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    except BlockingIOError:
        return None
    except OSError:
        return {}, 0
    pid = 0
    descriptors = array.array("i")
    for _, kind, data in ancillary:
        if kind == socket.SCM_CREDENTIALS:
            pid = struct.unpack("=iII", data)[0]
        elif kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    message = _NONSENSE if flags & socket.MSG_TRUNC else _read(packet)
    _keep_listener(worker, list(descriptors), announced=message == {"listening": True})
    return message, pid


def _keep_listener(worker: Worker, descriptors: list[int], *, announced: bool) -> None:
    """Keep the one that was to come, once, while the worker's program does not run yet; close any other."""
    for fd in descriptors:
        if announced and worker.listener is None and worker.phase == "starting" and not worker.statuses:
            worker.listener = fd
        else:
            os.close(fd)


def _read(packet: bytes) -> dict[str, object]:
    """What init said. It is ours, but it lives where it could be broken into: nonsense is its worker's failure."""
    if not packet:
        return {}
    with suppress(ValueError, RecursionError):
        value = json.loads(packet)
        if isinstance(value, dict) and value:
            return value
    return _NONSENSE


def tell(worker: Worker, message: dict[str, object]) -> int:
    """A packet to init's side; the errno with which it was lost, as when that is ending, else 0."""
    try:
        worker.gate.send(json.dumps(message).encode())
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def ask_to_end(worker: Worker) -> bool:
    """Let init end everyone and itself, where its own end would not; whether it was asked, and is not dead at once."""
    if "pidns" in worker.namespaces or worker.phase != "running":
        return False
    tell(worker, {"end": True})
    return True


def kill(worker: Worker) -> None:
    """SIGKILL to init, and with it to its namespace, and to everyone in the groups. Nothing once it is buried."""
    if worker.pidfd < 0:
        return
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
    if "pidns" not in worker.namespaces:
        worker.group.kill()


def bury(worker: Worker, ground: Ground) -> None:
    """Reap init and give back what it held, its groups excepted: their counters are still to be read."""
    _, _, usage = os.wait4(worker.pid, 0)
    worker.cpu_seconds = usage.ru_utime + usage.ru_stime
    # Another process's descriptor has this number next.
    os.close(worker.pidfd)
    worker.pidfd = -1
    worker.gate.close()
    if (listener := worker.take_listener()) is not None:
        os.close(listener)
    ground.users.give_back(worker.uid)


def is_sound(worker: Worker) -> bool:
    """Whether a spare is alive and has said nothing: the first word of one before its order is that it failed."""
    poll = select.poll()
    poll.register(worker.gate, select.POLLIN)
    return not has_ended(worker) and not poll.poll(0)


def has_ended(worker: Worker) -> bool:
    """Whether init is a zombie. Never waits."""
    return os.waitid(os.P_PIDFD, worker.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def count_denied(worker: Worker, calls: dict[object, object]) -> None:
    """Add what init counted. Names that are no call, and what is no number, are not taken from it."""
    known = filters.call_names()
    for name, count in calls.items():
        if isinstance(name, str) and name in known and type(count) is int and 0 < count <= _MAX_COUNT:
            for table in (worker.denied_calls, worker.denied_unsaid):
                table[name] = min(table.get(name, 0) + count, _MAX_COUNT)


def spawned(worker: Worker) -> Spawned:
    """That the worker's program runs."""
    return Spawned(
        worker.request, worker.number, worker.pid, worker.statuses, worker.take_listener(), worker.uncounted
    )


def exited(worker: Worker) -> Exited:
    """How a buried worker ended, with what its groups counted."""
    counters = worker.group.counters()
    # An init that was killed itself could say nothing; it ended as everyone in its namespace did.
    code, signum = worker.ended or (None, int(signal.SIGKILL))
    return Exited(
        worker=worker.number,
        reason=why(code, signum, worker.killed, counters.oom_kills),
        code=code,
        signal=signum,
        peak_memory_bytes=counters.peak_memory_bytes,
        cpu_seconds=worker.cpu_seconds if counters.cpu_seconds is None else counters.cpu_seconds,
        oom_kills=counters.oom_kills,
        pids_denied=counters.pids_denied,
        throttled_periods=counters.throttled_periods,
        throttled_seconds=counters.throttled_seconds,
        denied_calls=worker.denied_calls,
    )


def why(code: int | None, signum: int | None, killed: KillReason | None, oom_kills: int) -> Reason:
    """The reason of an end. A worker that ended by itself did, even if its kill was already on the way."""
    if code is not None:
        return "exited"
    if signum == signal.SIGKILL and killed:
        return killed
    # Where the kernel took one process for want of memory, all of the worker went with it (see `cgroups.groups.Group`).
    if signum == signal.SIGKILL and oom_kills:
        return "oom"
    return "signalled"


def attempt(step: str, action: Callable[[], _Result]) -> _Result:
    """Do it; what the kernel refuses is a failure of that step of a start. Raises `SandboxSetupFailed`."""
    try:
        return action()
    except OSError as error:
        raise SandboxSetupFailed(step, error.errno or 0, str(error.filename or "")) from None
    except (ValueError, RecursionError) as error:
        raise SandboxSetupFailed(step, 22, type(error).__name__) from None
