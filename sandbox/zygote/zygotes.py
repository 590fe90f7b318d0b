"""Zygotes and what comes from them, as the fork server holds them: who is asked for a worker, and when.

For each kind of specification (`zygote_plan.kind`) there is at most one zygote that is asked. It stands still except
while it imports and while it forks. One worker is kept made and looked at ahead of need, its place without anything of
a tenant's; a start then is: bring in what the specification adds, read back, say go. What is done to one zygote and to
one worker is in `sites`; here are the tables and the rules.
"""

import math
import os
import signal
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from sandbox import _confine, _readback, _worker, zygote_plan
from sandbox._ground import Ground
from sandbox._worker import Made, Worker
from sandbox.errors import SandboxSetupFailed, SandboxUnsupported
from sandbox.features import Features
from sandbox.messages import Event, Spawn, SpawnFailed
from sandbox.spec import SandboxSpec
from sandbox.volumes.shelves import Volumes
from sandbox.zygote import sites
from sandbox.zygote.sites import Job, Site, Zygote

# Imported modules are tens of MiB for each.
MAX_ZYGOTES = 16
# Workers of one zygote have address layout and hash seed in common, so that what one of them gives away is of use
# against the others: so many at most, at the price of one import each, some hundredth of a start.
MAX_FORKS = 64
MAX_AGE_SECONDS = 3600.0
# One that nobody asked for so long only holds memory.
IDLE_SECONDS = 900.0
# The largest packages take seconds to import.
IMPORT_TIMEOUT_SECONDS = 60.0
# Forking and looking is 20 ms.
FORK_TIMEOUT_SECONDS = 20.0
MAX_WAITING = 1024
# The next worker is made once the last one has had time for its first answer, for which that would take the cpu.
REFILL_SECONDS = 0.25
# After a failure nobody imports again before this has passed, doubled each time.
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 30.0
_MOST_DOUBLINGS = 10

Failure = SandboxSetupFailed | SandboxUnsupported


class House(Protocol):
    """The fork server, as far as zygotes need it."""

    def make(self, how: Made) -> Worker:
        """A prepared init, in the server's tables. Raises `SandboxSetupFailed`."""

    def begin(self, worker: Worker, descriptors: list[int]) -> None:
        """Have `Zygotes.seal` called as soon as the worker's volumes are there."""

    def run(self, worker: Worker) -> None:
        """The worker runs: tell."""

    def fail(self, worker: Worker, failure: Failure) -> None:
        """Note why, and kill."""

    def say(self, event: Event) -> None:
        """Tell the runtime."""

    def watch(self, fd: int) -> None:
        """Have `Zygotes.on_packet` called when there is something to be read."""

    def unwatch(self, fd: int) -> None:
        """Undo `watch`."""


@dataclass
class Kind:
    """One kind of workers: its zygote now, and who waits. `spec` holds nothing that is a tenant's."""

    spec: SandboxSpec
    used: float
    zygote: Zygote | None = None
    waiting: deque[Job] = field(default_factory=deque)
    failures: int = 0
    failure: Failure | None = None
    not_before: float = 0.0


def is_due(forks: int, age_seconds: float) -> bool:
    """Whether a zygote has served long enough to be replaced."""
    return forks >= MAX_FORKS or age_seconds >= MAX_AGE_SECONDS


def wait_seconds(failures: int) -> float:
    """How long nobody imports again after so many failures in a row."""
    return float(min(_FIRST_WAIT_SECONDS * 2 ** min(failures - 1, _MOST_DOUBLINGS), _LONGEST_WAIT_SECONDS))


class Zygotes:
    """All zygotes of one fork server. Nothing here waits."""

    def __init__(self, house: House, ground: Ground, features: Features, start_seconds: float) -> None:
        self._house = house
        self._ground = ground
        self._features = features
        self._start_seconds = start_seconds
        self._kinds: dict[str, Kind] = {}
        self._zygotes: dict[int, Zygote] = {}  # by the number of their init, the retired ones included
        self._sites: dict[int, Site] = {}  # by the number of theirs
        self._by_fd: dict[int, Zygote | Site] = {}
        self._refill_at = math.inf

    # What the runtime asks for

    def start(self, request: Spawn, descriptors: list[int], now: float) -> None:
        """Take a start; it is answered later. Raises `SandboxSetupFailed`, `SandboxUnsupported`."""
        plan = zygote_plan.decide_worker(request.spec, self._features)
        kind = self._kind(request.spec, now)
        if len(kind.waiting) >= MAX_WAITING:
            raise SandboxSetupFailed("zygote", 11, f"{MAX_WAITING} starts wait for it")
        if kind.failure is not None and kind.zygote is None and now < kind.not_before:
            # Not raised: it is kept, and would keep what its traceback leads to, this start's secrets among it.
            self._house.say(SpawnFailed(request.request, kind.failure))
            return
        streams = [os.dup(fd) for fd in descriptors]
        kind.waiting.append(Job(request.request, request.spec, plan, streams, now + self._start_seconds))
        self._advance(kind, now)

    def prepare(self, spec: SandboxSpec, now: float) -> None:
        """Have a zygote, and a worker of it, ready for the first start of this kind. Nothing is answered."""
        with suppress(SandboxSetupFailed, SandboxUnsupported):
            zygote_plan.decide_worker(spec, self._features)
            self._advance(self._kind(spec, now), now)

    def signal(self, worker: Worker, signum: int) -> None:
        """Send a signal to a worker that came from a zygote."""
        if (site := self._sites.get(worker.number)) is not None:
            with suppress(OSError):
                signal.pidfd_send_signal(site.pidfd, signum)

    def _kind(self, spec: SandboxSpec, now: float) -> Kind:
        name = zygote_plan.kind(spec)
        if name not in self._kinds:
            self._kinds[name] = Kind(zygote_plan.bare(spec), now)
        self._kinds[name].used = now
        return self._kinds[name]

    # The passing of time

    def moments(self, *, idle: bool) -> list[float]:
        """When there is something to do at the latest, what `idle` does included where it may."""
        times = [self._refill_at] if idle and self._refill_at < math.inf else []
        times += [zygote.deadline for zygote in self._zygotes.values() if zygote.busy and not zygote.retired]
        for kind in self._kinds.values():
            times.append(kind.used + IDLE_SECONDS)
            times += [job.deadline for job in list(kind.waiting)[:1]]
            times += [] if kind.zygote else [kind.not_before]
        return times

    def expire(self, now: float) -> None:
        """End what waited, or was waited for, too long; try again what failed long enough ago."""
        for name, kind in list(self._kinds.items()):
            while kind.waiting and kind.waiting[0].deadline <= now:
                timeout = SandboxSetupFailed("zygote", 110, "no worker was ready in time")
                self._refuse(kind.waiting.popleft(), timeout)
            if not kind.waiting and now >= kind.used + IDLE_SECONDS:
                del self._kinds[name]
                self._retire(kind.zygote)
            elif kind.zygote is None and now >= kind.not_before:
                self._advance(kind, now)
        for zygote in list(self._zygotes.values()):
            if zygote.busy and zygote.deadline <= now and not zygote.retired:
                late = SandboxSetupFailed("zygote", 110, f"not done in time ({zygote.state})")
                self._break(zygote, late)

    def idle(self, now: float) -> None:
        """Nothing else is to be done: replace what is due, make the next worker of each kind."""
        if now < self._refill_at:
            return
        self._refill_at = math.inf
        for kind in list(self._kinds.values()):
            if kind.zygote is not None:
                self._advance(kind, now)

    def close(self) -> None:
        """The fork server ends: nobody waits any more, and nothing is made."""
        for kind in self._kinds.values():
            for job in kind.waiting:
                job.close()
        self._kinds.clear()
        self._refill_at = math.inf

    # One kind

    def _advance(self, kind: Kind, now: float) -> None:
        """Do the next thing that can be done without waiting."""
        try:
            zygote = kind.zygote
            if zygote is not None and zygote.state == "still" and zygote.site is None:
                if is_due(zygote.forks, now - zygote.born):
                    kind.zygote = None
                    self._retire(zygote)
                    zygote = None
                else:
                    self._make_site(kind, zygote)
            if zygote is None and now >= kind.not_before:
                self._make_zygote(kind, now)
            elif zygote is None and kind.failure is not None:
                self._refuse_all(kind, kind.failure)
            elif zygote is not None and zygote.site and zygote.site.state == "spare" and kind.waiting:
                self._assign(kind, zygote, zygote.site)
        except (SandboxSetupFailed, SandboxUnsupported) as failure:
            self._note_failure(kind, failure)

    def _note_failure(self, kind: Kind, failure: Failure) -> None:
        kind.failures += 1
        failure.__context__ = None
        kind.failure, kind.not_before = (
            failure.with_traceback(None),
            time.monotonic() + wait_seconds(kind.failures),
        )
        self._refuse_all(kind, failure)

    def _refuse_all(self, kind: Kind, failure: Failure) -> None:
        while kind.waiting:
            self._refuse(kind.waiting.popleft(), failure)

    def _refuse(self, job: Job, failure: Failure) -> None:
        job.close()
        self._house.say(SpawnFailed(job.request, failure))

    def _make_zygote(self, kind: Kind, now: float) -> None:
        self._make_room(kind)
        spec = zygote_plan.zygote_spec(kind.spec, count_processes=self._ground.privileged)
        plan = zygote_plan.decide_zygote(spec, self._features)
        # Read and compiled here: where it is installed no profile can be read any more.
        _confine.filter_of(spec, plan.layers, "zygote")
        worker = self._house.make(Made(plan.layers, spec.disable, "zygote"))
        worker.phase, worker.deadline = "starting", now + IMPORT_TIMEOUT_SECONDS
        name = zygote_plan.kind(kind.spec)
        zygote = Zygote(worker, name, self._ground, born=now, deadline=worker.deadline)
        self._zygotes[worker.number] = kind.zygote = zygote
        try:
            zygote.begin(spec, plan, kind.spec)
        except SandboxSetupFailed as failure:
            self._break(zygote, failure)
            return
        self._watch(zygote)

    def _make_room(self, wanted: Kind) -> None:
        """End the zygote that was not asked for the longest time and is waited for by nobody, if it must be."""
        if sum(kind.zygote is not None for kind in self._kinds.values()) < MAX_ZYGOTES:
            return
        idle = [
            kind for kind in self._kinds.values() if kind.zygote and not kind.waiting and kind is not wanted
        ]
        if not idle:
            raise SandboxSetupFailed("zygote", 11, f"{MAX_ZYGOTES} zygotes are in use")
        kind = min(idle, key=lambda kind: kind.used)
        del self._kinds[zygote_plan.kind(kind.spec)]
        self._retire(kind.zygote)

    def _make_site(self, kind: Kind, zygote: Zygote) -> None:
        spec = kind.spec
        plan = zygote_plan.decide_worker(spec, self._features)
        worker = self._house.make(Made(plan.layers, spec.disable, "site", zygote.within()))
        zygote.deadline = time.monotonic() + FORK_TIMEOUT_SECONDS
        site = zygote.site = self._sites[worker.number] = Site(worker, zygote)
        try:
            sites.assemble(site, spec, plan)
        except SandboxSetupFailed as failure:
            self._house.fail(worker, failure)

    def _assign(self, kind: Kind, zygote: Zygote, site: Site) -> None:
        job = kind.waiting.popleft()
        zygote.site = None
        zygote.sites[site.worker.number] = site
        zygote.forks += 1
        now = time.monotonic()
        self._refill_at = now + REFILL_SECONDS
        sites.take(site, job)
        self._house.begin(site.worker, [])
        if kind.waiting:
            self._advance(kind, now)

    def seal(self, worker: Worker, volumes: Volumes) -> None:
        """The volumes of an assigned worker are there. Raises `SandboxSetupFailed`."""
        sites.seal(self._sites[worker.number], volumes)

    # What they say

    def on_packet(self, fd: int) -> None:
        """There is something to read at `fd`, or it was closed at the other end."""
        match self._by_fd.get(fd):
            case Zygote() as zygote if zygote.control is not None:
                if (heard := sites.hear(zygote.control)) is not None:
                    self._on_zygote(zygote, heard[0])
            case Site() as site if site.gate is not None:
                if (heard := sites.hear(site.gate)) is not None:
                    self._on_worker(site, *heard)

    def _on_zygote(self, zygote: Zygote, message: dict[str, object]) -> None:
        match message:
            case {"imported": True} if zygote.state == "importing":
                with suppress(OSError):
                    zygote.pidfd = os.pidfd_open(zygote.pid)
                zygote.stop()
            case {"forked": True} if zygote.state == "asked":
                zygote.forked = True
                self._stop_when_done(zygote)
            case {"failed": [str(step), int(number), str(detail)]}:
                self._break(zygote, SandboxSetupFailed(f"zygote-{step}"[:64], number, detail))
            case _:
                if not message:
                    self._unwatch(zygote)
                self._break(zygote, SandboxSetupFailed("zygote", 0, "it ended, or does not make sense"))

    def _on_worker(self, site: Site, message: dict[str, object], pid: int) -> None:
        match message:
            case {"poised": True} if site.state == "joining" and not site.pid:
                try:
                    sites.arrive(site, pid)
                except SandboxSetupFailed as failure:
                    self._house.fail(site.worker, failure)
                    return
                self._stop_when_done(site.zygote)
            case {"failed": [str(step), int(number), str(detail)]}:
                self._house.fail(site.worker, SandboxSetupFailed(step[:64], number, detail[:500]))
            case _:
                self._unwatch(site)
                self._house.fail(
                    site.worker, SandboxSetupFailed("zygote", 0, "the worker ended before it ran")
                )

    def _stop_when_done(self, zygote: Zygote) -> None:
        if zygote.forked and zygote.site is not None and zygote.site.pid:
            zygote.stop()

    def hear(self, worker: Worker, message: dict[str, object]) -> bool:
        """What the init of a zygote or of one of its workers says; False for what every init may say."""
        match message:
            case {"stopped": True} if worker.number in self._zygotes:
                self._on_stopped(self._zygotes[worker.number])
            case {"reaped": [int(pid), int() | None as code, int() | None as signum]} if (
                worker.number in self._zygotes
            ):
                self._on_reaped(self._zygotes[worker.number], pid, (code, signum))
            case {"ended": _} if worker.number in self._zygotes:
                zygote = self._zygotes[worker.number]
                if not zygote.retired and zygote.control is not None:
                    self.on_packet(zygote.control.fileno())  # it may have said why
                self._break(zygote, SandboxSetupFailed("zygote", 0, "it ended"))
            case {"assembled": True} if worker.number in self._sites:
                self._look(self._sites[worker.number])
            case {"hidden": True} if worker.number in self._sites:
                self._join(self._sites[worker.number])
            case {"sealed": True} if worker.number in self._sites:
                self._judge(self._sites[worker.number])
            case _:
                return False
        return True

    def _on_stopped(self, zygote: Zygote) -> None:
        if zygote.state != "stopping" or zygote.retired:
            return
        if faults := zygote.faults():
            self._break(zygote, sites.failure(faults))
            return
        zygote.state = "still"
        kind = self._kinds.get(zygote.kind)
        if zygote.site is not None:
            zygote.site.state = "spare"
        if kind is not None and kind.zygote is zygote:
            if zygote.site is not None:
                kind.failures, kind.failure, kind.not_before = 0, None, 0.0
            self._advance(kind, time.monotonic())

    def _on_reaped(self, zygote: Zygote, pid: int, ended: tuple[int | None, int | None]) -> None:
        living = [*zygote.sites.values(), *([zygote.site] if zygote.site else [])]
        for site in living:
            if site.inner_pid == pid:
                if site.state == "running":
                    site.worker.ended = ended
                    _worker.kill(site.worker)
                else:
                    early = SandboxSetupFailed("zygote", 0, "the worker ended before it ran")
                    self._house.fail(site.worker, early)

    def _look(self, site: Site) -> None:
        try:
            sites.look(site)
        except SandboxSetupFailed as failure:
            self._house.fail(site.worker, failure)

    def _join(self, site: Site) -> None:
        if site.state != "assembling" or site.zygote.retired or site.worker.failure:
            return
        try:
            site.zygote.deadline = time.monotonic() + FORK_TIMEOUT_SECONDS
            sites.join(site)
            self._watch(site)
        except SandboxSetupFailed as failure:
            self._house.fail(site.worker, failure)

    def _judge(self, site: Site) -> None:
        """Let the worker run if what the kernel says is what was planned."""
        worker = site.worker
        if site.state != "sealing" or worker.failure:
            return
        if (failure := self._misfit(site)) is not None:
            self._house.fail(worker, failure)
            return
        self._unwatch(site)
        try:
            sites.go(site)
        except SandboxSetupFailed as error:
            self._house.fail(worker, error)
        else:
            worker.uncounted = "it was forked from a zygote, whose own filter answers first"
            self._house.run(worker)

    @staticmethod
    def _misfit(site: Site) -> Failure | None:
        """Why the worker may not run; None when the kernel says that everything is as it was planned."""
        worker = site.worker
        spec, plan = worker.job()
        if spec.network == "proxy" and not _readback.is_way_out(worker.listener):
            return SandboxSetupFailed("open-egress", 0, "the socket did not arrive")
        try:
            worker.statuses = sites.statuses(site)
        except OSError as error:
            return SandboxSetupFailed("read-back", error.errno or 0)
        short = _readback.only_planned(worker.statuses, plan)
        return SandboxUnsupported(short) if short else None

    # Their ends

    def _break(self, zygote: Zygote, failure: Failure) -> None:
        """It is of no use any more, for a reason that whoever waits for it is told."""
        if zygote.retired:
            return
        kind = self._kinds.get(zygote.kind)
        self._retire(zygote)
        if kind is not None and kind.zygote is zygote:
            kind.zygote = None
            self._note_failure(kind, zygote.worker.failure or failure)

    def _retire(self, zygote: Zygote | None) -> None:
        """It forks no more; its init stays for the workers there are, whose namespaces lie below its own."""
        if zygote is None or zygote.retired:
            return
        zygote.retired = True
        if zygote.site is not None:
            _worker.kill(zygote.site.worker)
        zygote.kill()

    def forget(self, worker: Worker) -> None:
        """The init `worker` has ended, and everything below it."""
        if (site := self._sites.pop(worker.number, None)) is not None:
            self._forget_site(site)
        elif (zygote := self._zygotes.pop(worker.number, None)) is not None:
            self._unwatch(zygote)
            self._break(zygote, worker.failure or SandboxSetupFailed("zygote", 0, "its init ended"))
            zygote.close()

    def _forget_site(self, site: Site) -> None:
        zygote = site.zygote
        self._unwatch(site)
        site.close()
        zygote.sites.pop(site.worker.number, None)
        if zygote.site is site:
            zygote.site = None
            ended = SandboxSetupFailed("zygote", 0, "the init of its worker ended")
            self._break(zygote, site.worker.failure or ended)
        elif zygote.retired and not zygote.sites:
            zygote.kill()

    def _watch(self, of: Zygote | Site) -> None:
        end = of.control if isinstance(of, Zygote) else of.gate
        if end is not None:
            self._by_fd[end.fileno()] = of
            self._house.watch(end.fileno())

    def _unwatch(self, of: Zygote | Site) -> None:
        end = of.control if isinstance(of, Zygote) else of.gate
        if end is not None and self._by_fd.pop(end.fileno(), None) is not None:
            self._house.unwatch(end.fileno())

    def __contains__(self, fd: int) -> bool:
        """Whether `on_packet` is to be called for `fd`."""
        return fd in self._by_fd
