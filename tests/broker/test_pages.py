"""Web pages: those of listed origins may read what they are answered, all others may not."""

import httpx
import pytest

from fronts import asked
from harness import token_of

LISTED = "https://console.example.com"
ASKED = {
    "Origin": LISTED,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,mcp-param-region",
}


def cors(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


async def test_a_browser_is_told_what_a_page_of_a_listed_origin_may_send() -> None:
    async with asked(origins=(LISTED,)) as fronted:
        response = await fronted.http.options("/mcp", headers=ASKED)
        assert (response.status_code, response.content) == (204, b"")
        assert response.headers["access-control-allow-origin"] == LISTED
        assert response.headers["access-control-allow-methods"] == "GET, POST, DELETE"
        assert (
            response.headers["access-control-allow-headers"] == "authorization,content-type,mcp-param-region"
        )
        assert "access-control-allow-credentials" not in response.headers
        assert response.headers["vary"] == "origin"


@pytest.mark.parametrize(
    ("path", "changes", "status"),
    [
        ("/mcp", {"Origin": "https://evil.example"}, 403),
        ("/mcp", {"Origin": "https://console.example.com.evil.example"}, 403),
        ("/mcp", {"Origin": "http://localhost:3000"}, 405),
        ("/mcp", {"Origin": "null"}, 403),
        ("/nothing", {}, 404),
    ],
    ids=str,
)
async def test_a_browser_is_told_nothing_of_what_other_pages_may_send(
    path: str, changes: dict[str, str], status: int
) -> None:
    async with asked(origins=(LISTED,)) as fronted:
        response = await fronted.http.options(path, headers=ASKED | changes)
        assert response.status_code == status
        assert not any("allow-headers" in name for name in cors(response))
        if changes:
            assert cors(response) == {}


async def test_headers_that_are_no_names_are_not_repeated() -> None:
    async with asked(origins=(LISTED,)) as fronted:
        response = await fronted.http.options(
            "/mcp", headers=ASKED | {"Access-Control-Request-Headers": "a: b;"}
        )
        assert response.status_code == 204
        assert "access-control-allow-headers" not in response.headers


@pytest.mark.parametrize(
    ("origin", "readable"), [(LISTED, True), ("http://localhost:3000", False), (None, False)]
)
async def test_answers_refusals_and_streams_can_be_read_by_pages_of_listed_origins_only(
    origin: str | None, readable: bool
) -> None:
    async with asked(origins=(LISTED,)) as fronted:
        client = await fronted.legacy()
        given = {} if origin is None else {"Origin": origin}
        headers = client.headers("", None) | given
        responses = [
            await fronted.http.post("/mcp", json=client.body("tools/list", {}, {}), headers=headers),
            await fronted.http.post("/mcp", json=client.body("tools/list", {}, {}), headers=given),
        ]
        fronted.front.drain()  # so that the stream ends at once
        responses.append(await fronted.http.get("/mcp", headers=headers))
        assert [each.status_code for each in responses] == [200, 401, 200]
        for each in responses:
            assert each.headers.get("access-control-allow-origin") == (origin if readable else None)
            assert ("mcp-session-id" in each.headers.get("access-control-expose-headers", "")) == readable
            assert token_of("acme") not in str(each.headers)
