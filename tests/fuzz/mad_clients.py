"""Clients gone mad, in front of real workers of both eras: every part of a request changed, in any order, several at once.

Each has its own marker in all that it sends, and sees no other's. Two tenants have the same servers. Well-behaved
clients are served meanwhile as ever.
"""

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import anyio

from fuzz.mutants import by_bytes, by_value
from fuzz.watching import Broken, Clock, compare, look, wait_rest, watched, witness
from harness import MODERN_META, LegacyClient, ModernClient, Served, fixture_server, make_policy, tenant_entry
from wire import RawHttp, Response

CALL_SECONDS = 1
ANSWER_SECONDS = 30.0  # far more than a call's deadline: what takes longer hangs
GLANCE_SECONDS = 0.15  # for what opens a stream and says nothing by itself
OPENS_A_STREAM = (b"listen", b'"ask', b"GET ")
TENANTS = ("acme", "other")
SESSIONS = 40  # of each tenant: so few that there are as many from early on, and none but them can grow
CLIENTS = tuple((era, tenant) for tenant in TENANTS for era in ("legacy", "modern", "legacy"))
METHODS = (b"POST", b"GET", b"DELETE", b"PUT", b"OPTIONS", b"PATCH", b"post", b"")
PATHS = (
    "/mcp",
    "/servers/fix/mcp",
    "/servers/old/mcp",
    "/servers/none/mcp",
    "/acme/mcp",
    "/",
    "/servers/fix/mcp/x",
)
VALUES = (
    b"", b"2026-07-28", b"2025-11-25", b"2024-11-05", b"2030-01-01", b"tools/call", b"tools/list", b"echo", b"\xff",
    b"a" * 5000, b"=?base64?ZWNobw==?=", b"=?base64?Z?=", b"Bearer x", b"application/json", b"text/event-stream",
    b"text/plain", b"evil.example", b"null", b"-1", b"\0", b"a, b", b"1",
)  # fmt: skip
NAMES = (
    b"Mcp-Session-Id", b"MCP-Protocol-Version", b"Mcp-Method", b"Mcp-Name", b"Authorization", b"Accept", b"Host",
    b"Content-Type", b"Origin", b"Last-Event-ID", b"Mcp-Param-Region", b"Transfer-Encoding", b"Expect", b"X-A",
)  # fmt: skip


def seeds(marker: str, *, modern: bool) -> list[bytes]:
    """Well-formed messages of one client, to begin from."""
    arguments = {"text": marker}
    params: list[tuple[str, dict[str, Any]]] = [
        ("tools/list", {}),
        ("tools/call", {"name": "echo", "arguments": arguments}),
        ("tools/call", {"name": "fix__echo", "arguments": arguments}),
        ("tools/call", {"name": "progress", "arguments": {"count": 3}, "_meta": {"progressToken": marker}}),
        ("tools/call", {"name": "ask", "arguments": {"message": marker}}),
        ("tools/call", {"name": "ask_all", "arguments": {"caller": marker, "rounds": 2}}),
        ("tools/call", {"name": "log_lines", "arguments": {"tag": marker, "count": 3}}),
        ("tools/call", {"name": "error", "arguments": {"code": 1, "message": marker}}),
        ("tools/call", {"name": "announce", "arguments": {"lists": ["tools"], "uris": ["fixture://text/1"]}}),
        ("tools/call", {"name": "test_custom_header", "arguments": {"region": "eu", "query": marker}}),
        ("tools/call", {"name": "ask", "arguments": {}, "requestState": marker, "inputResponses": {"question": {}}}),
        ("resources/list", {"cursor": marker}),
        ("resources/read", {"uri": "fixture://text/1"}),
        ("resources/read", {"uri": f"fixture://greeting/{marker}"}),
        ("resources/subscribe", {"uri": "fixture://text/1"}),
        ("resources/unsubscribe", {"uri": "fixture://text/1"}),
        ("resources/templates/list", {}),
        ("prompts/list", {}),
        ("prompts/get", {"name": "greet", "arguments": {"name": marker}}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "style", "value": "f"}}),
        ("logging/setLevel", {"level": "debug"}),
        ("ping", {}),
        ("tasks/get", {"taskId": marker}),
        ("subscriptions/listen", {"notifications": {"toolsListChanged": True, "resourceSubscriptions": ["fixture://text/1"]}}),
        ("server/discover", {}),
        ("notifications/cancelled", {"requestId": 1}),
        ("notifications/initialized", {}),
    ]  # fmt: skip
    if not modern:
        offered = {"elicitation": {}, "sampling": {}, "roots": {}}
        told = {
            "protocolVersion": "2025-11-25",
            "capabilities": offered,
            "clientInfo": {"name": marker, "version": "1"},
        }
        params.append(("initialize", told))
    else:
        logs = {"io.modelcontextprotocol/logLevel": "debug"}
        for _, each in params:
            each["_meta"] = MODERN_META | logs | each.get("_meta", {})
    made = [
        {"jsonrpc": "2.0", "method": method, "params": each}
        | ({} if "notif" in method[:5] else {"id": number})
        for number, (method, each) in enumerate(params)
    ]
    answer = {"action": "accept", "content": {"answer": marker}}
    made += [{"jsonrpc": "2.0", "id": number, "result": answer} for number in (1, "1")]
    return [json.dumps(each).encode() for each in made]


@dataclass
class MadClient:
    """One of them."""

    served: Served
    client: ModernClient
    http: RawHttp
    chance: random.Random
    marker: str
    seeds: list[bytes]
    known: set[str]  # everybody's markers; a changed one of its own may look like one, and is none
    statuses: Counter[int] = field(default_factory=Counter)

    async def step(self) -> None:
        """One request."""
        body = self.body()
        method = b"POST" if self.chance.random() < 0.93 else self.chance.choice(METHODS)
        path = self.client.path if self.chance.random() < 0.9 else self.chance.choice(PATHS)
        head, headers = method + b" " + path.encode(), self.headers(body)
        opens = any(word in head + body for word in OPENS_A_STREAM)
        # Two lengths: the rest of the body may be waited for.
        opens |= any(name == b"Transfer-Encoding" for name, _ in headers)
        with anyio.move_on_after(GLANCE_SECONDS if opens else ANSWER_SECONDS) as patience:
            response = await self.http.send(head, headers, body)
        if patience.cancelled_caught:
            await self.http.aclose()
            if not opens:
                raise Broken(f"no answer within {ANSWER_SECONDS} s to {head!r} {headers!r} {body[:2000]!r}")
            return
        self.seen(response, (head, headers, body[:2000]))

    def seen(self, response: Response, what: object) -> None:
        self.statuses[response.status] += 1
        look(response.body, self.marker, what, self.known)
        look(b"".join(response.headers.values()), self.marker, what, self.known)
        if response.status == 500:
            raise Broken(f"status 500 after {what!r}: {response.body[:500]!r}")
        session = response.headers.get(b"mcp-session-id")
        if session is not None and isinstance(self.client, LegacyClient):
            self.client.session = session.decode("latin-1")

    def body(self) -> bytes:
        seed = self.chance.choice(self.seeds)
        draw = self.chance.random()
        if draw < 0.3:
            return seed
        if draw < 0.65:
            try:
                return by_value(seed, self.chance)
            except (ValueError, RecursionError):
                return seed
        return by_bytes(seed, self.seeds, self.chance)

    def headers(self, body: bytes) -> list[tuple[bytes, bytes]]:
        method, name = _mirrored(body)
        named = self.client.headers(method, name)
        if "Mcp-Method" not in named and self.chance.random() < 0.1:
            named["Mcp-Method"] = method
        headers = [(key.encode(), value.encode()) for key, value in named.items()]
        headers += [(b"Host", b"127.0.0.1"), (b"Content-Length", str(len(body)).encode())]
        while self.chance.random() < 0.15:
            at = self.chance.randrange(len(headers))
            match self.chance.randrange(4):
                case 0 if headers[at][0] != b"Content-Length":
                    del headers[at]
                case 1 if headers[at][0] != b"Content-Length":
                    headers[at] = (headers[at][0], self.chance.choice(VALUES))
                case _:
                    headers.append((self.chance.choice(NAMES), self.chance.choice(VALUES)))
        return headers


def _mirrored(body: bytes) -> tuple[str, str | None]:
    """What the headers of a modern client would say of a body, if they can."""
    try:
        message = json.loads(body)
        method, params = message["method"], message.get("params") or {}
        name = params.get("name") or params.get("uri") or params.get("taskId")
        for text in (method, name or ""):
            if not (text.isascii() and text.isprintable()):
                return "tools/call", "echo"
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return "tools/call", "echo"
    return method, name or None


async def _made(served: Served, seed: int, number: int, known: set[str]) -> MadClient:
    era, tenant = CLIENTS[number]
    chance = random.Random(f"{seed}/{number}")
    marker = f"mark-{chance.randbytes(8).hex()}"
    known.add(marker)
    server = chance.choice((None, "fix", "old"))
    client = await served.client(era, server, tenant)
    http = RawHttp(served.http.base_url.port)
    return MadClient(served, client, http, chance, marker, seeds(marker, modern=era == "modern"), known)


async def _rage(mad: MadClient, clock: Clock, seen: Counter[int]) -> None:
    while not clock.is_over:
        await mad.step()
    await mad.http.aclose()
    seen.update(mad.statuses)


def _quick(era: str) -> dict[str, Any]:
    return fixture_server(
        "--era",
        era,
        timeouts={"start": "20s", "call": f"{CALL_SECONDS}s", "stop": "200ms"},
        restart={"max": 1_000_000, "backoff": {"initial": "10ms", "max": "20ms"}},
    )


async def run(seconds: float, seed: int) -> Counter[int]:
    """Everything, for so long; how many answers of each status came. Raises `Broken` for a promise that was broken."""
    servers = {"fix": _quick("dual"), "old": _quick("legacy"), "calm": fixture_server()}
    tenants = {name: tenant_entry(name) for name in TENANTS}
    policy = make_policy(servers, tenants, runtime={"limits": {"sessions": SESSIONS}})
    seen: Counter[int] = Counter()
    known: set[str] = set()
    async with watched(policy) as served:
        watchmen = [await served.client(era, "calm") for era in ("legacy", "modern")]
        before = None
        for share in (0.3, 0.7):
            clock = Clock(seconds * share)
            async with anyio.create_task_group() as tasks:
                for number in range(len(CLIENTS)):
                    mad = await _made(served, seed + int(share * 10), number, known)
                    tasks.start_soon(_rage, mad, clock, seen)
                while not clock.is_over:
                    for each in watchmen:
                        await witness(each, "mark-" + "0" * 16)
                    await anyio.sleep(0.05)
            after = await wait_rest()
            if before is not None:
                compare(before, after, seconds=seconds)
            before = after
    if not seen[200]:
        raise Broken(f"nothing was accepted at all: {seen}")
    return seen
