"""The composition root: builds every object from the piece of the plan it needs, and owns what runs.

Lifetimes nest: the fork server outlives the pool, the pool outlives the front. Leaving the runtime stops the
workers, which fails what is still in flight, and then the fork server; whoever listens in front of the runtime
stops listening, and waits for calls under way, before.
"""

import itertools
import os
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final, Self

import anyio
import anyio.to_thread
import msgspec

import mcphost
from mcphost.broker import Around, Auditing, Broker, Caller, Tenant
from mcphost.broker.auditing import Kept
from mcphost.broker.calltime import AskingLimits
from mcphost.decisions.admission import Gate, ItemGates
from mcphost.decisions.guard import Guard
from mcphost.decisions.identity import (
    RANDOM_BYTES,
    Credential,
    Principal,
    Tokens,
    compose_token,
    digest_of,
)
from mcphost.decisions.permissions import Permissions
from mcphost.decisions.sealing import KEY_BYTES, Sealer, key_of
from mcphost.decisions.sessions import SessionLimits
from mcphost.decisions.turns import Party
from mcphost.errors import NotFound
from mcphost.grants import by_token, whole
from mcphost.plan import (
    Plan,
    ServerPlan,
    kept_places,
    worker_name,
)
from mcphost.policy import (
    Policy,
    RuntimeSettings,
    Secret,
    resolve_secrets,
)
from mcphost.policy import Tenant as PolicyTenant
from mcphost.preflight import make_plan, refuse_unbounded, refuse_unenforceable, size_limits, volume_directory
from mcphost.protocol import jsonrpc
from mcphost.telemetry.audit import Audit, recording
from mcphost.telemetry.metrics import Metrics
from mcphost.transports.admin import admin_app
from mcphost.transports.asgi import Receive, Scope, Send
from mcphost.transports.http import Access, HttpFront
from mcphost.transports.legacy import Clocks, LegacyFace
from mcphost.workers.keeping import make_kept, make_state
from mcphost.workers.kept_key import kept_key
from mcphost.workers.lifetime import background_tasks
from mcphost.workers.pool import Pool
from mcphost.workers.process import Launcher
from mcphost.workers.settings import SHARED, ServerSettings
from mcphost.workers.spares import SpareLane
from mcphost.workers.starting import Surroundings, unrecorded
from sandbox import (
    Diagnosis,
    Features,
    SandboxSpec,
    diagnose,
)

_WALL: Final = time.time  # noqa: TID251 - dates in the policy, and the days of quotas, are wall time

INFO: Final = jsonrpc.raw({"name": "mcphost", "version": mcphost.__version__})

# Who speaks for a tenant without a token: clients where the policy asks for none, and the program around the runtime.
# No token of a policy can have such an id.
_ANONYMOUS: Final = "(anonymous)"
_EMBEDDED: Final = "(embedded)"


@dataclass(frozen=True, slots=True)
class ShownToken:
    """A token made at start; `text` is to be shown once and kept nowhere."""

    tenant: str
    id: str
    text: Secret


class Runtime(anyio.AsyncContextManagerMixin):
    """One runtime for one policy; an async context manager that can be entered once."""

    def __init__(self, policy: Policy, *, environ: Mapping[str, str] | None = None) -> None:
        """`environ` is where `fromEnv` and PATH are read from; the process's own by default."""
        self._policy = policy
        self._environ = os.environ if environ is None else environ
        self._state = "new"
        self.metrics = Metrics(mcphost.__version__)
        self.shown_tokens: tuple[ShownToken, ...] = ()
        self._looking = anyio.Lock()
        self._diagnosis: Diagnosis | None = None
        self._audit: Audit | None = None
        self._features = Features(())
        self._front: HttpFront
        self._broker: Broker
        self.pool: Pool

    def __repr__(self) -> str:
        return f"<Runtime {self._state}>"

    @property
    def is_ready(self) -> bool:
        """Whether calls are taken and no worker is at its first start."""
        return self._state == "running" and self.pool.settled()

    def drain(self) -> None:
        """Say that no more calls are wanted: `is_ready` is false, and streams without an end of their own end."""
        self._state = "draining"
        self._front.drain()

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application for MCP clients. Mount it anywhere; it serves `/mcp` and `/servers/{name}/mcp`."""
        self._check_running()
        await self._front(scope, receive, send)

    async def call(
        self, *, tenant: str, server: str, tool: str, arguments: Mapping[str, object] | None = None
    ) -> dict[str, object]:
        """Call a tool for a tenant, with all that a client's call is subject to. Gives the tool's result.

        Raises:
            McpHostError: refused or failed; `ServerError` is the server's own JSON-RPC error.
        """
        self._check_running()
        caller = Caller(Principal(tenant, _EMBEDDED), server)
        if tenant not in self._policy.tenants or not self._broker.serves(caller):
            raise NotFound(f"the tenant {tenant!r} has no server {server!r}")
        result = await self._broker.call_tool(caller, tool, jsonrpc.raw(dict(arguments or {})))
        decoded: dict[str, object] = msgspec.json.decode(result)
        return decoded

    def _check_running(self) -> None:
        if self._state in {"new", "starting", "stopped"}:
            raise RuntimeError("the runtime is not running; enter it, for as long as it is to serve")

    def admin(self) -> object:
        """The ASGI application of the admin pages."""
        settings = self._policy.runtime
        hosts = [*settings.allowed_hosts, *([settings.admin.host] if settings.admin else [])]
        guard = Guard(hosts=hosts, origins=())
        return admin_app(self.pool, self.metrics, lambda: self.is_ready, guard, self.layers)

    async def layers(self) -> dict[str, object]:
        """What of the sandbox this machine has: `sandbox.diagnose` over what the fork server found at its start.

        Looked at once, since it starts a process and is shown to whoever asks.
        """
        self._check_running()
        async with self._looking:
            if self._diagnosis is None:
                self._diagnosis = await anyio.to_thread.run_sync(
                    diagnose, self._features, volume_directory(self._policy)
                )
        return self._diagnosis.to_wire()

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncIterator[Self]:
        """Start; entered once calls can be taken (eager servers may still be getting ready).

        On leaving every worker is stopped and nothing is left of any.
        """
        if self._state != "new":
            raise RuntimeError("a runtime runs once; make another")
        self._state = "starting"
        plan = await anyio.to_thread.run_sync(make_plan, self._policy, self._environ)
        if self._policy.runtime.state_dir is not None:
            await anyio.to_thread.run_sync(make_state, self._policy.runtime.state_dir)
        refuse_unbounded(plan, await anyio.to_thread.run_sync(size_limits, plan))
        resolved = resolve_secrets(self._policy, environ=self._environ)
        credentials = [
            _credential(each.digest, each.tenant, each.id, each.expires) for each in resolved.credentials
        ]
        credentials.extend(self._make_tokens())
        seal_key = await anyio.to_thread.run_sync(
            _seal_key, resolved.seal_key, self._policy.runtime.state_dir
        )
        async with self._recording() as self._audit, Launcher.open("mcphost") as launcher:
            refuse_unenforceable(self._policy, launcher.features)
            launcher.prepare(_zygote_shapes(plan, self._policy.runtime.state_dir))
            self._features = launcher.features
            starts = anyio.Semaphore(self._policy.runtime.start_concurrency)
            acted = unrecorded if self._audit is None else self._audit.act
            around = Surroundings(launcher, self.metrics, INFO, starts, SpareLane(starts), acted)
            settings = {
                name: _settings(server, resolved.secrets, self._policy.runtime)
                for name, server in plan.servers.items()
            }
            async with Pool(settings, around).open() as self.pool:
                tenants = {
                    name: Tenant(
                        name,
                        _permissions(self._policy.tenants[name]),
                        Gate(each.limits),
                        ItemGates(each.items),
                        Party(name, each.weight),
                    )
                    for name, each in plan.tenants.items()
                }
                sealer = Sealer(seal_key, secrets.token_bytes)
                limits = self._policy.runtime.limits
                asking = AskingLimits(limits.answer_time, limits.parked)
                parts = Around(self.pool, INFO, sealer, self.metrics, asking, _WALL)
                self._broker = Broker(parts, tenants, plan.routes, self._auditing())
                self._front, legacy = self._make_front(Tokens(credentials), sealer)
                self.pool.start_eager(_tenants_of(plan))
                self._state = "running"
                try:
                    async with self._broker.open(), background_tasks() as tasks:
                        tasks.start_soon(legacy.expire)
                        yield self
                finally:
                    self._state = "stopped"
                    self._front.drain()

    def _recording(self) -> AbstractAsyncContextManager[Audit | None]:
        settings = self._policy.audit
        if settings is None:
            return nullcontext()
        about = {"version": mcphost.__version__, "pid": os.getpid(), "policy": self._policy.place().file}
        return recording(settings.file, self.metrics, _WALL, required=settings.required, about=about)

    def _auditing(self) -> Auditing | None:
        settings = self._policy.audit
        if self._audit is None or settings is None:
            return None
        boot, numbers = secrets.token_hex(4), itertools.count(1)
        kept = Kept.of(settings.arguments, settings.redact)
        return Auditing(self._audit, kept, lambda: f"{boot}-{next(numbers)}")

    def _make_tokens(self) -> list[Credential]:
        """The tokens that the policy wants made at start."""
        made = []
        for tenant, settings in self._policy.tenants.items():
            for token in settings.tokens:
                if token.generate:
                    text = compose_token(secrets.token_bytes(RANDOM_BYTES))
                    self.shown_tokens += (ShownToken(tenant, token.id, Secret(text)),)
                    made.append(_credential(digest_of(text), tenant, token.id, token.expires))
        return made

    def _make_front(self, tokens: Tokens, sealer: Sealer) -> tuple[HttpFront, LegacyFace]:
        settings = self._policy.runtime
        hosts = [*settings.allowed_hosts, settings.listen.host]
        origins = list(settings.allowed_origins)
        if settings.public_url is not None:
            scheme, _, rest = settings.public_url.partition("://")
            hosts.append(rest.partition("/")[0])
            origins.append(f"{scheme}://{rest.partition('/')[0]}")
        anonymous = None
        if settings.auth == "none":
            anonymous = Credential(b"", Principal(next(iter(self._policy.tenants)), _ANONYMOUS))
        guard = Guard(hosts=hosts, origins=origins)
        access = Access(tokens, guard, anonymous, settings.limits.body, self._audit)
        limits = SessionLimits(settings.limits.sessions, settings.limits.session_idle)
        clocks = Clocks(_WALL, secrets.token_bytes)
        legacy = LegacyFace(self._broker, clocks, sealer, limits)
        for tenant in self._policy.tenants:
            self.metrics.watch_sessions(tenant, partial(legacy.open_sessions, tenant))
        return HttpFront(self._broker, access, legacy, clocks=clocks, metrics=self.metrics), legacy


def _seal_key(given: Secret | None, state_dir: str | None) -> bytes:
    """What handles are sealed with: what the policy names, or what is kept in `state_dir`, or this start's own."""
    if given is not None:
        return key_of(given.reveal())
    if state_dir is not None:
        return kept_key(state_dir, KEY_BYTES, secrets.token_bytes)
    return secrets.token_bytes(KEY_BYTES)


def _credential(digest: bytes, tenant: str, token_id: str, expires: datetime | None) -> Credential:
    return Credential(digest, Principal(tenant, token_id), expires.timestamp() if expires else None)


def _permissions(tenant: PolicyTenant) -> dict[str, Permissions]:
    return {_ANONYMOUS: whole(tenant), _EMBEDDED: whole(tenant), **by_token(tenant)}


def _tenants_of(plan: Plan) -> dict[str, list[str]]:
    return {
        server: [tenant.name for tenant in plan.tenants.values() if server in tenant.servers]
        for server in plan.servers
    }


def _zygote_shapes(plan: Plan, state_dir: str | None) -> list[SandboxSpec]:
    """One specification for each server whose workers are forked; whose volumes they are makes no difference."""
    real_state_dir = None if state_dir is None else os.path.realpath(state_dir)
    shapes = []
    for name, planned in plan.servers.items():
        if planned.sandbox.zygote is not None:
            tenant = SHARED if planned.server.scope == "shared" else "x"
            shapes.append(planned.sandbox.shape(kept_places(real_state_dir, tenant, name, planned.server)))
    return shapes


def _settings(
    server: ServerPlan, secrets_of: Mapping[str, Mapping[str, Secret]], runtime: RuntimeSettings
) -> ServerSettings:
    state_dir = runtime.state_dir
    real_state_dir = None if state_dir is None else os.path.realpath(state_dir)

    def sandbox(tenant: str) -> SandboxSpec:
        kept = kept_places(real_state_dir, tenant, server.name, server.server)
        for each in kept:
            make_kept(str(real_state_dir), each.path, sized=each.size_bytes is not None, other=each.other)
        known = secrets_of[tenant] if tenant != SHARED else {}
        return server.sandbox.fill(worker_name(server.name, tenant), known, kept)

    return ServerSettings(
        name=server.name,
        scope=server.server.scope,
        start=server.server.start,
        era=server.server.era,
        sandbox=sandbox,
        timeouts=server.timeouts,
        restart=server.restart,
        expect=server.expect,
        concurrency=server.server.concurrency,
        message_bytes=server.message_bytes,
        warm=server.server.warm,
        leases=server.server.leases,
        egress=server.egress,
        queue_seconds=runtime.limits.queue_time,
    )
