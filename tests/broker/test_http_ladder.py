"""What each rung of the ladder refuses, in either era, and session ids that open nothing."""

import json
from typing import Any

import httpx
import pytest
from msgspec import Raw

from fronts import LIMITS, asked
from harness import MODERN_META, LegacyClient, token_of
from mcphost.broker import Client
from mcphost.decisions.sessions import MAX_AGE_SECONDS, MAX_SKEW_SECONDS, SessionLimits
from mcphost.protocol import jsonrpc
from mcphost.protocol.envelope import Inbound

BASE = [
    ("Authorization", f"Bearer {token_of('acme')}"),
    ("Accept", "application/json, text/event-stream"),
    ("Content-Type", "application/json"),
]
MODERN = [*BASE, ("MCP-Protocol-Version", "2026-07-28")]


def body(method: str = "tools/call", identifier: object = 1, **params: Any) -> dict[str, Any]:
    params = {"name": "echo", "_meta": MODERN_META, **params}
    return {"jsonrpc": "2.0", "id": identifier, "method": method, "params": params}


async def post(http: httpx.AsyncClient, content: object, headers: list[tuple[str, str]]) -> httpx.Response:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return await http.post("/mcp", content=data, headers=headers)


CALL = [("Mcp-Method", "tools/call"), ("Mcp-Name", "echo")]

REFUSED_MODERN: dict[str, tuple[object, list[tuple[str, str]], int, int]] = {
    "a batch": ([body()], CALL, 400, -32600),
    "an empty batch": ([], CALL, 400, -32600),
    "a response": ({"jsonrpc": "2.0", "id": 1, "result": {}}, CALL, 400, -32600),
    "an id that is null": (body(identifier=None), CALL, 400, -32600),
    "an id that is a fraction": (body(identifier=1.5), CALL, 400, -32600),
    "nesting without end": (b"[" * 100_000, CALL, 400, -32700),
    "deep nesting": (body(arguments=json.loads("[" * 300 + "]" * 300)), CALL, 400, -32700),
    "a number of 2,000 digits": (
        json.dumps(body(arguments={"n": 0})).replace('"n": 0', '"n": ' + "9" * 2000).encode(),
        CALL, 400, -32700),
    "no name in the headers": (body(), CALL[:1], 400, -32020),
    "two names in the headers": (body(), [*CALL, ("mcp-name", "echo")], 400, -32020),
    "two methods in the headers": (body(), [*CALL, ("mcp-method", "tools/call")], 400, -32020),
    "a parameter twice in the headers": (
        body(), [*CALL, ("Mcp-Param-Region", "a"), ("mcp-param-region", "a")], 400, -32020),
    "no task in the headers": (body("tasks/get", taskId="t"), [("Mcp-Method", "tasks/get")], 400, -32020),
    "another task in the headers": (
        body("tasks/cancel", taskId="t"), [("Mcp-Method", "tasks/cancel"), ("Mcp-Name", "u")], 400, -32020),
}  # fmt: skip


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"), REFUSED_MODERN.values(), ids=REFUSED_MODERN
)
async def test_what_a_modern_client_is_refused(
    content: object, headers: list[tuple[str, str]], status: int, code: int
) -> None:
    async with asked() as fronted:
        response = await post(fronted.http, content, [*MODERN, *headers])
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert fronted.broker.clients == [], "it never reached the broker"


async def test_two_versions_in_the_headers_are_refused_whatever_they_say() -> None:
    async with asked() as fronted:
        twice = ("mcp-protocol-version", "2026-07-28")
        assert (await post(fronted.http, body(), [*MODERN, *CALL, twice])).status_code == 400


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
async def test_a_task_is_named_in_the_headers(method: str) -> None:
    async with asked() as fronted:
        headers = [*MODERN, ("Mcp-Method", method), ("Mcp-Name", "t-1")]
        assert (await post(fronted.http, body(method, taskId="t-1"), headers)).status_code == 200


async def test_mirrored_parameters_reach_the_broker_as_they_were_sent() -> None:
    seen: list[Inbound] = []

    async def keep(inbound: Inbound, _: Client) -> Raw:
        seen.append(inbound)
        return jsonrpc.EMPTY_OBJECT

    async with asked(keep) as fronted:
        extra = [
            ("Mcp-Param-Region", "=?base64?aQ==?="),
            ("MCP-PARAM-Tenant-Id", "42.0"),
            ("Mcp-Other", "x"),
        ]
        await post(fronted.http, body(), [*MODERN, *CALL, *extra])
        assert seen[0].headers.params == {"region": "=?base64?aQ==?=", "tenant-id": "42.0"}


async def test_a_notification_of_a_modern_client_is_accepted_and_dropped_unless_its_version_is_none() -> None:
    note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    async with asked() as fronted:
        response = await post(fronted.http, note, MODERN)
        assert (response.status_code, response.content) == (202, b"")
        response = await post(fronted.http, note, [*BASE, ("MCP-Protocol-Version", "1999-01-01")])
        assert (response.status_code, response.json()["error"]["code"]) == (400, -32022)
        assert "id" not in response.json()


async def test_a_modern_client_that_sends_a_session_id_is_answered_as_if_it_did_not() -> None:
    async with asked() as fronted:
        response = await post(
            fronted.http, body(), [*MODERN, *CALL, ("Mcp-Session-Id", "x"), ("Last-Event-ID", "1")]
        )
        assert response.status_code == 200
        assert "mcp-session-id" not in response.headers


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json, text/event-stream", 200),
        ("text/event-stream;q=0.5, application/*", 200),
        ("*/*", 200),
        ("application/json", 406),
        ("application/json, text/event-stream;q=0", 406),
        ("application/json, text/event-stream; q=0.000", 406),
        ("", 406),
    ],
)
async def test_both_kinds_of_answer_have_to_be_taken(accept: str, status: int) -> None:
    async with asked() as fronted:
        headers = [each for each in MODERN if each[0] != "Accept"]
        response = await post(fronted.http, body(), [*headers, *CALL, ("Accept", accept)])
        assert response.status_code == status


# --- legacy -----------------------------------------------------------------------------------------------


async def test_a_batch_of_a_legacy_client_is_refused() -> None:
    async with asked() as fronted:
        client = await fronted.legacy()
        response = await post(fronted.http, [body()], list(client.headers("", None).items()))
        assert (response.status_code, response.json()["error"]["code"]) == (400, -32600)


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
@pytest.mark.parametrize("with_header", [True, False])
async def test_every_legacy_revision_is_negotiable_and_needs_no_header(
    version: str, with_header: bool
) -> None:
    async with asked() as fronted:
        client = LegacyClient(fronted.http, "/mcp", "acme", version=version)
        answer = await client.initialize()
        assert answer.result["protocolVersion"] == version
        headers = client.headers("", None)
        if not with_header:
            del headers["MCP-Protocol-Version"]
        response = await post(fronted.http, client.body("tools/list", {}, {}), list(headers.items()))
        assert response.status_code == 200


@pytest.mark.parametrize(
    ("version", "status"), [("2025-06-18", 400), ("1999-01-01", 400), ("2025-11-25", 200)]
)
async def test_the_header_has_to_say_what_was_negotiated(version: str, status: int) -> None:
    async with asked() as fronted:
        client = await fronted.legacy()
        client.version = version
        headers = list(client.headers("", None).items())
        assert (await post(fronted.http, client.body("tools/list", {}, {}), headers)).status_code == status


@pytest.mark.parametrize(
    "message",
    [
        {"id": 1, "method": "tools/list"},
        {"method": "notifications/initialized"},
        {"id": "question", "result": {}},
        {"id": "question", "error": {"code": 1, "message": "no"}},
    ],
    ids=["request", "notification", "result", "error"],
)
async def test_everything_but_initialize_needs_a_session(message: dict[str, Any]) -> None:
    async with asked() as fronted:
        response = await post(fronted.http, {"jsonrpc": "2.0", **message}, BASE)
        assert response.status_code == 400
        response = await post(fronted.http, {"jsonrpc": "2.0", **message}, [*BASE, ("Mcp-Session-Id", "x")])
        assert response.status_code == 404


async def test_session_ids_that_open_nothing_are_all_answered_alike() -> None:
    async with asked(wall=lambda: 1e9) as earlier:
        kept, ended = await earlier.legacy(), await earlier.legacy()
    forged = kept.session or ""
    ids = {
        "truncated": forged[:-4],
        "lengthened": forged + "AAAA",
        "changed": ("B" if forged[0] == "A" else "A") + forged[1:],
        "unknown": "0" * 64,
        "far too long": "A" * 5000,
        "no ASCII": "é" * 20,
        "of this process, ended": "",
        "replayed after its end": ended.session or "",
    }
    async with asked(wall=lambda: 1e9) as fronted:
        client = await fronted.legacy()
        ids["of this process, ended"] = client.session or ""
        for each in (client.session, ended.session):
            client.session = each
            assert (await fronted.http.delete("/mcp", headers=client.headers("", None))).status_code == 200
        answers = set()
        for name, identifier in ids.items():
            headers = [*BASE, ("Mcp-Session-Id", identifier.encode("latin-1").decode("latin-1"))]
            response = await fronted.http.post(
                "/mcp",
                content=json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode(),
                headers=[(key.encode(), value.encode("latin-1")) for key, value in headers],
            )
            assert response.status_code == 404, name
            answers.add(response.content)
        other = LegacyClient(fronted.http, "/mcp", "other", session=kept.session)
        foreign = await fronted.http.post(
            "/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "ping"}, headers=other.headers("", None)
        )
        answers.add(foreign.content)
        assert len(answers) == 1
        again = LegacyClient(fronted.http, "/mcp", "acme", session=kept.session)
        assert (await again.request("ping")).status == 200, "only its own principal opens it"


@pytest.mark.parametrize("later", [MAX_AGE_SECONDS + 1, -MAX_SKEW_SECONDS - 1])
async def test_an_id_of_another_process_that_is_too_old_or_from_the_future_opens_nothing(
    later: float,
) -> None:
    async with asked(wall=lambda: 1e9) as earlier:
        client = await earlier.legacy()
    async with asked(wall=lambda: 1e9 + later) as fronted:
        again = LegacyClient(fronted.http, "/mcp", "acme", session=client.session)
        assert (await again.request("ping")).status == 404


async def test_what_was_agreed_on_outlives_the_process() -> None:
    async with asked() as earlier:
        client = await earlier.legacy(sampling={})
        await client.call("any")
        key = earlier.broker.clients[-1].session
    async with asked() as fronted:
        again = LegacyClient(fronted.http, "/mcp", "acme", session=client.session)
        await again.call("any")
        seen = fronted.broker.clients[-1]
        assert seen.declared.parts == (("sampling", ()),)
        assert bytes(seen.info or b"") == b'{"name":"tests","version":"1"}'
        assert seen.session is not None
        assert key is not None
        assert seen.session.key == key.key
        again.version = "2025-06-18"
        assert (await again.request("ping")).status == 400


async def test_sessions_that_open_again_count_towards_the_cap() -> None:
    async with asked() as earlier:
        clients = [await earlier.legacy() for _ in range(2)]
    async with asked(limits=SessionLimits(1, LIMITS.idle_seconds)) as fronted:
        for client, status in zip(clients, (200, 503), strict=True):
            again = LegacyClient(fronted.http, "/mcp", "acme", session=client.session)
            answer = await again.request("ping")
            assert answer.status == status
