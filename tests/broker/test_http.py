"""The ladder that every HTTP request climbs, and the refusals on the way."""

import json
from typing import Any

import anyio
import httpx
import pytest

from harness import (
    MODERN_META,
    fixture_server,
    make_policy,
    read_answer,
    serving,
    tenant_entry,
    token_of,
)

pytestmark = pytest.mark.kernel

TWO = {"acme": tenant_entry("acme", allow=["fix/*"]), "globex": tenant_entry("globex", allow=["other/*"])}
SERVERS = {"fix": fixture_server(start="lazy"), "other": fixture_server(start="lazy")}


async def post(http: httpx.AsyncClient, path: str = "/mcp", **changes: Any) -> httpx.Response:
    """A good modern request but for what is changed; a header of None is left out."""
    headers = {
        "Authorization": f"Bearer {token_of('acme')}",
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/list",
        **changes.pop("headers", {}),
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": MODERN_META}}
    content = changes.pop("content", json.dumps(body).encode())
    kept = {key: value for key, value in headers.items() if value is not None}
    return await http.request(changes.pop("method", "POST"), path, content=content, headers=kept)


REFUSED = {
    "no token": ({"headers": {"Authorization": None}}, 401, 401),
    "a token nobody has": ({"headers": {"Authorization": "Bearer nobody"}}, 401, 401),
    "another scheme": ({"headers": {"Authorization": "Basic YWNtZQ=="}}, 401, 401),
    "a path that is none": ({"path": "/nothing"}, 404, 404),
    "OAuth discovery, which would make clients drop their token": (
        {"path": "/.well-known/oauth-protected-resource/mcp"}, 404, 404),
    "a server that does not exist": ({"path": "/servers/none/mcp"}, 404, 404),
    "a server of another tenant": ({"path": "/servers/other/mcp"}, 404, 404),
    "another tenant's prefix": ({"path": "/t/globex/mcp"}, 403, 403),
    "a prefix of no tenant": ({"path": "/t/none/mcp"}, 403, 403),
    "GET": ({"method": "GET"}, 405, 405),
    "PUT": ({"method": "PUT"}, 405, 405),
    "another media type": ({"headers": {"Content-Type": "text/plain"}}, 415, 415),
    "an Accept without event streams": ({"headers": {"Accept": "application/json"}}, 406, 406),
    "an Accept without JSON": ({"headers": {"Accept": "text/event-stream"}}, 406, 406),
    "a rebound Host": ({"headers": {"Host": "evil.example"}}, 403, 403),
    "a foreign Origin": ({"headers": {"Origin": "https://evil.example"}}, 403, 403),
    "a body beyond its limit": ({"content": b" " * (5 * 1024 * 1024)}, 413, 413),
    "a batch": ({"content": b"[]"}, 400, -32600),
    "no JSON": ({"content": b"{"}, 400, -32700),
    "another method in the header": ({"headers": {"Mcp-Method": "tools/call"}}, 400, -32020),
    "no method header": ({"headers": {"Mcp-Method": None}}, 400, -32020),
    "modern metadata without the header": ({"headers": {"MCP-Protocol-Version": None}}, 400, -32020),
    "a version that does not match": ({"headers": {"MCP-Protocol-Version": "2027-01-01"}}, 400, -32020),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "status", "code"), REFUSED.values(), ids=REFUSED)
async def test_a_refusal_has_its_status_and_a_jsonrpc_error(changes: dict, status: int, code: int) -> None:
    async with serving(make_policy(SERVERS, TWO)) as served:
        response = await post(served.http, **changes)
        assert response.status_code == status
        error = response.json()["error"]
        assert error["code"] == code
        assert error["message"]
        assert served.runtime.pool.sets() == [], "a refused request starts no worker"


async def test_a_401_challenges_for_a_bearer_token() -> None:
    async with serving(make_policy(SERVERS, TWO)) as served:
        response = await post(served.http, headers={"Authorization": None})
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert "resource_metadata" not in response.headers["www-authenticate"]


async def test_a_path_with_a_slash_at_its_end_or_the_tenants_own_prefix_is_the_same_endpoint() -> None:
    async with serving(make_policy(SERVERS, TWO)) as served:
        for path in ("/mcp", "/mcp/", "/t/acme/mcp", "/servers/fix/mcp/", "/t/acme/servers/fix/mcp"):
            response = await post(served.http, path)
            assert response.status_code == 200, path
            assert response.json()["result"]["tools"]


async def test_a_decisive_header_that_occurs_twice_is_refused() -> None:
    async with serving(make_policy(SERVERS, TWO)) as served:
        headers = [
            ("Authorization", f"Bearer {token_of('acme')}"),
            ("Content-Type", "application/json"),
            ("MCP-Protocol-Version", "2026-07-28"),
            ("Mcp-Method", "tools/list"),
            ("Mcp-Method", "tools/call"),
        ]
        response = await served.http.post("/mcp", content=b"{}", headers=headers)
        assert response.status_code == 400
        assert "mcp-method" in response.text


async def test_a_modern_client_gets_no_session_and_legacy_methods_are_unknown_to_it() -> None:
    async with serving(make_policy(SERVERS, TWO)) as served:
        client = served.modern("fix")
        for method in ("initialize", "ping", "logging/setLevel", "resources/subscribe", "no/such"):
            answer = await client.request(method)
            assert (answer.status, answer.error["code"]) == (404, -32601), method
            assert "mcp-session-id" not in answer.headers


async def test_a_version_that_is_not_spoken_is_answered_with_those_that_are() -> None:
    async with serving(make_policy(SERVERS, TWO)) as served:
        meta = {**MODERN_META, "io.modelcontextprotocol/protocolVersion": "2030-01-01"}
        body = {"jsonrpc": "2.0", "id": 5, "method": "tools/list", "params": {"_meta": meta}}
        response = await post(
            served.http, content=json.dumps(body).encode(), headers={"MCP-Protocol-Version": "2030-01-01"}
        )
        answer = read_answer(response)
        assert (answer.status, answer.error["code"], answer.final["id"]) == (400, -32022, 5)
        assert "2026-07-28" in answer.error["data"]["supported"]


async def test_a_session_opens_only_for_the_token_and_endpoint_it_was_made_for() -> None:
    acme = tenant_entry("acme")
    other_token = {**tenant_entry("second")["tokens"][0], "id": "second"}
    acme["tokens"].append(other_token)
    tenants = {"acme": acme, "globex": tenant_entry("globex")}
    async with serving(make_policy(SERVERS, tenants)) as served:
        owner = await served.legacy("fix")
        assert (await owner.request("ping")).status == 200
        for tenant, path in (
            ("globex", "/servers/fix/mcp"),
            ("second", "/servers/fix/mcp"),
            ("acme", "/mcp"),
        ):
            thief = await served.legacy("fix")
            thief.session, thief.tenant, thief.path = owner.session, tenant, path
            answer = await thief.request("ping")
            assert (answer.status, answer.error["data"]["reason"]) == (404, "session-not-found")
        assert (await owner.request("ping")).status == 200


async def test_a_session_that_was_ended_is_not_found_and_one_that_is_missing_is_asked_for() -> None:
    async with serving(make_policy(SERVERS, TWO)) as served:
        client = await served.legacy("fix")
        headers = client.headers("", None)
        assert (await served.http.delete(client.path, headers=headers)).status_code == 200
        assert (await client.request("ping")).status == 404
        assert (await served.http.delete(client.path, headers=headers)).status_code == 404
        client.session = None
        assert (await client.request("tools/list")).status == 400


async def test_a_tenant_has_no_more_sessions_than_it_may() -> None:
    policy = make_policy(SERVERS, TWO, runtime={"limits": {"sessions": 2}})
    async with serving(policy) as served:
        for _ in range(2):
            await served.legacy("fix")
        extra = await served.legacy("other", "globex")
        extra.session, extra.tenant, extra.path = None, "acme", "/servers/fix/mcp"
        answer = await extra.request("initialize", {"protocolVersion": "2025-11-25"})
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0


async def test_a_request_head_without_end_is_cut_off() -> None:
    async with serving(make_policy(SERVERS, TWO)) as served:
        port = served.http.base_url.port
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\n")
            received = b""
            with anyio.fail_after(20):
                try:
                    for _ in range(64):
                        await stream.send(b"X-Filler: " + b"a" * 4096 + b"\r\n")
                    while chunk := await stream.receive():
                        received += chunk
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    pass
            assert received == b"" or b" 431 " in received
        assert (await post(served.http)).status_code == 200


async def test_everybody_is_the_one_tenant_where_no_token_is_asked_for() -> None:
    policy = make_policy(SERVERS, {"acme": {"allow": ["fix/*"]}}, runtime={"auth": "none"})
    async with serving(policy) as served:
        response = await post(served.http, headers={"Authorization": None})
        assert response.json()["result"]["tools"]
