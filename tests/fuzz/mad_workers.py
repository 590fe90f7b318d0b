"""Servers gone mad, under several clients of both eras at once. See `madman.py` for what they write."""

import json
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx

from answering import asked_client, converse_tool
from fuzz.watching import WARM_SECONDS, Broken, Clock, compare, look, wait_rest, watched, witness
from harness import FIXTURE, LegacyClient, ModernClient, Served, fixture_server, make_policy, tenant_entry
from listeners import Ear, hear, listen

CLIENTS = ("legacy", "modern") * 3
SESSIONS = 60  # of each tenant; there are as many from early on, so that none but them can grow
CALL_SECONDS = 1
LISTEN_SECONDS = 1.5
PATIENCE_SECONDS = 40.0  # for one conversation, each of whose rounds is bounded by the call's own deadline
TENANTS = ("acme", "other")
SERVERS = (
    ("legacy", "tenant"),
    ("dual", "session"),
    ("legacy", "shared"),
    ("modern", "shared"),
    ("modern", "call"),
)
# Answers that make no sense to a client: what a server may do to its own callers.
NONSENSE = (AttributeError, KeyError, TypeError, ValueError)


def mad_server(seed: int, era: str, scope: str) -> dict[str, Any]:
    """A policy entry. It ends often, for its strikes, and is started again at once."""
    return {
        "command": "python3",
        "args": [str(FIXTURE.with_name("madman.py")), "--seed", str(seed), "--era", era],
        "scope": scope,
        "timeouts": {"start": "20s", "call": f"{CALL_SECONDS}s", "stop": "200ms"},
        "restart": {"max": 1_000_000, "backoff": {"initial": "10ms", "max": "20ms"}},
    }


@dataclass
class MadRun:
    """One run: how far it came, and with what."""

    seed: int
    ended: Counter[str] = field(default_factory=Counter)

    async def talk(self, served: Served, number: int, server: str, clock: Clock) -> None:
        """One client, conversation after conversation."""
        chance = random.Random(f"{self.seed}/{server}/{number}")
        era = CLIENTS[number]
        while not clock.is_over:
            marker = f"mark-{chance.randbytes(8).hex()}"
            with anyio.fail_after(PATIENCE_SECONDS):
                try:
                    outcome = await self.one(served, server, era, marker, chance)
                except json.JSONDecodeError as error:
                    raise Broken(f"a message that is none: {error.doc[:2000]!r}") from None
                except NONSENSE as error:
                    outcome = type(error).__name__
            self.ended[outcome] += 1

    async def one(self, served: Served, server: str, era: str, marker: str, chance: random.Random) -> str:
        """What becomes of one client, from its handshake to the end of its session."""
        tenant = chance.choice(TENANTS)
        try:
            client, meta = await asked_client(served, era, server, tenant=tenant, log_level="debug")
        except AssertionError:  # the server is between two lives and the handshake says so
            return "no handshake"
        try:
            if chance.random() < 0.2:
                return await self.listened(client, marker)
            return await self.interviewed(client, meta, marker, chance)
        finally:
            if isinstance(client, LegacyClient):
                with anyio.CancelScope(shield=True):
                    await client.http.delete(client.path, headers=client.headers("", None))

    async def interviewed(
        self, client: ModernClient, meta: dict[str, Any], marker: str, chance: random.Random
    ) -> str:
        """A client that is interviewed, or leaves in the middle of it."""
        heard: list[object] = []

        def respond(method: str, params: dict[str, Any]) -> dict[str, Any]:
            heard.append([method, params])
            if method == "elicitation/create":
                return {"action": "accept", "content": {"answer": marker}}
            if method == "roots/list":
                return {"roots": [{"uri": f"file:///{marker}"}]}
            return {"role": "assistant", "content": {"type": "text", "text": marker}, "model": "none"}

        if chance.random() < 0.2:
            with anyio.move_on_after(chance.random() / 10):
                await converse_tool(client, "interview", respond, meta=meta, marker=marker)
            look(heard, marker, client.path)
            return "left"
        talk = await converse_tool(client, "interview", respond, meta=meta, marker=marker, logs=2)
        look([talk.answer.messages, talk.notifications, heard], marker, client.path)
        return "answered" if marker in str(talk.answer.final) else "error or nonsense"

    async def listened(self, client: ModernClient, marker: str) -> str:
        """A client that listens for a while to a resource with its own marker, and hears of no other."""
        uri, ear = f"file:///{marker}", Ear()
        with anyio.move_on_after(LISTEN_SECONDS):
            if isinstance(client, LegacyClient):
                await client.request("resources/subscribe", {"uri": uri})
                async with hear(client) as ear:
                    await ear.wait_told(uri)
            else:
                async with listen(client, {"resourceSubscriptions": [uri]}) as ear:
                    await ear.wait_told(uri)
        look(ear.heard, marker, "listening")
        return "told" if ear.heard else "not told"

    async def run(self, seconds: float) -> Counter[str]:
        """Everything, for so long. Raises `Broken` for a promise that was broken."""
        servers: dict[str, Any] = {
            f"mad-{era}-{scope}": mad_server(self.seed, era, scope) for era, scope in SERVERS
        }
        tenants = {name: tenant_entry(name) for name in TENANTS}
        policy = make_policy(
            servers | {"fix": fixture_server()}, tenants, runtime={"limits": {"sessions": SESSIONS}}
        )
        async with watched(policy) as served:
            watchmen = [await served.client(era, "fix") for era in ("legacy", "modern")]
            before = None
            for share in (0.2, 0.8):
                clock = Clock(seconds * share)
                async with anyio.create_task_group() as tasks:
                    for number in range(len(CLIENTS)):
                        for server in servers:
                            tasks.start_soon(self.talk, served, number, server, clock)
                    while not clock.is_over:
                        for each in watchmen:
                            await witness(each, "mark-" + "0" * 16)
                        await anyio.sleep(0.05)
                after = await wait_rest()
                if before is not None:
                    compare(before, after, seconds=seconds)
                before = after
            if not self.ended["answered"] or (seconds >= WARM_SECONDS and not self.ended["told"]):
                raise Broken(f"nobody was answered or told at all: {self.ended}")
        return self.ended


async def run(seconds: float, seed: int) -> Counter[str]:
    """See the module."""
    with suppress(httpx.HTTPError):
        return await MadRun(seed).run(seconds)
    raise Broken("the product closed a connection without an answer")
