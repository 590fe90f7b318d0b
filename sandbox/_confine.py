"""What each step of confinement does, by its name in `steps`; the order is decided there, the doing is here."""

import os
import select
import signal
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from sandbox import landlock, namespaces, privileges, rlimits, rootfs, syscalls
from sandbox._order import STREAMS, Order, say_listening
from sandbox.egress.rules import EGRESS_HOST, EGRESS_PORT
from sandbox.seccomp import filters
from sandbox.spec import SandboxSpec
from sandbox.steps import filter_variants

# What the fork server ignores, and every init with it; only the worker hears them again. The last two are those that
# Python turns into exceptions.
IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)

# What a worker without a root of its own may read besides what it was granted: facts that tell nothing about anybody.
# A root of its own has copies of some; the others are not there, which programs take better than being refused.
_FACTS = (
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
)

# Above the standard streams, the gate and the status pipe.
FIRST_FREE_FD = 5
# Connections that wait to be taken; with more of them the worker's own connecting waits.
_EGRESS_BACKLOG = 64
_MAX_DETAIL = 500


class StepFailed(Exception):
    """A step could not be done."""

    def __init__(self, step: str, number: int, detail: str) -> None:
        super().__init__(f"{step}: {detail}")
        self.step = step
        self.number = number
        self.detail = detail


@dataclass
class Subject:
    """The process being confined. `order` is None until it has arrived.

    `role` is what its init is for; `site` the directory over which its root is put together, `proc` its detached /proc,
    -1 without one; `parent` is init, for the worker, and `init` its socket to it. `is_spare` says that no order is on
    its way yet.
    """

    gate: socket.socket
    entries: tuple[int, ...]
    layers: frozenset[str]
    site: str = ""
    role: Literal["worker", "zygote", "site"] = "worker"
    order: Order | None = None
    proc: int = -1
    parent: int = 0
    is_spare: bool = False
    init: socket.socket | None = None
    signals_scoped: bool = False
    landlock_seen: str | None = None
    landlock_abi: int = 0
    filter: filters.Filter | None = field(default=None, repr=False)

    @property
    def told(self) -> Order:
        """The order; only steps that come after its arrival ask."""
        if self.order is None:
            raise StepFailed("order", 0, "a step was taken before its time")
        return self.order


def run_steps(subject: Subject, names: Iterable[str]) -> None:
    """Do the steps in order; the first failure ends them."""
    for name in names:
        try:
            STEPS[name](subject)
        except OSError as error:
            raise StepFailed(
                name, error.errno or 0, str(error.args[-1] if error.args else "")[:_MAX_DETAIL]
            ) from None


def _enter_cgroup(subject: Subject) -> None:
    for entry in subject.entries:
        os.write(entry, b"0")
        os.close(entry)


def _die_with_spawner(subject: Subject) -> None:
    if not subject.signals_scoped:
        privileges.die_with_parent()
    # The fork server may have ended before that was set; then the gate is closed at the other side.
    poll = select.poll()
    poll.register(subject.gate, 0)
    if poll.poll(0):
        os._exit(0)


def _scope_signals(subject: Subject) -> None:
    """What a pid namespace would do: let init end everyone below it, and only them, also when our maker is gone."""
    subject.signals_scoped = landlock.scope_signals()
    if subject.signals_scoped:
        # It learns of the fork server's end from the gate, and has something to do then.
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 0)


def _await_map(subject: Subject) -> None:
    """Until then this process is nobody, and may become nobody else."""
    if not subject.gate.recv(_MAX_DETAIL):
        os._exit(0)


def _die_with_init(subject: Subject) -> None:
    privileges.die_with_parent()
    # Init may have ended before that was set.
    if os.getppid() != subject.parent:
        os._exit(0)


def _mount_proc(subject: Subject) -> None:
    subject.proc = rootfs.mount_proc(subject.site)


def _forbid_user_namespaces(subject: Subject) -> None:
    namespaces.forbid_user_namespaces(subject.proc)


def _open_egress(subject: Subject) -> None:
    """Listen where the worker will find its proxy, and hand the socket to the fork server; none of it stays here."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((EGRESS_HOST, EGRESS_PORT))
        listener.listen(_EGRESS_BACKLOG)
        listener.setblocking(False)
        say_listening(subject.gate, listener.fileno())


def _assemble_root(subject: Subject) -> None:
    order = subject.told
    owner = privileges.WORKER_ID if "userns" in order.layers else order.uid
    rootfs.assemble(subject.site, order.root, order.spec, order.sources, owner, proc=subject.proc)
    # In place now; open, they would count against the cap on descriptors that is set next.
    for fd in (order.root, *(source.fd for source in order.sources), subject.proc):
        if fd >= 0:
            os.close(fd)
    subject.order, subject.proc = replace(order, root=-1, sources=()), -1


def _set_rlimits(subject: Subject) -> None:
    order = subject.told
    # The worker's user is the runtime's own where neither a namespace nor privilege gives it another.
    shares_user = "userns" not in order.layers and order.uid == os.getuid()
    others = rlimits.tasks_of(order.uid) if shares_user else 0
    rlimits.apply(order.spec.limits, grouped="cgroup.pids" in order.layers, others=others)


def _restrict_landlock(subject: Subject) -> None:
    port = EGRESS_PORT if subject.told.spec.network == "proxy" else None
    subject.landlock_abi = landlock.restrict(landlock_rules(subject.told), connect_port=port)
    subject.landlock_seen = landlock.denial_seen(subject.landlock_abi)


def _restrict_landlock_coarsely(subject: Subject) -> None:
    port = EGRESS_PORT if subject.told.spec.network == "proxy" else None
    subject.landlock_abi = landlock.restrict(coarse_rules(subject.told), connect_port=port)
    subject.landlock_seen = landlock.denial_seen(subject.landlock_abi)


def coarse_rules(order: Order) -> list[landlock.Rule]:
    """What a zygote and all its workers may reach at most: nothing is executed but what both have mounted for it.

    The rules hold for the root of the template, which zygote and workers have in common, so also for what only a
    worker gets mounted below it. No path of a worker is known here.
    """
    rules = [landlock.Rule("/", "write"), landlock.Rule("/dev", "device")]
    return rules + [landlock.Rule(mount.target, "run") for mount in order.spec.mounts]


def _attach_places(subject: Subject) -> None:
    order = subject.told
    rootfs.attach(order.spec, order.sources)
    for source in order.sources:
        os.close(source.fd)
    subject.order = replace(order, sources=())


def _forbid_everything(_: Subject) -> None:
    # Unlike the worker, init must reach a process outside its own domain: the worker, with signals.
    landlock.restrict((), scoped=False)


def landlock_rules(order: Order) -> list[landlock.Rule]:
    """What the worker may reach, by places inside; by places of the host where it has no root of its own."""
    inside = "rootfs" in order.layers
    spec = order.spec
    rules = [landlock.Rule("/", "look")] if inside else []
    rules += [
        landlock.Rule(mount.target if inside else mount.source, "write" if mount.writable else "run")
        for mount in spec.mounts
    ]
    rules += [landlock.Rule(each.target if inside else each.source, "write") for each in spec.kept()]
    if inside:
        rules += [landlock.Rule(tmpfs.target, "write") for tmpfs in spec.scratch()]
        # Nothing but the five devices is in there, and the scratch space has its own rule.
        return [*rules, landlock.Rule("/dev", "device")]
    rules += [landlock.Rule(place, "look") for place in _FACTS if os.path.exists(place)]
    return rules + [
        landlock.Rule(f"/dev/{name}", "device") for name in ("null", "zero", "full", "random", "urandom")
    ]


def _standard_streams(subject: Subject) -> None:
    streams = subject.told.streams
    for number, fd in enumerate(streams[:STREAMS]):
        os.dup2(fd, number)
    for number, fd in enumerate(streams[STREAMS:], FIRST_FREE_FD):
        os.dup2(fd, number)
    syscalls.close_range(FIRST_FREE_FD + len(streams[STREAMS:]))


def _hear_signals(_: Subject) -> None:
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def filter_of(spec: SandboxSpec, layers: frozenset[str], *more: str) -> filters.Filter:
    """The filter of a worker, with variants besides those that its layers ask for."""
    variants = filter_variants(spec.network, layers) | frozenset(more)
    return filters.filter_for(spec.seccomp, syscalls.MACHINE, variants)


def _load_zygote_filter(subject: Subject) -> None:
    subject.filter = filter_of(subject.told.spec, subject.told.layers, "zygote")


def _restrict_seccomp_uncounted(subject: Subject) -> None:
    # One process has one listener at most, and this one's calls are not yet any tenant's.
    if subject.filter is None:
        raise StepFailed("restrict-seccomp", 0, "no filter was loaded")
    syscalls.seccomp_filter(subject.filter.plain)


def _load_filter(subject: Subject) -> None:
    subject.filter = filter_of(subject.told.spec, subject.told.layers)


def _restrict_seccomp(subject: Subject) -> None:
    """Install the filter. The worker leaves refusals to its init, where the kernel can do that, else to the kernel."""
    if subject.filter is None:
        raise StepFailed("restrict-seccomp", 0, "no filter was loaded")
    if subject.init is not None:
        try:
            listener = syscalls.seccomp_listener(subject.filter.counting)
        except OSError as error:
            subject.init.send(b"uncounted " + (error.strerror or "").encode())
        else:
            socket.send_fds(subject.init, [b"counted"], [listener])
            os.close(listener)
            return
        syscalls.seccomp_filter(subject.filter.plain)
        return
    # What init does from now on does not depend on what the worker may do.
    syscalls.seccomp_filter(filters.filter_for("default", syscalls.MACHINE, frozenset()).plain)


STEPS: dict[str, Callable[[Subject], None]] = {
    "enter-cgroup": _enter_cgroup,
    "die-first": lambda _: privileges.die_first(),
    "new-session": lambda _: os.setsid(),
    "die-with-spawner": _die_with_spawner,
    "adopt-orphans": lambda _: privileges.adopt_orphans(),
    "unshare": lambda subject: syscalls.unshare(namespaces.unshare_flags(subject.layers)),
    "loopback-up": lambda _: namespaces.loopback_up(),
    "await-map": _await_map,
    "become-worker-user": lambda _: privileges.become(privileges.WORKER_ID, privileges.WORKER_ID),
    "become-worker-user-late": lambda subject: privileges.become(subject.told.uid, subject.told.uid),
    "private-mounts": lambda _: rootfs.make_private(),
    "mount-proc": _mount_proc,
    "forbid-user-namespaces": _forbid_user_namespaces,
    "seal-proc": lambda subject: rootfs.seal_proc(subject.proc),
    "open-egress": _open_egress,
    "assemble-root": _assemble_root,
    "enter-root": lambda _: rootfs.enter(),
    "leave-old-root": lambda _: rootfs.leave_old(),
    "set-hostname": lambda subject: syscalls.sethostname(subject.told.spec.name),
    "set-rlimits": _set_rlimits,
    "lock-capabilities": lambda _: privileges.lock_down(),
    "forbid-new-privileges": lambda _: privileges.forbid_new(),
    "scope-signals": _scope_signals,
    "attach-places": _attach_places,
    "restrict-landlock": _restrict_landlock,
    "restrict-landlock-coarsely": _restrict_landlock_coarsely,
    "forbid-everything": _forbid_everything,
    "die-with-init": _die_with_init,
    "drop-capabilities": lambda _: privileges.drop_capabilities(),
    "hide-memory": lambda _: privileges.hide_memory(),
    "own-session": lambda _: os.setsid(),
    "hear-signals": _hear_signals,
    "enter-directory": lambda subject: os.chdir(subject.told.spec.cwd),
    "standard-streams": _standard_streams,
    "show-memory": lambda _: privileges.show_memory(),
    "load-filter": _load_filter,
    "load-zygote-filter": _load_zygote_filter,
    "restrict-seccomp-uncounted": _restrict_seccomp_uncounted,
    "restrict-seccomp": _restrict_seccomp,
}
