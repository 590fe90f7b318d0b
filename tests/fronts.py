"""The HTTP front behind a real socket, before a broker that is a function of the test: no worker, no sandbox."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
from msgspec import Raw

from harness import SECONDS, LegacyClient, ModernClient, token_of
from mcphost.broker import Caller, Client, Reply
from mcphost.broker.client import LegacySession
from mcphost.decisions.guard import Guard
from mcphost.decisions.identity import Credential, Principal, Tokens, digest_of
from mcphost.decisions.routing import DEFAULT_ROUTES, Route
from mcphost.decisions.sealing import KEY_BYTES, Sealer
from mcphost.decisions.sessions import SessionLimits
from mcphost.protocol import downstream, jsonrpc
from mcphost.protocol.downstream import Face
from mcphost.protocol.envelope import Inbound
from mcphost.telemetry.metrics import Metrics
from mcphost.transports.http import Access, HttpFront
from mcphost.transports.legacy import Clocks, LegacyFace
from mcphost.transports.listener import Listener, bind

KEY = bytes(KEY_BYTES)
LIMITS = SessionLimits(10, 60.0)
FACE = Face({"tools": {}}, jsonrpc.raw({"name": "fake", "version": "1"}), None)

Answer = Callable[[Inbound, Client], Awaitable[Raw]]


@dataclass
class FakeBroker:
    """Shakes hands by itself, and leaves the rest to `answer`. Keeps what the front told it."""

    answer_with: Answer
    clients: list[Client] = field(default_factory=list)
    ended: list[LegacySession] = field(default_factory=list)
    charged: int = 0
    routes: Mapping[str, Route] = field(default_factory=lambda: DEFAULT_ROUTES)

    def serves(self, caller: Caller) -> bool:
        return caller.server in {None, "fix"}

    async def answer(self, _: Caller, inbound: Inbound, client: Client) -> Reply:
        self.clients.append(client)
        if inbound.method == "initialize":
            version, result = downstream.initialize_result(inbound.params, FACE)
            return Reply(jsonrpc.encode_answer(inbound.id, result), version=version)
        return Reply(jsonrpc.encode_answer(inbound.id, await self.answer_with(inbound, client)))

    def charge(self, _: Caller) -> None:
        self.charged += 1

    def begin_session(self, caller: Caller, client: Client) -> None:
        """A session that listens is told nothing here but what a test sends."""

    def end_session(self, session: LegacySession) -> None:
        self.ended.append(session)


@dataclass
class Fronted:
    """A front that listens, and clients for it."""

    http: httpx.AsyncClient
    broker: FakeBroker
    front: HttpFront
    legacy_face: LegacyFace
    listener: Listener | None = None

    def modern(self) -> ModernClient:
        return ModernClient(self.http, "/mcp", "acme")

    async def legacy(self, **capabilities: Any) -> LegacyClient:
        client = LegacyClient(self.http, "/mcp", "acme")
        await client.initialize(**capabilities)
        return client


async def nothing(_: Inbound, __: Client) -> Raw:
    return jsonrpc.EMPTY_OBJECT


def made(
    answer: Answer,
    wall: Callable[[], float],
    limits: SessionLimits,
    expires_at: float | None,
    origins: tuple[str, ...],
) -> tuple[FakeBroker, LegacyFace, HttpFront]:
    """A front and what stands around it. Each time another process as far as sessions can tell."""
    broker: Any = FakeBroker(answer)
    tokens = Tokens(
        Credential(digest_of(token_of(name)), Principal(name, "test"), expires_at)
        for name in ("acme", "other")
    )
    clocks = Clocks(wall, secrets.token_bytes)
    legacy = LegacyFace(broker, clocks, Sealer(KEY, secrets.token_bytes), limits)
    access = Access(tokens, Guard(hosts=["127.0.0.1"], origins=origins), None, 4 * 1024 * 1024)
    return broker, legacy, HttpFront(broker, access, legacy, clocks=clocks, metrics=Metrics("test"))


@asynccontextmanager
async def fronting(
    answer: Answer = nothing,
    *,
    wall: Callable[[], float] = lambda: 1e9,
    limits: SessionLimits = LIMITS,
    expires_at: float | None = None,
    drain_seconds: float = 1,
) -> AsyncIterator[Fronted]:
    """A front that listens, whose broker answers with `answer`."""
    broker, legacy, front = made(answer, wall, limits, expires_at, ())
    listener = Listener(front, bind("127.0.0.1", 0), drain_seconds=drain_seconds)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve)
        base = f"http://127.0.0.1:{listener.port}"
        async with httpx.AsyncClient(base_url=base, timeout=SECONDS) as http:
            yield Fronted(http, broker, front, legacy, listener)
        front.drain()
        listener.stop()


@asynccontextmanager
async def asked(
    answer: Answer = nothing,
    *,
    wall: Callable[[], float] = lambda: 1e9,
    limits: SessionLimits = LIMITS,
    origins: tuple[str, ...] = (),
) -> AsyncIterator[Fronted]:
    """A front without a socket, for what is answered at once: streams come whole, and at their end."""
    broker, legacy, front = made(answer, wall, limits, None, origins)
    transport = httpx.ASGITransport(app=front)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=SECONDS) as http:
        yield Fronted(http, broker, front, legacy)
