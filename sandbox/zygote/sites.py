"""One zygote and one worker of it, as the fork server holds them: what is sent, what is opened, what is checked.

See `zygotes` for who is asked when, and `program` for the other end.
"""

import base64
import json
import os
import resource
import signal
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from sandbox import (
    _confine,
    _order,
    _readback,
    _worker,
    landlock,
    namespaces,
    privileges,
    rlimits,
    rootfs,
    zygote_plan,
)
from sandbox._ground import Ground
from sandbox._nest import Within
from sandbox._worker import Worker, attempt
from sandbox.egress.rules import EGRESS_PORT
from sandbox.errors import SandboxSetupFailed
from sandbox.layers import LayerStatus
from sandbox.rootfs import Source
from sandbox.spec import Mount, SandboxSpec
from sandbox.steps import Plan
from sandbox.volumes.shelves import Volumes
from sandbox.zygote import inspection

_CREDENTIALS_BYTES = 12  # struct ucred: pid, uid, gid (unix(7))
_MAX_REASONS = 600


@dataclass
class Job:
    """A start that waits for a worker; it owns its descriptors."""

    request: int
    spec: SandboxSpec
    plan: Plan
    streams: list[int]
    deadline: float

    def close(self) -> None:
        """Close the streams. May be called again."""
        while self.streams:
            os.close(self.streams.pop())


@dataclass
class Site:
    """A worker of a zygote: `worker` is its init, `pid` the worker itself once it has said that it is there."""

    worker: Worker
    zygote: "Zygote"
    state: Literal["assembling", "joining", "spare", "sealing", "running"] = "assembling"
    gate: socket.socket | None = None
    gate_name: str = ""
    pid: int = 0
    pidfd: int = -1
    inner_pid: int = 0
    job: Job | None = None
    place: inspection.Place | None = None
    namespaces: dict[str, int] = field(default_factory=dict)
    group: int = -1

    def close(self) -> None:
        """Give back every descriptor. May be called again."""
        while self.namespaces:
            os.close(self.namespaces.popitem()[1])
        if self.gate is not None:
            self.gate.close()
            self.gate = None
        for fd in (self.pidfd, self.group):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.group = -1
        if self.job is not None:
            self.job.close()


@dataclass
class Zygote:
    """A zygote and the init it lives under, `worker`. `site` is the worker in the making, or made ahead of need."""

    worker: Worker
    kind: str
    ground: Ground
    born: float
    deadline: float
    state: Literal["importing", "still", "asked", "stopping"] = "importing"
    control: socket.socket | None = None
    control_name: str = ""
    template: str = ""
    pidfd: int = -1
    pid_namespace: int = -1
    standings: tuple[inspection.Standing, inspection.Standing] | None = None
    forks: int = 0
    forked: bool = False
    retired: bool = False
    site: Site | None = None
    sites: dict[int, Site] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        """The zygote itself, as this machine counts."""
        return self.worker.poised[0] if self.worker.poised else 0

    @property
    def busy(self) -> bool:
        """Whether something is waited for, until `deadline`."""
        return self.state != "still" or (self.site is not None and self.site.state == "assembling")

    def within(self) -> Within:
        """Where its workers' inits are to be born."""
        return Within(self.pid_namespace, self.worker.uid)

    def begin(self, spec: SandboxSpec, plan: Plan, whole: SandboxSpec) -> None:
        """Give its init the order. `whole` is what its workers get in the end. Raises `SandboxSetupFailed`."""
        worker = self.worker
        worker.spec, worker.plan = spec, plan
        attempt("set-limits", lambda: worker.group.limit(spec.limits))
        self.control, theirs = inspection.channel()
        self.control_name = inspection.socket_name(theirs)
        self.pid_namespace = os.open(f"/proc/{worker.pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self.template = _hold_template(self.ground, whole)
        with theirs, open("/dev/null", "r+b", buffering=0) as nothing:
            streams = (*[nothing.fileno()] * 3, theirs.fileno())
            _send(worker, self.ground, self.template, spec.mounts, plan, streams)

    def stop(self) -> None:
        """Have it stopped; its init says when it is."""
        self.state = "stopping"
        _worker.tell(self.worker, {"stop": True})

    def faults(self) -> list[str]:
        """What is wrong with it while it stands still, and with the worker it was asked for last."""
        if self.control is None:
            return ["it has no channel"]
        living = [*self.sites.values(), *([self.site] if self.site and self.site.pid else [])]
        workers = frozenset(site.pid for site in living)
        try:
            before = inspection.turns(self.pid)
            faults = inspection.zygote_faults(
                self.pid, self.worker.pid, workers, self.control, self.control_name
            )
            faults += self._standing_faults()
            if not faults and self.site is not None:
                faults = self.site_faults(self.site)
                faults += inspection.left_behind(self.pid, self.worker.pid, workers)
                faults += self.left_inside(self.site)
            if inspection.turns(self.pid) != before:
                faults.append("it ran while it was looked at")
        except (OSError, LookupError, ValueError) as error:
            faults = [f"it cannot be looked at: {type(error).__name__}: {error}"]
        return faults

    def site_faults(self, site: Site) -> list[str]:
        """What is wrong with one of its workers."""
        if site.place is None:
            return ["its place was not looked at"]
        privileged = self.ground.privileged
        ids = inspection.Ids(
            uid=site.worker.uid,
            gid=site.worker.uid if privileged else os.getegid(),
            groups=frozenset() if privileged else frozenset(os.getgroups()),
        )
        faults = inspection.worker_faults(site.pid, site.place, self.pid, site.gate_name, ids)
        return faults + inspection.mapped_faults(self.pid, site.place)

    @staticmethod
    def left_inside(site: Site) -> list[str]:
        """Who else is in a worker's place. Asked last: whoever loses its parent in there comes to stay here."""
        return [f"process {child} was left beside it" for child in inspection.children(site.worker.pid)]

    def _standing_faults(self) -> list[str]:
        """Where it stood before it had any worker it has to stay: from inside a worker's root it would see its data."""
        found = inspection.standings(self.pid)
        self.standings = self.standings or found
        return [] if found == self.standings else ["it went to another directory or root"]

    def kill(self) -> None:
        """End the zygote; with it everything below its init when no worker is left there."""
        if self.sites:
            if self.pidfd >= 0:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        else:
            _worker.kill(self.worker)

    def close(self) -> None:
        """Give back what it held. May be called again."""
        if self.control is not None:
            self.control.close()
            self.control = None
        for fd in (self.pidfd, self.pid_namespace):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.pid_namespace = -1
        if self.template and self.ground.templates is not None:
            with suppress(OSError):
                self.ground.templates.drop(self.template)
            self.template = ""


def failure(faults: Iterable[str]) -> SandboxSetupFailed:
    """The failure that these faults are."""
    return SandboxSetupFailed("zygote", 0, "; ".join(faults)[:_MAX_REASONS])


def assemble(site: Site, spec: SandboxSpec, plan: Plan) -> None:
    """Have the worker's place made, without anything of a tenant's. Raises `SandboxSetupFailed`."""
    worker = site.worker
    worker.spec, worker.plan = spec, plan
    before, _ = zygote_plan.site_steps(plan)
    made = replace(plan, confine=before)
    _send(worker, site.zygote.ground, site.zygote.template, zygote_plan.early_mounts(spec), made, ())


def look(site: Site) -> None:
    """Open the namespaces of the place that is ready, and let its init hide itself. Raises `SandboxSetupFailed`."""
    pid = site.worker.pid
    site.place = attempt("join", lambda: inspection.place_of(pid))
    for layer in namespaces.FLAGS:
        if layer in site.worker.namespaces:
            path = f"/proc/{pid}/ns/{namespaces.PROC_NAMES[layer]}"
            site.namespaces[layer] = attempt("join", partial(os.open, path, os.O_RDONLY | os.O_CLOEXEC))
    _worker.tell(site.worker, {"hide": True})


def join(site: Site) -> None:
    """Ask the zygote for a worker in the place that is ready. Raises `SandboxSetupFailed`."""
    zygote, worker = site.zygote, site.worker
    spec, plan = worker.job()
    site.gate, theirs = inspection.channel()
    site.gate.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    site.gate_name = inspection.socket_name(theirs)
    born_in, entries = attempt("enter-cgroup", worker.group.entry)
    site.group = -1 if born_in is None else born_in
    names = list(site.namespaces)
    try:
        first = ("userns", "pidns")
        program = _confine.filter_of(spec, plan.layers).plain if "seccomp" in plan.layers else b""
        order = {
            "namespaces": names,
            "first": [[layer, namespaces.FLAGS[layer]] for layer in first],
            "then": [[layer, namespaces.FLAGS[layer]] for layer in names if layer not in first],
            "uid": privileges.WORKER_ID,
            "drop": "capabilities" in plan.layers,
            "filter": base64.b64encode(program).decode(),
        }
        _tell_zygote(zygote, order, [*site.namespaces.values(), theirs.fileno(), *entries])
    finally:
        theirs.close()
        for fd in (*site.namespaces.values(), *entries):
            os.close(fd)
        site.namespaces.clear()
    zygote.state, zygote.forked = "asked", False
    site.state = "joining"
    _worker.tell(zygote.worker, {"continue": True})


def _tell_zygote(zygote: Zygote, order: dict[str, object], descriptors: list[int]) -> None:
    if zygote.control is None:
        raise SandboxSetupFailed("zygote", 0, "it has no channel")
    control = zygote.control
    attempt("join", lambda: socket.send_fds(control, [json.dumps(order).encode()], descriptors))


def hear(end: socket.socket) -> tuple[dict[str, object], int] | None:
    """A packet from a zygote or worker, who are not trusted, with its sender; None when there is none.

    The pid is the kernel's word, or that of one who may pretend to be another in its own pid namespace: all of those
    are looked at. Descriptors nobody asked for are closed.
    """
    try:
        space = socket.CMSG_SPACE(_CREDENTIALS_BYTES) + socket.CMSG_SPACE(4 * 16)
        packet, ancillary, _, _ = end.recvmsg(_order.MAX_PACKET_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    except BlockingIOError:
        return None
    except OSError:
        return {}, 0
    pid = 0
    for _, kind, data in ancillary:
        if kind == socket.SCM_CREDENTIALS:
            (pid,) = struct.unpack_from("=i", data)
        elif kind == socket.SCM_RIGHTS:
            for (fd,) in struct.iter_unpack("=i", data[: len(data) // 4 * 4]):
                os.close(fd)
    with suppress(ValueError, RecursionError):
        value = json.loads(packet or b"{}")
        if isinstance(value, dict):
            return value, pid
    return {"failed": ["zygote", 0, "it does not make sense"]}, pid


def arrive(site: Site, pid: int) -> None:
    """The worker said that it is there. Raises `SandboxSetupFailed` when it is already gone.

    Of version 1 it has entered its groups by itself; of version 2 it is moved from here, who alone may (cgroup-v2.rst,
    "Delegation Containment").
    """
    site.pid = pid
    if site.group >= 0:
        procs = attempt(
            "enter-cgroup", lambda: os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=site.group)
        )
        try:
            attempt("enter-cgroup", lambda: os.write(procs, str(pid).encode()))
        finally:
            os.close(procs)
            os.close(site.group)
            site.group = -1
    site.pidfd = attempt("join", lambda: os.pidfd_open(pid))
    try:
        site.inner_pid = inspection.inner_pid(pid, site.zygote.worker.pid)
    except (OSError, LookupError, ValueError):
        raise SandboxSetupFailed("zygote", 3, "the worker is gone") from None


def take(site: Site, job: Job) -> None:
    """The worker is for this start."""
    worker = site.worker
    site.job, site.state = job, "sealing"
    worker.request, worker.plan = job.request, job.plan
    # Init needs no secret: the environment goes to the worker alone.
    worker.spec = replace(job.spec, env=())
    worker.phase, worker.deadline = "starting", job.deadline


def seal(site: Site, volumes: Volumes) -> None:
    """Bring in what is the tenant's, and let init give up what that needs. Raises `SandboxSetupFailed`.

    Volumes with a size must have been claimed and be there.
    """
    worker, ground, job = site.worker, site.zygote.ground, site.job
    if job is None:
        raise SandboxSetupFailed("seal", 0, "a worker without a start")
    attempt("set-limits", lambda: worker.group.limit(job.spec.limits))
    late = zygote_plan.late_targets(job.spec)
    sources: list[Source] = []
    try:
        mounts = [mount for mount in job.spec.mounts if mount.target in late]
        sources += attempt("open-mounts", lambda: rootfs.open_sources(mounts))
        _worker.open_volumes(worker, ground, volumes, sources)
        _, after = zygote_plan.site_steps(job.plan)
        told = _order.Order(
            replace(job.spec, env=()),
            job.plan.layers,
            after,
            (),
            (),
            worker.uid,
            (),
            root=-1,
            sources=tuple(sources),
        )
        attempt("send-order", lambda: _order.send(worker.gate, told))
    finally:
        for source in sources:
            os.close(source.fd)


def statuses(site: Site) -> tuple[LayerStatus, ...]:
    """What confines the worker, read back. Raises `OSError`."""
    spec, plan = site.worker.job()
    if "rlimits" in plan.layers and not site.zygote.ground.privileged:
        # The only limit that it could not inherit: its zygote's user has other processes (see `zygote_spec`). Of a
        # user of its own one would need CAP_SYS_RESOURCE, which root in a container seldom has (prlimit(2)).
        most = rlimits.wanted(spec.limits, grouped="cgroup.pids" in plan.layers).get(
            resource.RLIMIT_NPROC, resource.RLIM_INFINITY
        )
        _, hard = resource.prlimit(site.pid, resource.RLIMIT_NPROC)
        known = [limit for limit in (most, hard) if limit != resource.RLIM_INFINITY]
        lowered = min(known, default=resource.RLIM_INFINITY)
        resource.prlimit(site.pid, resource.RLIMIT_NPROC, (lowered, lowered))
    found = _readback.statuses(site.pid, spec, plan, site.worker.group, _readback.Evidence(0, None))
    if "landlock" not in plan.layers:
        return found
    # The worker's own rules are its own doing. Those it was born with are not.
    inherited = next(status for status in site.zygote.worker.statuses if status.layer == "landlock")
    row = replace(inherited, reason=f"applied before its imports, and inherited: {inherited.reason}")
    return tuple(row if status.layer == "landlock" else status for status in found)


def go(site: Site) -> None:
    """Let it run: with its environment, its arguments, its streams. Raises `SandboxSetupFailed`."""
    job, gate = site.job, site.gate
    if job is None or gate is None:
        raise SandboxSetupFailed("go", 0, "a worker without a start")
    zygote = zygote_plan.zygote_of(job.spec)
    told = {
        "argv": zygote.argv,
        "run": zygote.run,
        "env": dict(job.spec.env),
        "cwd": job.spec.cwd,
        "landlock": _finer_rules(job) if "landlock" in job.plan.layers else None,
    }
    attempt("go", lambda: socket.send_fds(gate, [json.dumps(told).encode()], job.streams))
    job.close()
    gate.close()
    site.gate, site.state = None, "running"
    # The next inits are forks of this process and must not carry this worker's secrets.
    site.job = None


def _finer_rules(job: Job) -> dict[str, object]:
    order = _order.Order(job.spec, job.plan.layers, (), (), (), 0, (), root=-1, sources=())
    port = EGRESS_PORT if job.spec.network == "proxy" else None
    return landlock.portable(_confine.landlock_rules(order), connect_port=port)


def _hold_template(ground: Ground, spec: SandboxSpec) -> str:
    """A root with room for everything that a worker of this kind gets, whether its zygote gets it or not."""
    templates = ground.templates
    if templates is None:
        raise SandboxSetupFailed("open-root", 0, ground.mounts_missing)
    sources = attempt("open-mounts", lambda: rootfs.open_sources(spec.mounts))
    targets = [(source.target, source.is_directory) for source in sources]
    for source in sources:
        os.close(source.fd)
    targets += [(volume.target, True) for volume in spec.kept()]
    return attempt("open-root", lambda: templates.hold(spec, targets))


def _send(
    worker: Worker,
    ground: Ground,
    template: str,
    mounts: Iterable[Mount],
    plan: Plan,
    streams: tuple[int, ...],
) -> None:
    """Hand an init its first order, with a copy of the template. Raises `SandboxSetupFailed`."""
    spec, _ = worker.job()
    templates = ground.templates
    if templates is None:
        raise SandboxSetupFailed("open-root", 0, ground.mounts_missing)
    sources = attempt("open-mounts", lambda: rootfs.open_sources(mounts))
    root = -1
    try:
        root = attempt("open-root", lambda: templates.copy(template))
        told = _order.Order(
            spec=spec,
            layers=plan.layers,
            confine=plan.confine,
            withdraw=plan.withdraw,
            finish=plan.finish,
            uid=worker.uid,
            streams=streams,
            root=root,
            sources=tuple(sources),
        )
        attempt("send-order", lambda: _order.send(worker.gate, told))
    finally:
        for fd in (root, *(source.fd for source in sources)):
            if fd >= 0:
                os.close(fd)
