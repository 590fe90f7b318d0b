"""Warm spares: processes of a worker set that run and have not been spoken to, so that a start is a handshake only.

They are started one at a time in the whole runtime, when their set is at rest, and never in the way of a worker that
somebody waits for. One that ends while it waits is no crash of its server: it is replaced with growing waits, and no
more after as many ends as its server may have restarts, until a worker of the set has become ready again.
"""

import random
from collections import deque
from collections.abc import Callable
from typing import Final

import anyio
import anyio.abc

from mcphost.decisions.restart import Again, RestartBudget
from mcphost.errors import McpHostError
from mcphost.telemetry.logs import logger
from mcphost.telemetry.metrics import Metrics
from mcphost.workers.lifetime import background_tasks
from mcphost.workers.process import Launcher
from mcphost.workers.reports import Identity
from mcphost.workers.settings import ServerSettings
from mcphost.workers.worker import Worker

# In the whole runtime: each is a process with its memory and three pipes, which nobody may ever want.
MAX_SPARES: Final = 256

# From one spare's start to the next. Loading a program takes its processor longer than its start takes us.
PACE_SECONDS: Final = 0.5


class SpareLane:
    """What the spares of all worker sets share: one start at a time, and so many in all."""

    def __init__(self, starts: anyio.Semaphore) -> None:
        """`starts` bounds how many workers, spares among them, are starting at once."""
        self.starts = starts
        self.turn = anyio.Lock()
        self.places = anyio.Semaphore(MAX_SPARES)


class Spares:
    """The spares of one worker set. Kept by `run`, taken by `claim`."""

    def __init__(
        self,
        identity: Identity,
        settings: ServerSettings,
        launcher: Launcher,
        metrics: Metrics,
        lane: SpareLane,
    ) -> None:
        self._identity = identity
        self._settings = settings
        self._launcher = launcher
        self._metrics = metrics
        self._lane = lane
        self._waiting: deque[Worker] = deque()
        self._changed = anyio.Event()
        self.renew()

    def __repr__(self) -> str:
        return f"<Spares {len(self)} of {self._settings.warm}>"

    def __len__(self) -> int:
        return sum(spare.runs for spare in self._waiting)

    @property
    def given_up(self) -> bool:
        """Whether too many have ended by themselves."""
        return self._given_up

    @property
    def pids(self) -> list[int]:
        """The host pid of each one's init."""
        return [spare.pid for spare in self._waiting if spare.runs]

    async def run(self, may_add: Callable[[], bool]) -> None:
        """Keep as many as are wanted until cancelled, then leave none. More come only while `may_add` says so."""
        if not self._settings.warm:
            return
        try:
            async with background_tasks() as watchers:
                while True:
                    await self._wait_for_need(may_add)
                    await self._add(watchers, may_add)
        finally:
            with anyio.CancelScope(shield=True):  # bounded by the kills
                await self.clear()

    def claim(self) -> Worker | None:
        """The one that has waited longest, from now on the caller's."""
        for spare in self._waiting:
            if spare.runs:
                self._remove(spare)
                return spare
        return None

    def wake(self) -> None:
        """Look again whether more are wanted, and may be added."""
        self._changed.set()
        self._changed = anyio.Event()

    def renew(self) -> None:
        """Forget earlier failures: the server is known to work."""
        self._budget = RestartBudget(self._settings.restart)
        self._given_up = False
        self._resume_at = 0.0
        self.wake()

    async def retire(self) -> None:
        """Leave none, and make no more; one that is being made is ended as soon as it is there."""
        self._given_up = True
        await self.clear()

    async def clear(self) -> None:
        """End all of them."""
        async with anyio.create_task_group() as ending:
            for spare in list(self._waiting):
                self._remove(spare)
                ending.start_soon(spare.discard)

    async def _wait_for_need(self, may_add: Callable[[], bool]) -> None:
        while True:
            changed = self._changed
            if len(self._waiting) >= self._settings.warm or self._given_up or not may_add():
                await changed.wait()
                continue
            wait = self._resume_at - anyio.current_time()
            if wait <= 0:
                return
            await anyio.sleep(wait)

    async def _add(self, watchers: anyio.abc.TaskGroup, may_add: Callable[[], bool]) -> None:
        async with self._lane.turn:
            await self._lane.places.acquire()
            kept = False
            try:
                async with self._lane.starts:
                    if may_add():
                        kept = await self._start(watchers)
            finally:
                if not kept:
                    self._lane.places.release()
            if kept:
                await anyio.sleep(PACE_SECONDS)

    async def _start(self, watchers: anyio.abc.TaskGroup) -> bool:
        try:
            spare = await Worker.prepare(
                self._identity, self._settings, self._launcher, metrics=self._metrics
            )
        except McpHostError as error:
            self._failed(str(error))
            return False
        except Exception as error:  # noqa: BLE001 - a bug here must cost the set its spares only
            logger().exception("spare_broke", **self._keys)
            self._failed(f"internal error: {type(error).__name__}")
            return False
        if self._given_up:
            await spare.discard()
            return False
        self._waiting.append(spare)
        self._show()
        watchers.start_soon(self._watch, spare)
        return True

    async def _watch(self, spare: Worker) -> None:
        """See one to the end of its process; only one that still waits is our business then."""
        ended = await spare.wait_ended()
        if spare not in self._waiting:
            return
        self._remove(spare)
        await spare.discard()
        if ended.reason != "lost":  # with the fork server, which is nobody's failure here
            self._failed(f"it {ended}")
        self.wake()

    def _failed(self, why: str) -> None:
        # Spreads starts; nothing secret depends on it.
        jitter = random.random()  # noqa: S311
        now = anyio.current_time()
        verdict = self._budget.ended(now=now, failed=True, why=why, jitter=jitter)
        if isinstance(verdict, Again):
            self._resume_at = now + verdict.wait
            logger().warning("spare_ended", **self._keys, why=why, restart_in=round(verdict.wait, 3))
        else:
            self._given_up = True
            logger().error("spares_given_up", **self._keys, why=why)

    def _remove(self, spare: Worker) -> None:
        self._waiting.remove(spare)
        self._lane.places.release()
        self._show()
        self.wake()

    def _show(self) -> None:
        self._metrics.spare_workers(self._identity.server, self._identity.tenant, len(self._waiting))

    @property
    def _keys(self) -> dict[str, object]:
        return {"server": self._identity.server, "tenant": self._identity.tenant}
