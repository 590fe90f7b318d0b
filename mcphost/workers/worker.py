"""One worker: started (its program runs), ready (it took the handshake and offers what is expected), alive.

Three facts, kept apart: `start` returns only a ready worker, `wait_ended` tells when it is no more.
"""

import secrets
import signal
from contextlib import suppress
from functools import partial
from typing import Final

import anyio
import anyio.to_thread
from msgspec import Raw

from mcphost.errors import McpHostError, StartFailed, UpstreamProtocolError, WorkerDied
from mcphost.protocol import bridge, catalog, events, jsonrpc
from mcphost.protocol.bridge import Eras
from mcphost.protocol.events import ServerFacts
from mcphost.protocol.jsonrpc import EMPTY_OBJECT
from mcphost.protocol.methods import LISTS
from mcphost.protocol.upstream import Upstream
from mcphost.telemetry.logs import logger, printable
from mcphost.telemetry.metrics import Metrics
from mcphost.workers.connection import Build, Connection, InFlight
from mcphost.workers.dialing import Dialer
from mcphost.workers.egress import EgressProxy
from mcphost.workers.hearing import Hearer, OnNotified
from mcphost.workers.owners import Terms
from mcphost.workers.process import Ended, Launcher, Process
from mcphost.workers.reports import Identity, Reports
from mcphost.workers.settings import ServerSettings
from sandbox import Egress, KillReason, SandboxError

INSTANCE_BYTES: Final = 9  # unlike every other process of this and of earlier runtimes; not secret

LAST_WORDS_SECONDS: Final = 1.0  # from a worker's closed pipe to the status of its process

KILL_SECONDS: Final = 10.0  # after a kill the kernel needs moments; past this something is wrong with it


class Worker:
    """A ready worker."""

    def __init__(self, identity: Identity, settings: ServerSettings, metrics: Metrics) -> None:
        self.identity = identity
        self.instance = secrets.token_urlsafe(INSTANCE_BYTES)
        self._settings = settings
        self._metrics = metrics
        self._settled = anyio.Event()  # the handshake came to an end, good or bad
        self._refusal: str | None = None
        self._lost = anyio.Event()
        self._lost_why = ""
        self._reports = Reports(identity, metrics)
        self._process: Process
        self._connection: Connection
        self.terms: Terms
        self.facts: ServerFacts
        self.tools: frozenset[str] = frozenset()
        self.on_notified: OnNotified | None = None
        # Set by who has it on lease: the call goes on with another request, to this process and to no other.
        self.awaited = False
        self.asked_unbidden = False  # a request to the client came while nobody could be asked
        self._quiet = anyio.Event()
        self._unfit = anyio.Event()

    def __repr__(self) -> str:
        return f"<Worker {self.identity.server}/{self.identity.tenant} {self._lost_why or 'ready'}>"

    @classmethod
    async def start(
        cls,
        identity: Identity,
        settings: ServerSettings,
        launcher: Launcher,
        *,
        terms: Terms,
        metrics: Metrics,
        prepared: "Worker | None" = None,
    ) -> "Worker":
        """Spawn, or take a `prepared` one, shake hands, check what is expected.

        Nothing is left behind on failure or cancellation.

        Raises:
            StartFailed: with the reason.
        """
        worker = cls(identity, settings, metrics) if prepared is None else prepared
        await worker.get_ready(launcher if prepared is None else None, terms)
        return worker

    async def get_ready(self, launcher: Launcher | None, terms: Terms) -> None:
        """What `start` does; without a launcher the process is there already.

        Raises:
            StartFailed: with the reason.
        """
        try:
            with anyio.fail_after(self._settings.timeouts.start) as deadline:
                if launcher is not None:
                    await self._spawn(launcher)
                await self._connect(terms)
                try:
                    await self._shake_hands()
                    await self._check()
                except McpHostError:
                    await self._discard("protocol")
                    raise
                except BaseException:
                    # Cancelled: by the deadline above, or because the runtime stops.
                    await self._discard("timeout" if _passed(deadline) else "killed")
                    raise
        except TimeoutError:
            raise StartFailed(self._told(f"not ready within {self._settings.timeouts.start:g} s")) from None
        except (SandboxError, OSError) as error:
            raise StartFailed(f"could not be started: {error}") from None
        except McpHostError as error:
            raise StartFailed(self._told(str(error))) from None

    @classmethod
    async def prepare(
        cls, identity: Identity, settings: ServerSettings, launcher: Launcher, *, metrics: Metrics
    ) -> "Worker":
        """Spawn only: the program runs and is not spoken to, until `start` or `discard`.

        Raises:
            StartFailed: with the reason; nothing is left behind.
        """
        worker = cls(identity, settings, metrics)
        try:
            with anyio.fail_after(settings.timeouts.start):
                await worker._spawn(launcher)
        except TimeoutError:
            raise StartFailed(f"did not run within {settings.timeouts.start:g} s") from None
        except (SandboxError, OSError) as error:
            raise StartFailed(f"could not be started: {error}") from None
        return worker

    async def discard(self) -> None:
        """End one that was prepared and never started. Bounded, and not cut short by cancellation."""
        self._process.kill()
        with anyio.CancelScope(shield=True), anyio.move_on_after(KILL_SECONDS):
            self._reports.exited(self.pid, await self._process.wait_ended())
        self._process.close_pipes()

    @property
    def runs(self) -> bool:
        """Whether its process has not ended."""
        return self._process.ended is None

    @property
    def pid(self) -> int:
        """Host pid of the worker's init."""
        return self._process.pid

    @property
    def layers(self) -> list[dict[str, str]]:
        """The isolation in force, as read back from the kernel at start."""
        return [
            {"layer": each.layer, "state": each.state, "reason": each.reason} for each in self._process.layers
        ]

    @property
    def uncounted(self) -> str:
        """Why its denied system calls are not counted; empty when they are."""
        return self._process.uncounted

    @property
    def in_flight(self) -> int:
        """Calls on the wire."""
        return self._connection.in_flight

    @property
    def unsettled(self) -> bool:
        """Whether the server may still say something of a call that was cancelled."""
        return self._connection.unsettled

    def settle(self) -> None:
        """Take it that the server says no more of what was cancelled."""
        self._connection.settle()

    async def wait_quiet(self) -> None:
        """Wait until nothing that the server says can be about what it was asked so far. The caller bounds the wait.

        It answers in order what it has been told: everything before the answer to a ping was said before. What was
        cancelled is over when the server has answered it; it may never do so.

        Raises:
            CallFailure: it is lost.
        """
        if self.facts.era == "legacy":
            await self.request("ping", lambda _: {})
        while self.unsettled:
            self._quiet = anyio.Event()
            await self._quiet.wait()

    @property
    def usable(self) -> bool:
        """Whether a call may be sent."""
        return not self._lost.is_set()

    async def request(self, method: str, build: Build, hearer: Hearer | None = None) -> jsonrpc.Message:
        """Send a request; see `Connection.request`."""
        return await self._connection.request(method, build, hearer)

    async def list_all(self, method: str, *, capabilities: Raw = EMPTY_OBJECT) -> catalog.Gathered:
        """Every item of a list, all pages, as a modern server has it for a client of these capabilities.

        Raises:
            UpstreamProtocolError: an error, a malformed page, or pages without end.
        """
        gathered = catalog.Gathered(LISTS[method])
        params: jsonrpc.Fields = {}
        while True:
            answer = await self.request(method, self._own_params(params, capabilities))
            if answer.kind == "error":
                error = jsonrpc.error_object(answer.body)
                raise UpstreamProtocolError(f"{method} failed: {error.code} {printable(error.message)}")
            cursor = gathered.take(answer.body)
            if cursor is None:
                return gathered
            params = {"cursor": cursor}

    async def wait_lost(self) -> str:
        """Wait until the worker takes no more calls; gives why."""
        await self._lost.wait()
        return self._lost_why

    async def wait_unfit(self) -> None:
        """Wait until it is lost, or has asked something of a client while nobody could be asked."""
        await self._unfit.wait()

    async def wait_ended(self) -> Ended:
        """Wait until nothing of the worker is left."""
        return await self._process.wait_ended()

    async def stop(self) -> Ended:
        """End the worker: close its stdin, SIGTERM, kill, each after a bounded wait. Idempotent.

        Source of the order: 2025-11-25, basic/lifecycle, "Shutdown", stdio.
        """
        grace = self._settings.timeouts.stop
        self._connection.close_stdin()
        with anyio.move_on_after(grace):
            return await self._finish()
        self._process.signal(signal.SIGTERM)
        with anyio.move_on_after(grace):
            return await self._finish()
        return await self.kill("timeout")

    async def kill(self, reason: KillReason) -> Ended:
        """End the worker at once. One that the kernel cannot end in time is reported and given up on."""
        self._process.kill(reason)
        with anyio.move_on_after(KILL_SECONDS):
            return await self._finish()
        logger().error(
            "worker_does_not_die", server=self.identity.server, tenant=self.identity.tenant, pid=self.pid
        )
        self._connection.close()
        return self._reports.exited(self.pid, Ended(reason))

    async def _finish(self) -> Ended:
        ended = await self._process.wait_ended()
        self._connection.close()
        return self._reports.exited(self.pid, ended)

    async def _spawn(self, launcher: Launcher) -> None:
        # In a thread, for it makes directories.
        spec = await anyio.to_thread.run_sync(self._settings.sandbox, self.identity.tenant)
        self._process = await launcher.start(spec, self._reports.denied)
        if self._settings.egress is not None:
            launcher.look_after(
                partial(self._serve_egress, self._process, self._settings.egress),
                f"egress of {self.identity}",
            )

    async def _connect(self, terms: Terms) -> None:
        self.terms = terms
        machine: Upstream[InFlight] = Upstream(
            era=terms.era or self._settings.era,
            client_info=terms.client_info,
            declared=terms.declared,
            logs=terms.logs,
            one_client=terms.one_client,
        )
        self._connection = Connection(
            machine,
            message_bytes=self._settings.message_bytes,
            on_event=self._on_event,
            on_stderr=self._reports.stderr,
            on_lost=self._on_lost,
        )
        try:
            await self._connection.open(self._process)
        except BaseException:
            self._process.kill()
            raise

    async def _serve_egress(self, process: Process, egress: Egress) -> None:
        """The way out of one process, until that process has ended."""
        listener = process.take_listener()
        if listener is None:
            return  # it has ended meanwhile
        labels = (self.identity.server, self.identity.tenant)
        proxy = EgressProxy(listener, Dialer(egress), egress, labels=labels, metrics=self._metrics)
        try:
            async with proxy.serving():
                await process.wait_ended()
        except Exception:  # noqa: BLE001 - the boundary of one way out: its bug must not end other workers
            logger().exception("egress_broke", server=labels[0], tenant=labels[1])

    async def _shake_hands(self) -> None:
        await self._settled.wait()
        if self._lost.is_set():
            raise WorkerDied(await self._last_words())
        if self._refusal is not None:
            raise UpstreamProtocolError(f"the handshake was refused: {self._refusal}")

    async def _last_words(self) -> str:
        """Why a worker was lost: how its process ended says more than that its pipe closed."""
        with anyio.move_on_after(LAST_WORDS_SECONDS):
            return f"it {await self._process.wait_ended()} during the handshake"
        return f"{self._lost_why} during the handshake"

    async def _check(self) -> None:
        offered = frozenset(self.facts.capabilities)
        expected = self._settings.expect
        if missing := sorted(expected.capabilities - offered):
            raise StartFailed(f"lacks the capabilities {_names(missing)}; it has {_names(sorted(offered))}")
        if "tools" in offered:
            await self.learn_tools()
        if missing := sorted(expected.tools - self.tools):
            raise StartFailed(f"lacks the tools {_names(missing)}; it has {_names(sorted(self.tools))}")

    async def learn_tools(self) -> None:
        """Look at which tools there are, for the operator and for labels of metrics.

        Raises:
            UpstreamProtocolError: an error, a malformed page, or pages without end.
            WorkerDied: the worker was lost meanwhile.
        """
        listed = (jsonrpc.text(item.get("name")) for item in (await self.list_all("tools/list")).items)
        self.tools = frozenset(name for name in listed if name is not None)
        self._metrics.know_tools(self.identity.server, self.tools)

    async def _discard(self, reason: KillReason) -> None:
        self._process.kill(reason)
        with anyio.CancelScope(shield=True), suppress(TimeoutError), anyio.fail_after(KILL_SECONDS):
            await self._finish()

    def _own_params(self, params: jsonrpc.Fields, capabilities: Raw) -> Build:
        eras, told = Eras("legacy", self.facts.era), bridge.Told(capabilities)
        info = self.terms.client_info
        return lambda _: bridge.to_worker(params, {}, eras, token=None, client_info=info, told=told)

    def _told(self, what: str) -> str:
        connection: Connection | None = getattr(self, "_connection", None)
        tail = connection.stderr_tail if connection is not None else ()
        if not tail:
            return what
        return f"{what}; the end of its stderr: {printable(' | '.join(list(tail)[-5:]))}"

    def _on_event(self, event: events.Event[InFlight]) -> None:
        match event:
            case events.Opened(facts):
                self.facts = facts
                self._settled.set()
            case events.OpenFailed(message):
                self._refusal = message
                self._settled.set()
            case events.Notified(method, params, subscription):
                if self.on_notified is None:
                    self._reports.odd("notification")
                else:
                    self.on_notified(method, params, subscription)
            case events.AnsweredLate():
                self._quiet.set()
            case events.Offence(what) | events.Dropped(what) | events.Refused(what):
                if what == "unowned-request":
                    self.asked_unbidden = True
                    self._unfit.set()
                self._reports.odd(what)
            case _:
                pass

    def _on_lost(self, why: str) -> None:
        self._lost_why = why
        self._lost.set()
        self._unfit.set()
        self._settled.set()


def _passed(deadline: anyio.CancelScope) -> bool:
    return anyio.current_time() >= deadline.deadline


def _names(names: list[str]) -> str:
    return ", ".join(printable(name) for name in names[:20]) or "none"
