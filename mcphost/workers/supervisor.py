"""Keeping one worker set served: start, wait, restart with growing waits, give up visibly.

stopped ──call──> starting ──ready──> ready ──lost──> stopping ──> backoff ──> starting
                     │                                             │
                     └──────── failed too often ──> failed <───────┘
"""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import anyio
from msgspec import Raw

from mcphost.decisions.restart import Again, GiveUp, Rest, RestartBudget
from mcphost.errors import McpHostError, Overloaded, WorkerFailed, WorkerGone, WorkerUnavailable
from mcphost.telemetry.logs import logger
from mcphost.telemetry.metrics import Metrics
from mcphost.workers.hub import Hub
from mcphost.workers.lifetime import background_tasks
from mcphost.workers.owners import Need, Terms
from mcphost.workers.process import Launcher
from mcphost.workers.settings import ServerSettings
from mcphost.workers.spares import SpareLane, Spares
from mcphost.workers.worker import LAST_WORDS_SECONDS, Identity, Worker

State = Literal["starting", "ready", "draining", "stopping", "stopped", "backoff", "failed"]

# A call that finds its server in back-off waits along if the wait is this short, else it is told to come again.
PATIENCE_SECONDS: Final = 2.0

TURN_SECONDS: Final = 2.0  # an interpreter and its imports are loaded by then

MAX_WAITING: Final = 1024  # calls that wait for a slot of one worker; past that they are refused


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every worker set of a runtime shares."""

    launcher: Launcher
    metrics: Metrics
    client_info: Raw
    starts: anyio.Semaphore  # how many workers may be starting at once
    lane: SpareLane


class WorkerSet:
    """The workers of one server for one tenant (or for all), one at a time. Run by `run`, used by `call`."""

    def __init__(self, settings: ServerSettings, tenant: str, around: Surroundings) -> None:
        self.identity = Identity(settings.name, tenant)
        self.settings = settings
        self._around = around
        self._budget = RestartBudget(settings.restart)
        self._slots = anyio.Semaphore(settings.concurrency)
        self._waiting = 0
        self._changed = anyio.Event()
        self._wanted = anyio.Event()
        self._resume_at = 0.0
        self.state: State = "stopped"
        self.trouble = ""
        self.worker: Worker | None = None
        self.hub = Hub(
            repr(self.identity),
            want=self.want,
            odd=partial(around.metrics.oddity, *self._labels),
            client_info=around.client_info,
        )
        self.spares = Spares(self.identity, settings, around.launcher, around.metrics, around.lane)

    def __repr__(self) -> str:
        return f"<WorkerSet {self.identity.server}/{self.identity.tenant} {self.state}>"

    async def run(self) -> None:
        """Serve until cancelled, then leave no worker behind."""
        async with background_tasks() as tasks:
            tasks.start_soon(self.spares.run, self._at_rest)
            tasks.start_soon(self.hub.run)
            try:
                while self.state != "failed":
                    await self._wanted.wait()
                    await self._serve_guarded()
                self.hub.close()
                await self.spares.retire()
                await anyio.sleep_forever()
            finally:
                self.hub.close()
                with anyio.CancelScope(shield=True):  # every wait inside is bounded
                    await self._stop()

    def _at_rest(self) -> bool:
        """Whether there is a worker, or nobody wants one: then is the time for spares."""
        return self.state == "ready" or (self.state == "stopped" and not self._wanted.is_set())

    def want(self) -> None:
        """Have a worker started if there is none."""
        self._wanted.set()

    @property
    def at_first_start(self) -> bool:
        """Whether a worker is wanted and none was ready or in trouble since."""
        return self._wanted.is_set() and self.state in {"stopped", "starting"} and not self.trouble

    async def ready(self) -> Worker:
        """The worker, once it is ready. The caller bounds the wait.

        Raises:
            WorkerUnavailable: there will be none soon.
        """
        while True:
            if self.worker is not None and self.worker.usable:
                return self.worker
            if self.state == "failed":
                raise WorkerFailed(f"the server {self.identity.server!r} failed; its operator can see why")
            self.want()  # in the loop: a worker that ends in order takes earlier wishes with it
            if self.state in {"stopping", "draining"} and self.trouble == "":
                raise WorkerUnavailable("the runtime is stopping")
            wait = self._resume_at - anyio.current_time()
            if self.state == "backoff" and wait > PATIENCE_SECONDS:
                message = f"the server {self.identity.server!r} ended and is started again in {wait:.1f} s"
                raise WorkerUnavailable(message)
            await self._changed.wait()

    @asynccontextmanager
    async def lease(self, need: Need) -> AsyncIterator[Worker]:
        """A ready worker that does what a call needs, for as long as the block lasts: one call or one call chain.

        The caller bounds the wait.

        Raises:
            WorkerUnavailable: there will be none soon.
            WorkerGone: the process that the call was pinned to is no more.
            Overloaded: too many wait already.
        """
        with await self.slot():
            worker = await self.ready()
            if need.instance and need.instance != worker.instance:
                raise WorkerGone
            yield worker

    async def slot(self) -> "_Slot":
        """A place among the calls that one worker may have at once; to be used as a context manager.

        Raises:
            Overloaded: too many wait already.
        """
        if self._waiting >= MAX_WAITING:
            raise Overloaded(f"{self._waiting} calls wait for this server", retry_after=1.0)
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        return _Slot(self._slots.release)

    async def _serve_guarded(self) -> None:
        try:
            await self._serve_one()
        except Exception as error:  # noqa: BLE001 - the boundary of one worker set: its bug must not end the others
            logger().exception("worker_set_broke", **self._keys)
            worker = self._let_go()
            if worker is not None:
                await worker.kill("killed")
            await self._after_end(f"internal error: {type(error).__name__}", failed=True)

    async def _serve_one(self) -> None:
        self._enter("starting")
        started_at = anyio.current_time()
        try:
            async with _turn(self._around.starts):
                spare = self.spares.claim()
                self.worker = await Worker.start(
                    self.identity,
                    self.settings,
                    self._around.launcher,
                    terms=Terms(self._around.client_info),
                    metrics=self._around.metrics,
                    prepared=spare,
                )
                self.hub.attach(self.worker)
        except McpHostError as error:
            self._around.metrics.worker_started(*self._labels, error.reason)
            await self._after_end(str(error), failed=True)
            return
        self._around.metrics.worker_started(*self._labels, "ready")
        self.trouble = ""
        layers = {each["layer"]: each["state"] for each in self.worker.layers}
        self._around.metrics.worker_layers(*self._labels, layers)
        seconds = round(anyio.current_time() - started_at, 3)
        facts = self.worker.facts
        logger().info(
            "worker_ready",
            **self._keys,
            era=facts.era,
            pid=self.worker.pid,
            seconds=seconds,
            spare=spare is not None,
        )
        self.spares.renew()
        self._enter("ready")
        why = await self.worker.wait_lost()
        self.hub.detach()
        self.trouble = why
        self._enter("stopping")
        ended = await self._end_lost(self.worker, why)
        if ended.blameless:
            logger().warning("worker_ended", **self._keys, why=ended.why)
            return
        await self._after_end(ended.why, failed=ended.failed, was_ready=True)

    async def _end_lost(self, worker: Worker, why: str) -> "_End":
        """See a lost worker's process to its end; one that does not end by itself is killed."""
        with anyio.move_on_after(LAST_WORDS_SECONDS):
            why = f"it {await worker.wait_ended()}"
        ended = await worker.kill("protocol")
        self._let_go()
        return _End(why, failed=ended.failed, blameless=ended.reason == "lost")

    async def _after_end(self, why: str, *, failed: bool, was_ready: bool = False) -> None:
        self.trouble = why
        # Spreads restarts; nothing secret depends on it.
        jitter = random.random()  # noqa: S311
        verdict = self._budget.ended(now=anyio.current_time(), failed=failed, why=why, jitter=jitter)
        match verdict:
            case Again(wait):
                if was_ready and len(self.spares):
                    wait = 0.0  # it is counted all the same, and none is made anew before a worker is ready
                self._resume_at = anyio.current_time() + wait
                logger().warning("worker_ended", **self._keys, why=why, restart_in=round(wait, 3))
                self._enter("backoff")
                await anyio.sleep(wait)
            case GiveUp(reason):
                self.trouble = reason
                logger().error("worker_failed", **self._keys, why=reason)
                self._enter("failed")
            case Rest():
                logger().info("worker_ended", **self._keys, why=why)
                self._wanted = anyio.Event()
                self._enter("stopped")

    async def _stop(self) -> None:
        worker = self._let_go()
        self.trouble = "" if self.state != "failed" else self.trouble
        self._enter("stopping")
        if worker is not None:
            await worker.stop()
        self._enter("stopped")

    def _let_go(self) -> Worker | None:
        """The worker, which is this set's no longer, with what was shown of its layers taken back."""
        worker, self.worker = self.worker, None
        self.hub.detach()
        self._around.metrics.worker_layers(*self._labels, {})
        return worker

    def _enter(self, state: State) -> None:
        self._around.metrics.worker_state(*self._labels, old=self.state, new=state)
        self.state = state
        self.spares.wake()
        self._changed.set()
        self._changed = anyio.Event()

    @property
    def _labels(self) -> tuple[str, str]:
        return self.identity.server, self.identity.tenant

    @property
    def _keys(self) -> dict[str, object]:
        return {"server": self.identity.server, "tenant": self.identity.tenant}


@asynccontextmanager
async def _turn(starts: anyio.Semaphore) -> AsyncIterator[None]:
    """A place among the starts under way, given back at the end or after `TURN_SECONDS`, whichever is first.

    The bound is there for the sake of the processors; a server that hangs uses none and must not keep others,
    perhaps of other tenants, from starting.
    """
    await starts.acquire()
    with ExitStack() as place:
        place.callback(starts.release)

        async def give_back() -> None:
            await anyio.sleep(TURN_SECONDS)
            place.close()

        async with background_tasks() as tasks:
            tasks.start_soon(give_back)
            yield


@dataclass(frozen=True, slots=True)
class _End:
    why: str
    failed: bool
    blameless: bool


class _Slot:
    """Holds one place until the block ends."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._release()
