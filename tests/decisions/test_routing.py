"""Paths: which endpoint each means, and that all others mean none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcphost.decisions.routing import Endpoint, endpoint_of

segments = st.text(min_size=1).filter(lambda text: "/" not in text)


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/mcp", Endpoint()),
        ("/servers/time/mcp", Endpoint("time")),
        ("/t/acme/mcp", Endpoint(None, "acme")),
        ("/t/acme/servers/time/mcp", Endpoint("time", "acme")),
        ("/t/t/mcp", Endpoint(None, "t")),
        ("/servers/mcp/mcp", Endpoint("mcp")),
        ("/servers/servers/mcp", Endpoint("servers")),
    ],
)
def test_these_paths_are_endpoints_with_or_without_a_slash_behind(
    path: str, endpoint: Endpoint, slash: str
) -> None:
    assert endpoint_of(path + slash) == endpoint


@pytest.mark.parametrize(
    "path",
    ["", "/", "mcp", "x/mcp", "//mcp", "/mcp//", "/MCP", "/mcp/x", "/servers", "/servers/mcp", "/servers//mcp",
     "/servers/time", "/servers/a/b/mcp", "/t", "/t/", "/t/mcp", "/t/acme", "/t/acme/t/other/mcp", "/t/a/b/mcp",
     "/.well-known/oauth-protected-resource", "/mcp\n", "/ mcp", "*", "http://host/mcp"],
)  # fmt: skip
def test_no_other_path_is_one(path: str) -> None:
    assert endpoint_of(path) is None


def test_an_empty_tenant_stays_a_tenant_that_no_token_is_of() -> None:
    assert endpoint_of("/t//mcp") == Endpoint(None, "")


@given(segments, st.none() | segments)
def test_any_single_segment_is_a_server_and_a_tenant(server: str, tenant: str | None) -> None:
    prefix = "" if tenant is None else f"/t/{tenant}"
    assert endpoint_of(f"{prefix}/servers/{server}/mcp") == Endpoint(server, tenant)
    assert endpoint_of(f"{prefix}/mcp") == Endpoint(None, tenant)


@given(st.text("/mcptservrx", max_size=24))
def test_an_endpoint_is_only_ever_read_from_its_own_spelling(path: str) -> None:
    found = endpoint_of(path)
    if found is not None:
        tenant = "" if found.tenant is None else f"/t/{found.tenant}"
        server = "" if found.server is None else f"/servers/{found.server}"
        assert path.removesuffix("/") == f"{tenant}{server}/mcp"
