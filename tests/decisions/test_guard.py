"""The wall against DNS rebinding: which Host and Origin may pass."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcphost.decisions.guard import Guard
from mcphost.errors import BadHttp

GUARD = Guard(
    hosts=["mcp.example.com", "Ported.example.com:8443", "any.example.com:*", "mcphost_1"],
    origins=["https://app.example.com", "https://Ported.example.com:8443"],
)


def status(host: str | None, origin: str | None = None, guard: Guard = GUARD) -> int:
    """200 where the guard lets pass, else the status of its refusal."""
    try:
        guard.check(host, origin)
    except BadHttp as error:
        return error.status
    return 200


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8080", "LOCALHOST:1", "localhost:", "127.0.0.1", "127.0.0.1:8080", "127.8.9.1", "[::1]",
     "[::1]:8080", "10.1.2.3:80", "[2001:db8::1]:8080", "[2001:DB8::1]", "0.0.0.0:8080", "[::ffff:10.0.0.1]:80"],
)  # fmt: skip
def test_this_machine_and_every_address_pass_for_they_cannot_be_rebound(host: str) -> None:
    assert status(host) == 200
    assert status(host, guard=Guard(hosts=[], origins=[])) == 200


@pytest.mark.parametrize(
    "host",
    ["mcp.example.com", "mcp.example.com:443", "MCP.Example.COM", "ported.example.com:8443", "any.example.com",
     "any.example.com:1", "mcphost_1:80"],
)  # fmt: skip
def test_names_that_are_served_pass_in_any_case_and_with_the_ports_meant(host: str) -> None:
    assert status(host) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.nip.io", "mcp.example.com.evil.example",
     "xmcp.example.com", "example.com", "ported.example.com", "ported.example.com:8444", "localhost.", "127.1",
     "0x7f000001", "2130706433", "1.2.3.4.5", "mcp-example.com", "[::1::2]", "[1.2.3]", "a" * 5000],
)  # fmt: skip
def test_any_other_name_is_refused(host: str) -> None:
    assert status(host) == 403


@pytest.mark.parametrize(
    "host",
    [None, "", " ", ":8080", "[]", "[::1", "::1", "::1:8080", "[::1]x", "[::1%eth0]", "user@localhost",
     "evil.example@localhost", "localhost@evil.example", "localhost/evil", "localhost?x", "localhost#x", "localhost\\x",
     "localhost:8080:1", "localhost:x", "localhost:123456", "local\thost", "localhost\n", " localhost", "localhost ",
     "localhost,evil.example", "//localhost", "http://localhost", "löcalhost", "localhost\x00", "[localhost]", "*"],
)  # fmt: skip
def test_what_is_no_host_and_port_is_refused_as_malformed(host: str | None) -> None:
    assert status(host) == 400


@given(st.text(max_size=20), st.none() | st.text(max_size=20))
def test_any_text_passes_or_is_refused(host: str, origin: str | None) -> None:
    assert status(host, origin) in {200, 400, 403}


@given(st.from_regex(r"[a-z0-9-]{1,8}(\.[a-z0-9-]{1,8}){0,3}(:[0-9]{1,5})?", fullmatch=True))
def test_a_name_that_is_not_served_never_passes_whatever_its_origin(host: str) -> None:
    name = host.partition(":")[0]
    if name != "localhost" and not name.replace(".", "").isdigit():
        guard = Guard(hosts=[f"not-{name}"], origins=["http://localhost"])
        assert status(host, guard=guard) == 403
        assert status(host, "http://localhost", guard) == 403


# --- origins ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["mcp.example.com", "localhost:8080", "10.1.2.3"])
@pytest.mark.parametrize(
    "origin", [None, "https://app.example.com", "HTTPS://APP.EXAMPLE.COM", "https://ported.example.com:8443"]
)
def test_no_origin_and_every_listed_one_pass(host: str, origin: str | None) -> None:
    assert status(host, origin) == 200


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "[::1]:80"])
@pytest.mark.parametrize("origin", ["http://localhost", "http://LOCALHOST:3000", "http://127.0.0.1:6274", "http://[::1]:5", "vscode-webview://localhost"])  # fmt: skip
def test_a_page_of_this_machine_may_call_this_machine(host: str, origin: str) -> None:
    assert status(host, origin) == 200


@pytest.mark.parametrize("host", ["mcp.example.com", "10.1.2.3", "[2001:db8::1]"])
def test_a_page_of_this_machine_may_not_call_by_another_name(host: str) -> None:
    assert status(host, "http://localhost:3000") == 403


@pytest.mark.parametrize(
    "origin",
    ["", "null", "https://evil.example", "http://app.example.com", "https://app.example.com:444",
     "https://app.example.com.evil.example", "https://app.example.com/", "http://localhost.evil.example",
     "http://localhost@evil.example", "http://evil.example@localhost", "http://localhost/", "http://localhost/..",
     "//localhost", "localhost", "http:localhost", "://localhost", "http://", "http://[::1", "http://local\nhost",
     " http://localhost", "http://localhost http://evil.example", "http://10.1.2.3", "file://", "*"],
)  # fmt: skip
def test_any_other_origin_is_refused_even_towards_this_machine(origin: str) -> None:
    assert status("localhost:8080", origin) == 403


def test_the_host_is_judged_before_the_origin() -> None:
    assert status(None, "https://evil.example") == 400
    with pytest.raises(BadHttp, match="allowedHosts"):
        GUARD.check("evil.example", "https://evil.example")
    with pytest.raises(BadHttp, match="allowedOrigins"):
        GUARD.check("localhost", "https://evil.example")


def test_an_ipv6_host_may_be_listed_with_its_port() -> None:
    assert status("[2001:db8::1]:80", guard=Guard(hosts=["[2001:db8::1]:80"], origins=[])) == 200


def test_the_repr_counts() -> None:
    assert repr(GUARD) == "<Guard 4 hosts, 2 origins>"
