"""Paths: which endpoint each means, and that all others mean none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcphost.decisions.routing import EVERYTHING, Endpoint, Route, endpoint_of, healthiest

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
    ["", "/", "mcp", "x/mcp", "//mcp", "/mcp//", "/MCP", "/mcp/x", "/t/acme/mcp/x", "/servers", "/servers/mcp", "/servers//mcp",
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


ROUTES = {path: Route(path) for path in ("/mcp/code", "/mcp/a/b")}


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [("/mcp/code", Endpoint(route="/mcp/code")), ("/mcp/code/", Endpoint(route="/mcp/code")),
     ("/mcp/a/b", Endpoint(route="/mcp/a/b")), ("/t/acme/mcp/a/b", Endpoint(None, "acme", "/mcp/a/b")),
     ("/servers/time/mcp", Endpoint("time")), ("/mcp", None), ("/mcp/a", None), ("/mcp/code//", None),
     ("/servers/mcp/code", None)],
)  # fmt: skip
def test_the_routes_of_a_policy_are_endpoints_and_no_path_between_them(
    path: str, endpoint: Endpoint | None
) -> None:
    assert endpoint_of(path, ROUTES) == endpoint


def test_each_endpoint_has_one_path_that_names_it() -> None:
    assert Endpoint("time", "acme").path == "/servers/time/mcp"
    assert Endpoint(None, "acme", "/mcp/code").path == "/mcp/code"


def test_a_route_offers_what_it_lists_or_everything() -> None:
    assert EVERYTHING.offers("tools")
    assert Route("/mcp", features=frozenset({"tools"})).offers("tools")
    assert not Route("/mcp", features=frozenset({"tools"})).offers("prompts")


@pytest.mark.parametrize(
    ("states", "chosen"),
    [(["ready", "ready"], 0), (["backoff", "ready"], 1), (["failed", "backoff"], 1), (["starting", "ready"], 1),
     (["stopped", "starting"], 0), (["failed", "stopped"], 1), (["stopping", "starting"], 1), (["failed", "failed"], 0)],
)  # fmt: skip
def test_a_call_goes_to_the_first_server_of_the_best_health(states: list[str], chosen: int) -> None:
    assert healthiest((str(number), state) for number, state in enumerate(states)) == str(chosen)
