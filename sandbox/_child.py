"""The confined side: a worker's init and the worker before its exec. The audited core; runs single-threaded.

init is made by the spawner with `syscalls.clone` and never returns. It prepares itself, waits for its order on the
gate (a socket to the spawner), confines itself step by step and forks the worker, which confines itself further and
waits, poised, until the spawner has read back from the kernel what is in force. Then the worker becomes the program,
and init does the one thing it is for: reaps, passes signals on, and ends when the worker ends or the spawner is gone.
As pid 1 of its namespace it takes everything in there with it.

Packets on the gate, JSON, init's side first: `{"failed": [step, errno, detail]}`, `{"poised": abi}` (sent by the
worker, whose pid the kernel attaches), `{"running": true}`, `{"ended": [code, signal]}`; from the spawner the order,
`{"go": true}`, `{"signal": n}`.
"""

import errno
import fcntl
import json
import os
import select
import signal
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NoReturn, cast

from sandbox import landlock, namespaces, privileges, rlimits, rootfs, seccomp, syscalls
from sandbox.rootfs import Source
from sandbox.spec import DATA_TARGET, SandboxSpec

MAX_PACKET_BYTES = 256 * 1024
MAX_DESCRIPTORS = 80

# s6 and env(1) use exits of this range for "could not be started"; nobody but the spawner sees it.
_SETUP_FAILED = 125
# Above the standard streams, the gate and the status pipe, so that placing those overwrites nothing.
_FIRST_FREE_FD = 5
_GATE_FD, _STATUS_FD = 3, 4
_PARKED_FD = 32


class StepFailed(Exception):
    """A step could not be done."""

    def __init__(self, step: str, number: int, detail: str) -> None:
        super().__init__(f"{step}: {detail}")
        self.step = step
        self.number = number
        self.detail = detail


@dataclass
class Order:
    """What init is told: the specification, the steps, and the descriptors that came along."""

    spec: SandboxSpec
    layers: frozenset[str]
    confine: tuple[str, ...]
    finish: tuple[str, ...]
    uid: int
    site: str
    streams: tuple[int, ...]
    root: int
    sources: list[Source]


@dataclass
class Subject:
    """The process being confined. `order` is None until it has arrived."""

    gate: socket.socket
    entries: tuple[int, ...]
    layers: frozenset[str]
    order: Order | None = None
    landlock_seen: str | None = None
    landlock_abi: int = 0
    program: bytes = field(default=b"", repr=False)

    @property
    def told(self) -> Order:
        """The order; only steps that come after its arrival ask."""
        assert self.order is not None
        return self.order


def main(gate: socket.socket, entries: tuple[int, ...], layers: frozenset[str], prepare: tuple[str, ...]) -> NoReturn:
    """Be a worker's init, from right after clone to the end. Whatever fails is said on the gate."""
    try:
        _drop_inherited((gate.fileno(), *entries))
        subject = Subject(gate, entries, layers)
        run_steps(subject, prepare)
        subject.order = receive_order(gate)
        run_steps(subject, subject.order.confine)
        _serve(subject)
    except StepFailed as failure:
        say(gate, {"failed": [failure.step, failure.number, failure.detail]})
    except BaseException as error:  # noqa: BLE001 - the process boundary: nothing may return into the spawner's code
        say(gate, {"failed": ["init", getattr(error, "errno", 0) or 0, type(error).__name__]})
    finally:
        os._exit(_SETUP_FAILED)


def run_steps(subject: Subject, names: Iterable[str]) -> None:
    """Do the steps in order; the first failure ends them."""
    for name in names:
        try:
            STEPS[name](subject)
        except OSError as error:
            raise StepFailed(name, error.errno or 0, str(error.args[-1] if error.args else "")[:500]) from None


def say(gate: socket.socket, message: dict[str, object]) -> None:
    """One packet to the spawner; when that is gone there is nobody to tell."""
    try:
        gate.send(json.dumps(message).encode())
    except OSError:
        os._exit(_SETUP_FAILED)


def receive_order(gate: socket.socket) -> Order:
    """Wait for the order; end quietly when the spawner ends or has no use for this process."""
    packet, descriptors, _, _ = socket.recv_fds(gate, MAX_PACKET_BYTES, MAX_DESCRIPTORS)
    if not packet:
        os._exit(0)
    for fd in descriptors:
        os.set_inheritable(fd, False)
    value = json.loads(packet)
    targets = cast("list[str]", value["targets"])
    root = descriptors[3] if value["has_root"] else -1
    trees = descriptors[4 if value["has_root"] else 3 :]
    return Order(
        spec=SandboxSpec.from_wire(value["spec"]),
        layers=frozenset(value["layers"]),
        confine=tuple(value["confine"]),
        finish=tuple(value["finish"]),
        uid=value["uid"],
        site=value["site"],
        streams=tuple(descriptors[:3]),
        root=root,
        sources=[Source(fd, target, is_directory=True) for fd, target in zip(trees, targets, strict=True)],
    )


def _drop_inherited(keep: tuple[int, ...]) -> None:
    """Close everything the spawner had open, and be deaf to what it listened to."""
    signal.set_wakeup_fd(-1)
    first = 0
    for fd in sorted(keep):
        syscalls.close_range(first, fd - 1)
        first = fd + 1
    syscalls.close_range(first)
    for _ in range(3):
        os.open("/dev/null", os.O_RDWR)


def _enter_cgroup(subject: Subject) -> None:
    for entry in subject.entries:
        os.write(entry, b"0")
        os.close(entry)


def _die_with_spawner(subject: Subject) -> None:
    privileges.die_with_parent()
    # The spawner may have ended before that was set; then the gate is closed at the other side.
    poll = select.poll()
    poll.register(subject.gate, 0)
    if poll.poll(0):
        os._exit(0)


def _assemble_root(subject: Subject) -> None:
    order = subject.told
    proc = "pidns" in order.layers
    rootfs.assemble(order.site, order.root, order.spec, order.sources, privileges.WORKER_ID, proc=proc)


def _restrict_landlock(subject: Subject) -> None:
    subject.landlock_abi = landlock.restrict(landlock_rules(subject.told))
    subject.landlock_seen = landlock.denial_seen(subject.landlock_abi)


def landlock_rules(order: Order) -> list[landlock.Rule]:
    """What the worker may reach, by places inside; by places of the host where it has no root of its own."""
    inside = "rootfs" in order.layers
    spec = order.spec
    rules = [landlock.Rule("/", "look")] if inside else []
    for mount in spec.mounts:
        rules.append(landlock.Rule(mount.target if inside else mount.source, "write" if mount.writable else "run"))
    if spec.data is not None:
        rules.append(landlock.Rule(DATA_TARGET if inside else spec.data, "write"))
    if inside:
        rules += [landlock.Rule(tmpfs.target, "write") for tmpfs in spec.scratch()]
    rules += [landlock.Rule(f"/dev/{name}", "device") for name in ("null", "zero", "full", "random", "urandom")]
    return rules


def _standard_streams(subject: Subject) -> None:
    for number, fd in enumerate(subject.told.streams):
        os.dup2(fd, number)
    syscalls.close_range(_FIRST_FREE_FD)


def _default_signals(_: Subject) -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _load_filter(subject: Subject) -> None:
    subject.program = seccomp.compile_named(subject.told.spec.seccomp, syscalls.MACHINE)


STEPS: dict[str, Callable[[Subject], None]] = {
    "enter-cgroup": _enter_cgroup,
    "new-session": lambda _: os.setsid(),
    "die-with-spawner": _die_with_spawner,
    "adopt-orphans": lambda _: privileges.adopt_orphans(),
    "unshare": lambda subject: syscalls.unshare(namespaces.unshare_flags(subject.layers)),
    "loopback-up": lambda _: namespaces.loopback_up(),
    "become-worker-user": lambda _: privileges.become(privileges.WORKER_ID, privileges.WORKER_ID),
    "become-worker-user-late": lambda subject: privileges.become(subject.told.uid, subject.told.uid),
    "assemble-root": _assemble_root,
    "enter-root": lambda _: rootfs.enter(),
    "set-hostname": lambda subject: syscalls.sethostname(subject.told.spec.name),
    "forbid-user-namespaces": lambda _: namespaces.forbid_user_namespaces(),
    "seal-proc": lambda _: rootfs.seal_proc(),
    "set-rlimits": lambda subject: rlimits.apply(subject.told.spec.limits),
    "lock-capabilities": lambda _: privileges.lock_down(),
    "forbid-new-privileges": lambda _: privileges.forbid_new(),
    "restrict-landlock": _restrict_landlock,
    "drop-capabilities": lambda _: privileges.drop_capabilities(),
    "hide-memory": lambda _: privileges.hide_memory(),
    "own-session": lambda _: os.setsid(),
    "default-signals": _default_signals,
    "enter-directory": lambda subject: os.chdir(subject.told.spec.cwd),
    "standard-streams": _standard_streams,
    "show-memory": lambda _: privileges.show_memory(),
    "load-filter": _load_filter,
    "restrict-seccomp": lambda subject: syscalls.seccomp_filter(subject.program),
}


def _serve(subject: Subject) -> NoReturn:
    """Fork the worker and stay until it ends."""
    order = subject.told
    wakeups, wakeup_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    status, status_end = os.pipe2(os.O_CLOEXEC)
    worker = os.fork()
    if worker == 0:
        os.close(status)
        _be_worker(subject, status_end)
    os.close(status_end)
    for fd in (*order.streams, order.root, *(source.fd for source in order.sources)):
        if fd >= 0:
            os.close(fd)
    if "seccomp" in order.layers:
        run_steps(subject, ("restrict-seccomp",))
    # Closed by a successful exec, or at the worker's end, in which case it has said why.
    failed = os.read(status, 1)
    os.close(status)
    if failed:
        os._exit(_SETUP_FAILED)
    say(subject.gate, {"running": True})
    _keep(subject.gate, worker, wakeups)


def _keep(gate: socket.socket, worker: int, wakeups: int) -> NoReturn:
    poll = select.poll()
    poll.register(gate, select.POLLIN)
    poll.register(wakeups, select.POLLIN)
    while True:
        _reap(gate, worker)
        for fd, _ in poll.poll():
            if fd == wakeups:
                if signal.SIGTERM in os.read(wakeups, 4096):
                    _pass_on(worker, signal.SIGTERM)
            else:
                packet = gate.recv(4096)
                if not packet:
                    os._exit(0)
                _pass_on(worker, json.loads(packet)["signal"])


def _reap(gate: socket.socket, worker: int) -> None:
    """Collect whoever ended; when it was the worker, say how and end, which ends everyone left in here."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == worker:
            code = os.waitstatus_to_exitcode(status)
            say(gate, {"ended": [code, None] if code >= 0 else [None, -code]})
            os._exit(0)


def _pass_on(worker: int, signum: int) -> None:
    try:
        os.kill(worker, signum)
    except OSError:
        return


def _be_worker(subject: Subject, status_end: int) -> NoReturn:
    """Finish the confinement and become the program."""
    order = subject.told
    try:
        privileges.die_with_parent()
        privileges.die_first()
        _place(subject, status_end)
        run_steps(subject, order.finish)
        say(subject.gate, {"poised": [subject.landlock_abi, subject.landlock_seen]})
        if not subject.gate.recv(4096):
            os._exit(0)
        _execute(order.spec)
    except StepFailed as failure:
        say(subject.gate, {"failed": [failure.step, failure.number, failure.detail]})
    except BaseException as error:  # noqa: BLE001 - the process boundary: nothing may return into init's code
        say(subject.gate, {"failed": ["worker", getattr(error, "errno", 0) or 0, type(error).__name__]})
    finally:
        os.write(_STATUS_FD, b"x")
        os._exit(_SETUP_FAILED)


def _place(subject: Subject, status_end: int) -> None:
    """Park the streams out of the way, then put the gate and the status pipe at their fixed numbers."""
    order = subject.told
    order.streams = tuple(_park(fd) for fd in order.streams)
    gate, status = _park(subject.gate.fileno()), _park(status_end)
    os.dup2(gate, _GATE_FD, inheritable=False)
    os.dup2(status, _STATUS_FD, inheritable=False)
    subject.gate = socket.socket(fileno=_GATE_FD)


def _park(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _PARKED_FD)


def _execute(spec: SandboxSpec) -> NoReturn:
    """exec the program, looked for along the specification's own PATH; `StepFailed` says what was not there."""
    environment = dict(spec.env)
    name = spec.argv[0]
    candidates = [name] if "/" in name else [os.path.join(place, name) for place in os.get_exec_path(environment)]
    failure = OSError(errno.ENOENT, "")
    for candidate in candidates:
        try:
            os.execve(candidate, spec.argv, environment)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR} or failure.errno == errno.ENOENT:
                failure = error
    number = failure.errno or 0
    missing = number in {errno.ENOENT, errno.ENOTDIR}
    detail = f"the program {name} was not found inside the sandbox" if missing else f"the program {name} cannot be run"
    raise StepFailed("exec", number, detail)
