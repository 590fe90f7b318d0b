"""What a policy means: defaults, inheritance, and what its parts say to the code that uses them."""

import datetime as dt

import pytest
from pydantic import ValidationError

from mcphost.errors import PolicyInvalid
from mcphost.policy import (
    DEFAULT_REQUIRE,
    Address,
    Fault,
    Policy,
    Rate,
    ResolvedProfile,
    Server,
    Tenant,
    Token,
    loads,
)
from sandbox import LAYERS

MIB = 1024 * 1024


def policy_of(text: str) -> Policy:
    return loads("version: 1\n" + text, file="p.yaml")


def test_the_smallest_policy_has_safe_defaults() -> None:
    policy = policy_of("")
    assert policy.runtime.listen == Address("127.0.0.1", 8080)
    assert policy.runtime.admin == Address("127.0.0.1", 9090)
    assert policy.runtime.auth == "token"
    assert policy.runtime.state_dir is None
    assert policy.runtime.allowed_origins == ()
    assert policy.runtime.limits.body == 4 * MIB
    assert policy.require == DEFAULT_REQUIRE
    assert policy.profile("default") == ResolvedProfile()
    assert policy.servers == {}


def test_what_is_required_by_default_is_known_to_the_sandbox() -> None:
    assert set(DEFAULT_REQUIRE) < set(LAYERS)
    assert not any(layer.startswith("cgroup") for layer in DEFAULT_REQUIRE)


def test_a_server_and_a_tenant_have_safe_defaults() -> None:
    policy = policy_of("mcpServers: {clock: {command: clock}}\ntenants: {acme: {}}\n")
    server, tenant = policy.servers["clock"], policy.tenants["acme"]
    assert (server.scope, server.start, server.era, server.profile) == ("tenant", "lazy", "auto", "default")
    assert (server.timeouts.start, server.timeouts.call, server.timeouts.stop) == (20.0, 30.0, 5.0)
    assert (server.restart.policy, server.restart.max, server.restart.window) == ("on-failure", 5, 300.0)
    assert (tenant.allow, tenant.tokens) == ((), ())
    assert tenant.limits.rate == Rate(600, 60.0)
    assert (tenant.limits.weight, tenant.limits.quota, tenant.limits.tools) == (1, None, {})
    assert policy.runtime.limits.queue_time == 10.0


@pytest.mark.parametrize(
    ("scope", "start", "meant"),
    [
        ("shared", "", "eager"),
        ("tenant", "", "lazy"),
        ("shared", ", start: lazy", "lazy"),
        ("tenant", ", start: eager", "eager"),
    ],
)
def test_a_server_starts_with_the_runtime_when_it_is_shared_or_told_to(
    scope: str, start: str, meant: str
) -> None:
    policy = policy_of(f"mcpServers: {{clock: {{command: clock, scope: {scope}{start}}}}}\n")
    assert policy.servers["clock"].start == meant


def test_the_admin_listener_can_be_switched_off() -> None:
    assert policy_of("runtime: {admin: null}\n").runtime.admin is None


def test_no_layer_is_required_where_the_list_is_empty() -> None:
    assert policy_of("require: []\n").require == ()


def test_a_profile_says_only_what_differs() -> None:
    policy = policy_of("""
profiles:
  default:
    resources: {limits: {memory: 128Mi}}
  web:
    extends: default
    filesystem: {read: [/usr, /opt/web], tmpfs: {/cache: 1Mi}}
    resources: {limits: {pids: 8}}
  big:
    extends: web
    filesystem: {write: [/srv/big]}
    resources: {limits: {cpu: 2, memory: 1Gi, files: 1000, message: 16Mi}}
  alone: {network: {egress: []}, syscalls: default}
""")
    assert policy.profile("default") == ResolvedProfile(memory_bytes=128 * MIB)
    assert policy.profile("big") == ResolvedProfile(
        name="big",
        read=("/usr", "/opt/web"),
        write=("/srv/big",),
        tmpfs={"/cache": MIB},
        cpu_millis=2000,
        memory_bytes=1024 * MIB,
        pids=8,
        files=1000,
        message_bytes=16 * MIB,
    )
    assert policy.profile("alone") == ResolvedProfile(name="alone")


def test_a_profile_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        policy_of("").profile("web")


def test_paths_are_normalised() -> None:
    policy = policy_of("profiles: {web: {filesystem: {read: [/opt//web/, /usr]}}}\n")
    assert policy.profile("web").read == ("/opt/web", "/usr")


@pytest.mark.parametrize(
    ("allow", "deny", "used"),
    [
        ((), (), False),
        (("*",), (), True),
        (("clock/*",), (), True),
        (("clock/now",), (), True),
        (("cl?ck/now",), (), True),
        (("Clock/now",), (), False),
        (("notes/*",), (), False),
        (("*",), ("*",), False),
        (("*",), ("clock/*",), False),
        (("*",), ("c*/*",), False),
        (("*",), ("clock/now",), True),
        (("*",), ("clock/a/*",), True),
        (("*",), ("*/delete_*",), True),
    ],
)
def test_a_tenant_uses_a_server_unless_all_of_it_is_out(allow, deny, used: bool) -> None:
    assert Tenant(allow=allow, deny=deny).may_use("clock") is used


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2027-06-30", dt.datetime(2027, 6, 30, tzinfo=dt.UTC)),
        ("2027-06-30T18:00:00Z", dt.datetime(2027, 6, 30, 18, tzinfo=dt.UTC)),
        ("2027-06-30t18:00:00.5+02:00", dt.datetime(2027, 6, 30, 16, 0, 0, 500_000, tzinfo=dt.UTC)),
    ],
)
def test_a_token_expires_at_an_instant_in_utc(written: str, meant: dt.datetime) -> None:
    policy = policy_of(f"tenants: {{acme: {{tokens: [{{id: a, fromEnv: A, expires: '{written}'}}]}}}}\n")
    assert policy.tenants["acme"].tokens[0].expires == meant


def test_an_expiry_made_in_python_needs_its_offset() -> None:
    token = Token(
        id="a", from_env="A", expires=dt.datetime(2027, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    )
    assert token.expires == dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
    with pytest.raises(ValidationError, match="needs its offset"):
        Token(id="a", from_env="A", expires=dt.datetime(2027, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1:8080", True),
        ("127.1.2.3:0", True),
        ("[::1]:8080", True),
        ("localhost:8080", True),
        ("0.0.0.0:8080", False),
        ("[::]:8080", False),
        ("mcp.example.com:8080", False),
        ("localhost.example.com:1", False),
    ],
)
def test_an_address_knows_whether_it_is_loopback(text: str, loopback: bool) -> None:
    listen = policy_of(f"runtime: {{listen: '{text}'}}\n").runtime.listen
    assert str(listen) == text
    assert listen.is_loopback is loopback


@pytest.mark.parametrize(
    "text", ["x", ":80", "a:", "a:b", "::1:80", "[::1]", "[x]:1", "1.2.3:1", "a_b:1", "a..b:1", "-a:1"]
)
def test_what_cannot_be_listened_on_is_refused(text: str) -> None:
    with pytest.raises(PolicyInvalid, match=r"runtime\.listen"):
        policy_of(f"runtime: {{listen: '{text}'}}\n")


def test_no_authentication_is_accepted_for_one_tenant_on_loopback() -> None:
    policy = policy_of("runtime: {auth: none}\ntenants: {me: {allow: ['*']}}\n")
    assert policy.runtime.auth == "none"


def test_a_policy_made_in_python_is_checked_as_a_whole() -> None:
    server = Server(command="clock", args=("-v",))
    policy = Policy(version=1, servers={"clock": server}, tenants={"acme": Tenant(allow=("clock/*",))})
    assert policy.servers["clock"] is server
    assert policy.place("tenants").file == "<policy>"
    with pytest.raises(ValidationError, match="no server has this name"):
        Policy(version=1, tenants={"acme": Tenant(allow=("clock/*",))})
    with pytest.raises(ValidationError, match="only included by load"):
        Policy(version=1, include=("mcp.json",))


def test_nothing_in_a_policy_can_be_reassigned() -> None:
    policy = policy_of("mcpServers: {clock: {command: clock}}\n")
    with pytest.raises(ValidationError, match="frozen"):
        policy.servers["clock"].command = "other"
    with pytest.raises(ValidationError, match="frozen"):
        policy.runtime = policy.runtime


def test_later_errors_can_name_their_place_in_the_file() -> None:
    policy = policy_of("mcpServers:\n  clock:\n    command: clck\n")
    fault = Fault("clck was not found", suggestion="clock", at=("command",))
    problem = policy.problem(("mcpServers", "clock"), fault, "clck")
    assert str(problem) == (
        'p.yaml:4:14: mcpServers.clock.command: clck was not found (got "clck"; did you mean clock?)'
    )


def test_names_as_in_python_are_unknown_in_a_file() -> None:
    with pytest.raises(
        PolicyInvalid, match=r"2:11: runtime.state_dir: unknown key \(did you mean stateDir\?\)"
    ):
        policy_of("runtime: {state_dir: /x}\n")
