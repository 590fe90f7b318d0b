"""The fork server: one thread, one poll loop, the only holder of privilege. Its end is the end of every worker.

It never waits for a worker: a start is a state that packets move on, an end is one that a process descriptor announces.
What comes over the control socket is bounded and checked; nonsense is dropped, a spawn that makes no sense is answered.
Some inits are kept prepared ahead of need, since making namespaces and entering version 1 groups is most of a start.
"""

import gc
import math
import os
import resource
import select
import signal
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from typing import NoReturn

from sandbox import _readback, _rehearsal, _worker, privileges, syscalls
from sandbox._confine import IGNORED_SIGNALS
from sandbox._control import Control
from sandbox._ground import Ground, settle
from sandbox._memory_watch import MemoryWatch
from sandbox._spares import Spares
from sandbox._trial import examine
from sandbox._worker import Made, Worker
from sandbox.cgroups import tree
from sandbox.cgroups.groups import Driver
from sandbox.errors import SandboxSetupFailed, SandboxUnsupported
from sandbox.features import Features, exposes_spawner
from sandbox.layers import CGROUP_LAYERS, NAMESPACE_LAYERS
from sandbox.messages import (
    PROTOCOL_VERSION,
    Denied,
    Event,
    Hello,
    Kill,
    KillReason,
    MalformedMessage,
    Prepare,
    Signal,
    Spawn,
    SpawnFailed,
    SpecRefused,
    decode_request,
    encode_hello,
)
from sandbox.seccomp import filters
from sandbox.steps import decide, filter_variants
from sandbox.strays import end_strays
from sandbox.volumes.shelves import Volumes
from sandbox.zygote.zygotes import Zygotes

# A start is tens of milliseconds; a mount of something that hangs is what this bounds.
START_TIMEOUT_SECONDS = 20.0
MAX_WORKERS = 4096
_STREAMS = 3
_TIDY_MILLISECONDS = 10
# An init that was asked to end everyone of its own needs one signal for that, and time for them to be gone.
_END_SECONDS = 2.0
_LEFTOVERS_SECONDS = 5.0
# All that is ours is killed within moments. What is there after this long waits in the kernel, perhaps for a process to be
# reaped that somebody traces; our own end then does more for it than our staying, with no runtime left to kill us.
_LAST_SECONDS = 15.0

# A step shows whether it was taken; into which namespaces and groups one was made it does not show.
_SHAPING_LAYERS = frozenset(NAMESPACE_LAYERS) | frozenset(CGROUP_LAYERS)


class Server:
    """Everything the fork server knows. Its tables hold each worker by its number and by the descriptors to poll."""

    def __init__(self, control: Control, ground: Ground, driver: Driver, features: Features) -> None:
        self._control = control
        self._ground = ground
        self._driver = driver
        self._features = features
        self._poll = select.poll()
        self._by_number: dict[int, Worker] = {}
        self._ending: dict[int, float] = {}
        self._fading: deque[Worker] = deque()
        self._adopts = "pidns" not in features.applicable()
        self._by_gate: dict[int, Worker] = {}
        self._by_pidfd: dict[int, Worker] = {}
        self._memory = MemoryWatch(self._poll)
        self._leftovers: deque[Worker] = deque()
        self._last_number = 0
        self._usual = features.applicable()
        self._starting: dict[int, Worker] = {}
        self._spares = Spares()
        self._gone_by = math.inf
        templates = ground.templates
        self._volumes = Volumes(self._poll, templates.site if templates else None, ground.data_owner)
        self._zygotes = Zygotes(self, ground, features, START_TIMEOUT_SECONDS)

    def serve(self) -> None:
        """Until the runtime closes its side or dies; then every worker is ended and its groups are removed."""
        while not self._control.closed:
            self._poll.register(self._control, self._control.interest)
            self._turn()
        self._poll.unregister(self._control)
        self._spares.close()
        self._zygotes.close()
        for worker in list(self._by_number.values()):
            self._end(worker)
        self._gone_by = time.monotonic() + _LAST_SECONDS
        while (self._by_number or self._fading or self._volumes.busy) and time.monotonic() < self._gone_by:
            self._turn()
        deadline = time.monotonic() + _LEFTOVERS_SECONDS
        while self._leftovers and time.monotonic() < deadline:
            time.sleep(_TIDY_MILLISECONDS / 1000)
            self._remove_groups()
        self._driver.close()

    def _turn(self) -> None:
        ready = self._poll.poll(self._wait_milliseconds())
        self._expire()
        if not ready:
            self._idle()
        for fd, _ in ready:
            if fd == self._control.fileno():
                self._on_control()
            elif fd in self._by_gate:
                self._on_gate(self._by_gate[fd])
            elif fd in self._by_pidfd:
                self._on_end(self._by_pidfd[fd])
            elif fd in self._zygotes:
                self._zygotes.on_packet(fd)
            elif fd in self._volumes:
                self._on_volume(fd)
            else:
                self._memory.take(fd)
        self._memory.look()
        self._fade()

    def _wait_milliseconds(self) -> float | None:
        now = time.monotonic()
        waits = [worker.deadline - now for worker in self._starting.values() if worker.failure is None]
        if not self._starting and (wanted_in := self._spares.wanted_in(now)) is not None:
            waits.append(wanted_in)
        waits += [moment - now for moment in self._zygotes.moments(idle=not self._starting)]
        waits += [deadline - now for deadline in self._ending.values() if deadline < math.inf]
        if self._gone_by < math.inf:
            waits.append(self._gone_by - now)
        if self._leftovers or self._fading or self._memory.looking:
            waits.append(_TIDY_MILLISECONDS / 1000)
        # Rounded up, so that when it is over the moment has come.
        return math.ceil(max(0.0, min(waits)) * 1000) if waits else None

    def _expire(self) -> None:
        now = time.monotonic()
        for number in [number for number, deadline in self._ending.items() if deadline <= now]:
            # Once: what is left then is what the kernel cannot end.
            self._ending[number] = math.inf
            _worker.kill(self._by_number[number])
        self._zygotes.expire(now)
        for worker in self._starting.values():
            if worker.deadline <= now and worker.failure is None:
                self.fail(worker, SandboxSetupFailed("start", 110, f"not done in {START_TIMEOUT_SECONDS} s"))

    def _idle(self) -> None:
        self._remove_groups()
        # Not beside a start: making a spare holds locks of the kernel's that the start would wait for.
        if not self._starting:
            self._zygotes.idle(time.monotonic())
        if not self._starting and self._spares.wanted_in(time.monotonic()) == 0:
            try:
                spare = self.make(Made(self._usual, is_spare=True))
            except SandboxSetupFailed:
                self._spares.give_up()
            else:
                self._spares.add(spare, time.monotonic())
                _rehearsal.as_fork_server(spare.pid, spare.group, self._features)

    # What the runtime asks for

    def _on_control(self) -> None:
        self._control.flush()
        with self._control.receive() as (packet, descriptors):
            if packet:
                self._handle(packet, descriptors)

    def _handle(self, packet: bytes, descriptors: list[int]) -> None:
        try:
            request = decode_request(packet)
        except MalformedMessage:
            return
        except SpecRefused as refused:
            failure = SandboxSetupFailed("read-specification", 22, refused.error.message)
            self._control.say(SpawnFailed(refused.request, failure))
            return
        match request:
            case Spawn():
                self._start(request, descriptors)
            case Prepare(spec):
                self._zygotes.prepare(spec, time.monotonic())
            case Signal(number, signum):
                worker = self._by_number.get(number)
                if worker and worker.phase == "running" and signum in signal.valid_signals():
                    self._signal(worker, signum)
            case Kill(number, reason):
                worker = self._by_number.get(number)
                if worker and worker.phase == "running":
                    self._end(worker, reason)

    def _signal(self, worker: Worker, signum: int) -> None:
        if worker.role == "worker":
            _worker.tell(worker, {"signal": signum})
        else:
            self._zygotes.signal(worker, signum)

    def _start(self, request: Spawn, descriptors: list[int]) -> None:
        try:
            if len(descriptors) != _STREAMS:
                _refuse_descriptors(descriptors)
            if request.spec.zygote is not None:
                self._zygotes.start(request, descriptors, time.monotonic())
                return
            worker = self._assign(request)
        except (SandboxSetupFailed, SandboxUnsupported) as error:
            self._control.say(SpawnFailed(request.request, error))
            return
        self.begin(worker, descriptors)

    def begin(self, worker: Worker, descriptors: list[int]) -> None:
        """Start a worker that knows its request and is prepared; `descriptors` stay the caller's."""
        self._starting[worker.number] = worker
        try:
            spec, plan = worker.job()
            has_root = "rootfs" in plan.layers
            if self._volumes.claim(worker.number, spec, descriptors, has_root=has_root):
                self._order(worker, descriptors)
        except SandboxSetupFailed as error:
            self.fail(worker, error)

    def _order(self, worker: Worker, descriptors: list[int]) -> None:
        if worker.role == "worker":
            _worker.order(worker, self._ground, descriptors, self._volumes)
        else:
            self._zygotes.seal(worker, self._volumes)

    def _on_volume(self, pidfd: int) -> None:
        """Go on with whoever waited for it."""
        for number, streams, failure in self._volumes.finish(pidfd):
            worker = self._by_number[number]
            try:
                if failure is not None:
                    self.fail(worker, failure)
                elif worker.failure is None:
                    self._order(worker, streams)
            except SandboxSetupFailed as error:
                self.fail(worker, error)
            finally:
                for fd in streams:
                    os.close(fd)

    def _assign(self, request: Spawn) -> Worker:
        """An init for the request: a spare one when it is prepared in just this way."""
        plan = decide(request.spec, self._features)
        usual = not request.spec.disable & _SHAPING_LAYERS
        worker = self._spares.take(plan.prepare) if usual else None
        if worker is None:
            worker = self.make(Made(plan.layers, request.spec.disable))
        self._spares.want(time.monotonic())
        worker.request, worker.spec, worker.plan = request.request, request.spec, plan
        worker.phase, worker.deadline = "starting", time.monotonic() + START_TIMEOUT_SECONDS
        return worker

    # What zygotes need of the fork server, too

    def make(self, how: Made) -> Worker:
        """A prepared init, in the tables. Raises `SandboxSetupFailed`."""
        if len(self._by_number) >= MAX_WORKERS:
            raise SandboxSetupFailed("clone", 11, f"{MAX_WORKERS} workers are running")
        self._last_number += 1
        try:
            worker = _worker.make(self._last_number, self._ground, self._driver, how)
        except OSError as error:
            raise SandboxSetupFailed("clone", error.errno or 0, str(error.args[-1])) from None
        self._by_number[worker.number] = worker
        self._by_gate[worker.gate.fileno()] = worker
        self._by_pidfd[worker.pidfd] = worker
        self._poll.register(worker.gate, select.POLLIN)
        self._poll.register(worker.pidfd, select.POLLIN)
        self._memory.add(worker)
        return worker

    def fail(self, worker: Worker, failure: SandboxSetupFailed | SandboxUnsupported) -> None:
        """Note why it does not start, the first time, and end it."""
        worker.failure = worker.failure or failure
        self._end(worker)

    def run(self, worker: Worker) -> None:
        """Its program runs."""
        worker.phase = "running"
        self._starting.pop(worker.number, None)
        if worker.role != "zygote":
            self._control.say(_worker.spawned(worker))

    def say(self, event: Event) -> None:
        """Tell the runtime."""
        self._control.say(event)

    def watch(self, fd: int) -> None:
        """Call `Zygotes.on_packet` when there is something to be read."""
        self._poll.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        """Undo `watch`."""
        self._poll.unregister(fd)

    # A worker's life

    def _on_gate(self, worker: Worker) -> bool:
        """Take one packet from init's side; whether there was one."""
        received = _worker.receive(worker)
        if received is None:
            return False
        message, sender = received
        if worker.role != "worker" and self._zygotes.hear(worker, message):
            return True
        match message:
            case {"failed": [str(step), int(number), str(detail)]}:
                self.fail(worker, SandboxSetupFailed(step, number, detail))
            case {"poised": [int(abi), denial]} if worker.phase == "starting":
                seen = denial if isinstance(denial, str) else None
                worker.poised = sender, _readback.Evidence(abi, seen)
                self._judge(worker)
            case {"confined": True} if worker.phase == "starting":
                worker.confined = True
                self._judge(worker)
            case {"running": True, "uncounted": str(why)} if (
                worker.phase == "starting" and worker.failure is None
            ):
                worker.uncounted = why
                self._run(worker)
            case {"denied": dict(calls)} if worker.phase == "running":
                _worker.count_denied(worker, calls)
                self._say_denied(worker)
            case {"ended": [int() | None as code, int() | None as signum]}:
                worker.ended = (code, signum)
            case _ if not message:
                self._forget_gate(worker)
        return bool(message)

    def _say_denied(self, worker: Worker, *, last: bool = False) -> None:
        """Pass on what was counted, once the runtime has taken what was said before; until then it adds up."""
        if worker.denied_unsaid and (last or not self._control.waiting):
            self._control.say(Denied(worker.number, worker.denied_unsaid))
            worker.denied_unsaid = {}

    def _forget_gate(self, worker: Worker) -> None:
        if self._by_gate.pop(worker.gate.fileno(), None):
            self._poll.unregister(worker.gate)

    def _run(self, worker: Worker) -> None:
        if worker.statuses:
            self.run(worker)
        else:
            self.fail(worker, SandboxSetupFailed("start", 0, "the worker ended before the program ran"))

    def _judge(self, worker: Worker) -> None:
        """Once both its sides are there: let the worker run if what the kernel says is what was planned."""
        if worker.poised is None or not worker.confined or worker.failure is not None:
            return
        pid, evidence = worker.poised
        spec, plan = worker.job()
        if "open-egress" in plan.confine and not _readback.is_way_out(worker.listener):
            self.fail(worker, SandboxSetupFailed("open-egress", 0, "the socket did not arrive"))
            return
        try:
            found = _readback.statuses(pid, spec, plan, worker.group, evidence)
        except OSError as error:
            self.fail(worker, SandboxSetupFailed("read-back", error.errno or 0))
            return
        if short := _readback.only_planned(found, plan):
            self.fail(worker, SandboxUnsupported(short))
            return
        worker.statuses = found
        if number := _worker.tell(worker, {"go": True}):
            self.fail(worker, SandboxSetupFailed("send-go", number))

    def _end(self, worker: Worker, reason: KillReason = "killed") -> None:
        worker.killed = worker.killed or reason
        if worker.number not in self._ending and _worker.ask_to_end(worker):
            self._ending[worker.number] = time.monotonic() + _END_SECONDS
        else:
            _worker.kill(worker)

    def _on_end(self, worker: Worker) -> None:
        """The init is a zombie, its namespace empty: read what it still said, count, tell, tidy."""
        if not _worker.has_ended(worker):
            return  # an event for an earlier worker whose descriptor had this number
        while self._on_gate(worker):
            pass
        self._forget_gate(worker)
        self._memory.forget(worker)
        self._poll.unregister(worker.pidfd)
        del self._by_pidfd[worker.pidfd], self._by_number[worker.number]
        self._starting.pop(worker.number, None)
        self._spares.lose(worker, time.monotonic())
        _worker.bury(worker, self._ground)
        self._volumes.drop(worker.number)
        worker.group.kill()
        self._zygotes.forget(worker)
        self._ending.pop(worker.number, None)
        if self._adopts:
            self._fading.append(worker)
            self._fade()
        else:
            self._settle(worker)

    def _fade(self) -> None:
        """Without a pid namespace an init may have left somebody; its worker is over when nobody is left."""
        if self._fading and end_strays({worker.pid for worker in self._by_number.values()}):
            for worker in self._fading:
                self._settle(worker)
            self._fading.clear()

    def _settle(self, worker: Worker) -> None:
        if worker.request < 0:
            pass  # a spare one or a zygote: nobody was promised it
        elif worker.phase == "running":
            self._say_denied(worker, last=True)
            self._control.say(_worker.exited(worker))
        elif worker.phase == "starting":
            default = SandboxSetupFailed("start", 0, "the worker's init ended before the program ran")
            self._control.say(SpawnFailed(worker.request, worker.failure or default))
        self._leftovers.append(worker)
        self._remove_groups()

    def _remove_groups(self) -> None:
        for _ in range(len(self._leftovers)):
            worker = self._leftovers.popleft()
            if not worker.group.remove():
                worker.group.kill()
                self._leftovers.append(worker)


def _settle_signals() -> None:
    """Everything as the kernel has it by default but for a few, so that no init needs to look after that.

    The runtime decides when this ends, by closing the socket; a signal to the whole service is not that.
    """
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN if number in IGNORED_SIGNALS else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _refuse_descriptors(descriptors: list[int]) -> NoReturn:
    raise SandboxSetupFailed("read-request", 22, f"{len(descriptors)} descriptors, not {_STREAMS}")


def main(descriptor: int, label: str) -> NoReturn:
    """Be the fork server on the control socket `descriptor`; `label` is part of its control groups' names."""
    _settle_signals()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    tree.sweep()
    driver = tree.open_driver(label)
    ground = settle()
    features = examine(ground, driver)
    # Read and compiled once here: every worker finds it done, in a root that holds no profile.
    if features.has("seccomp"):
        filters.overlays()
        usual = features.applicable()
        for profile in filters.SHIPPED:
            filters.filter_for(profile, syscalls.MACHINE, filter_variants("none", usual))
    if "pidns" not in features.applicable():
        privileges.adopt_orphans()
    if exposes_spawner(features, os.geteuid()) and not features.has("userns"):
        # Every init inherits it. Where they have users to be mapped they have to be open for that.
        privileges.hide_memory()
    _rehearsal.prepare()
    # What stands now stays: no collection here or in an init writes to its pages, which all of them share.
    gc.collect()
    gc.freeze()
    if len(os.listdir("/proc/self/task")) != 1:
        raise RuntimeError("the fork server must have one thread")
    with suppress(OSError):
        # Where the runtime has died meanwhile, the socket says so once more and everything is tidied up.
        control.send(encode_hello(Hello(PROTOCOL_VERSION, features.layers, features.without_proc)))
    Server(Control(control), ground, driver, features).serve()
    sys.exit(0)
