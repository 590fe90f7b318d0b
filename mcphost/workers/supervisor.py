"""Keeping one worker set served: start, wait, restart with growing waits, give up visibly.

stopped ──call──> starting ──ready──> ready ──lost──> stopping ──> backoff ──> starting
                     │                                             │
                     └──────── failed too often ──> failed <───────┘
"""

import random
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from typing import Final, Literal

import anyio

from mcphost.decisions.restart import Again, GiveUp, Rest, RestartBudget
from mcphost.errors import McpHostError, WorkerFailed, WorkerUnavailable
from mcphost.telemetry.logs import logger
from mcphost.workers.ending import end_lost
from mcphost.workers.hub import Hub
from mcphost.workers.leases import Leases
from mcphost.workers.lending import Lending
from mcphost.workers.lifetime import background_tasks
from mcphost.workers.owners import Need, Owner
from mcphost.workers.reports import Identity
from mcphost.workers.settings import ServerSettings
from mcphost.workers.spares import Spares
from mcphost.workers.starting import PATIENCE_SECONDS, Origin, Surroundings
from mcphost.workers.toolnames import ToolNames
from mcphost.workers.worker import Worker

State = Literal["starting", "ready", "draining", "stopping", "stopped", "backoff", "failed"]

_AUDITED: Final = frozenset({"ready", "stopped", "backoff", "failed"})  # the others only lead to one of these


class WorkerSet:
    """The workers of one server for one owner: a main one, and those that calls have to themselves.

    Run by `run`, used by `lease`.
    """

    def __init__(
        self, settings: ServerSettings, owner: Owner, around: Surroundings, spares: Spares | None = None
    ) -> None:
        """`spares` are kept by somebody else; without them it keeps its own."""
        self.identity = Identity(settings.name, owner.tenant)
        self.settings = settings
        self.owner = owner
        self._around = around
        self._budget = RestartBudget(settings.restart)
        self._closed = False
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
        self._tool_names = ToolNames(lambda: self.worker)
        self.hub.watch_lists(self._tool_names.changed)
        self._layers: dict[str, str] = {}  # those that are shown
        self._keeps_spares = spares is None
        if spares is None:  # not its truth: an empty one is false
            spares = Spares(self.identity, settings, around.launcher, around.metrics, around.lane)
        self.spares = spares
        self._origin = Origin(self.identity, settings, around, self.spares, self.hub.overheard)
        self.leases = Leases(self._origin, lambda: self._usable)
        self._lending = Lending(settings, owner, around.client_info, self.leases, self.ready)
        around.metrics.worker_state(*self._labels, old=None, new=self.state)

    def __repr__(self) -> str:
        return f"<WorkerSet {self.identity.server}/{self.identity.tenant} {self.state}>"

    async def run(self) -> None:
        """Serve until cancelled, then leave no worker behind."""
        async with background_tasks() as tasks:
            if self._keeps_spares:
                tasks.start_soon(self.spares.run, self.at_rest)
            tasks.start_soon(self.hub.run)
            tasks.start_soon(self._tool_names.follow)
            self.leases.begin(tasks)
            try:
                while self.state != "failed":
                    await self._wanted.wait()
                    await self._serve_guarded()
                self.hub.close()
                if self._keeps_spares:
                    await self.spares.retire()
                await anyio.sleep_forever()
            finally:
                self._closed = True
                self.hub.close()
                self.leases.close()
                tasks.cancel_scope.cancel()  # now: all processes are ended at the same time
                with anyio.CancelScope(shield=True):  # every wait inside is bounded
                    await self._stop()

    def at_rest(self) -> bool:
        """Whether there is a worker, or nobody wants one: then is the time for spares."""
        return self.state == "ready" or (self.state == "stopped" and not self._wanted.is_set())

    def vanish(self) -> None:
        """It has ended, and is not to be counted any more."""
        self._around.metrics.worker_state(*self._labels, old=self.state, new=None)

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
                raise self._gone_for_good()
            self.want()  # in the loop: a worker that ends in order takes earlier wishes with it
            if self._closed:
                raise WorkerUnavailable("what this call belongs to is ending")
            wait = self._resume_at - anyio.current_time()
            if self.state == "backoff" and wait > PATIENCE_SECONDS:
                message = f"the server {self.identity.server!r} ended and is started again in {wait:.1f} s"
                raise WorkerUnavailable(message)
            await self._changed.wait()

    def lease(self, need: Need) -> AbstractAsyncContextManager[Worker]:
        """A ready worker that does what a call needs, for as long as the block lasts: one call or one call chain.

        The caller bounds the wait.

        Raises:
            WorkerUnavailable: there will be none soon.
            StartFailed: one that was started for this call did not get ready.
            WorkerGone: the process that the call was pinned to is no more.
            Overloaded: too many wait already.
        """
        return self._lending.lease(need)

    def share(self, need: Need) -> AbstractAsyncContextManager[Worker]:
        """A ready worker for requests that hear nothing, together with others: lists, and what completes arguments.

        Legacy servers may offer other things to clients that can be asked, so where `need` says that one can, it is a
        process that was told so; the main one only if no such process can be had at once.

        Raises:
            As `lease`.
        """
        return self._lending.share(need)

    @property
    def waiting(self) -> int:
        """Calls that wait for their turns at the main worker."""
        return self._lending.waiting

    def hold(self) -> AbstractContextManager[None]:
        """Be one of those for whom the workers of a session are kept, as who has a lease is."""
        return self._lending.presence.hold()

    async def wait_idle(self, seconds: float) -> None:
        """Wait until nobody has used the set for so long, and nobody listens."""
        await self._lending.presence.wait_idle(seconds)
        while self.hub.is_wanted:
            await self._lending.presence.wait_idle(seconds)

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
        try:
            worker = await self._origin.start(self._lending.terms, self._own)
        except McpHostError as error:
            await self._after_end(str(error), failed=True)
            return
        self.trouble = ""
        self._show_layers({each["layer"]: each["state"] for each in worker.layers})
        self.spares.renew()
        self._enter("ready")
        why = await worker.wait_lost()
        self.hub.detach()
        self.trouble = why
        self._enter("stopping")
        ended = await end_lost(worker, why)
        self._let_go()
        if ended.blameless:
            logger().warning("worker_ended", **self._keys, why=ended.why)
            return
        await self._after_end(ended.why, failed=ended.failed, was_ready=True)

    def _gone_for_good(self) -> WorkerFailed:
        return WorkerFailed(f"the server {self.identity.server!r} failed; its operator can see why")

    def _own(self, worker: Worker) -> None:
        self.worker = worker
        self.hub.attach(worker)

    @property
    def _usable(self) -> Worker | None:
        return self.worker if self.worker is not None and self.worker.usable else None

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
                self.leases.refuse(self._gone_for_good())
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
        self._show_layers({})
        return worker

    def _show_layers(self, layers: dict[str, str]) -> None:
        old, self._layers = self._layers, layers
        self._around.metrics.worker_layers(*self._labels, old=old, new=layers)

    def _enter(self, state: State) -> None:
        self._around.metrics.worker_state(*self._labels, old=self.state, new=state)
        self.state = state
        if state in _AUDITED:
            pid = self.worker.pid if self.worker is not None else None
            self._around.acted(f"worker-{state}", **self._keys, pid=pid, why=self.trouble)
        self.spares.wake()
        self.leases.arrange()
        self._changed.set()
        self._changed = anyio.Event()

    @property
    def _labels(self) -> tuple[str, str]:
        return self.identity.server, self.identity.tenant

    @property
    def _keys(self) -> dict[str, object]:
        return {"server": self.identity.server, "tenant": self.identity.tenant}
