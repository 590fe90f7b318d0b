"""From a policy to what will run: plain values, resolved for every server and tenant."""

import string
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcphost.decisions.admission import Limits
from mcphost.decisions.permissions import Permissions
from mcphost.decisions.ratelimit import Rate
from mcphost.decisions.routing import EVERYTHING, Route
from mcphost.plan import Kept, Plan, compile_plan, contested_mounts, kept_places, mounts_of_state, worker_name
from mcphost.policy import Entry, Program, Secret, loads
from mcphost.workers.settings import SHARED
from sandbox import Mount, SandboxSpec, Tmpfs, Zygote

POLICY = """
version: 1
profiles:
  wide:
    filesystem: {read: [/usr, /srv/data/in], write: [/srv/data], tmpfs: {/tmp: 1Mi, /scratch: 2Mi}}
    resources: {limits: {cpu: 250m, memory: 64Mi, pids: 8, files: 100, message: 1Mi}}
mcpServers:
  time: {command: time, scope: shared}
  notes:
    command: notes
    profile: wide
    cwd: /srv
    env: {TOKEN: "x-${secret:key}-$$", LANG: de_DE}
    timeouts: {start: 3s, call: 4s, stop: 5s, tools: {slow: 60s}}
    restart: {policy: always, max: 2, window: 30s, backoff: {initial: 1s, max: 8s}}
    expect: {capabilities: [tools], tools: [add]}
tenants:
  acme:
    tokens: [{id: ci, fromEnv: ACME}]
    secrets: {key: {fromEnv: KEY}}
    allow: ["*"]
    deny: [time/*]
    limits:
      rate: 120/min
      burst: 7
      concurrency: 3
      quota: 900/day
      weight: 4
      tools: {notes/*: {concurrency: 2}, notes/add: {rate: 30/min}, notes/get: {rate: 1/s, burst: 5, concurrency: 1}}
  other: {tokens: [{id: ci, fromEnv: OTHER}], secrets: {key: {fromEnv: KEY}}, allow: [time/now]}
"""

PROGRAMS = {
    "time": Program("/bin/time", ("/bin/time", "-a"), (), ()),
    "notes": Program("/opt/notes/run", ("/opt/notes/run",), ("/opt/notes", "/srv"), ("/opt/$v/bin", "/usr/bin")),
}  # fmt: skip
POLICY_READ = loads(POLICY, file="p.yaml")


def plan() -> Plan:
    return compile_plan(POLICY_READ, PROGRAMS)


def filled(server: str, secrets: Mapping[str, Secret] | None = None, *kept: Kept) -> SandboxSpec:
    sandbox = plan().servers[server].sandbox
    return sandbox.fill(worker_name(server, "acme"), secrets or {"key": Secret("s3cret")}, kept)


def test_a_server_is_planned_with_everything_that_its_policy_says() -> None:
    notes = plan().servers["notes"]
    assert (notes.timeouts.start, notes.timeouts.call, notes.timeouts.stop) == (3.0, 4.0, 5.0)
    assert (notes.timeouts.for_tool("slow"), notes.timeouts.for_tool("add")) == (60.0, 4.0)
    restart = notes.restart
    assert (restart.on, restart.limit, restart.window) == ("always", 2, 30.0)
    assert (restart.initial, restart.ceiling) == (1.0, 8.0)
    assert (notes.expect.capabilities, notes.expect.tools) == ({"tools"}, {"add"})
    assert notes.message_bytes == 1024 * 1024


def test_the_limits_of_a_profile_are_those_of_the_sandbox() -> None:
    limits = filled("notes").limits
    assert (limits.cpu_millis, limits.memory_bytes, limits.pids, limits.files) == (250, 64 * 1024**2, 8, 100)


def test_mounts_go_from_outer_to_inner_and_what_is_written_wins_over_what_is_read() -> None:
    mounts = filled("notes").mounts
    assert mounts == (
        Mount(source="/opt/notes", target="/opt/notes"),
        Mount(source="/srv", target="/srv"),
        Mount(source="/srv/data", target="/srv/data", writable=True),
        Mount(source="/srv/data/in", target="/srv/data/in"),
        Mount(source="/usr", target="/usr"),
    )


def test_scratch_space_is_as_large_as_the_profile_says() -> None:
    assert set(filled("notes").tmpfs) == {
        Tmpfs(target="/tmp", size_bytes=1024**2),
        Tmpfs(target="/scratch", size_bytes=2 * 1024**2),
    }


def test_the_environment_is_the_policys_over_a_small_base() -> None:
    assert dict(filled("notes").env) == {
        "HOME": "/tmp",
        "LANG": "de_DE",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": "/tmp",
        "PATH": "/opt/$v/bin:/usr/bin:/usr/local/bin:/bin",
        "TOKEN": "x-s3cret-$",
    }


def test_nothing_of_the_runtimes_own_environment_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCPHOST_PRIVATE", "private")
    assert set(dict(filled("time").env)) == {"HOME", "LANG", "PYTHONDONTWRITEBYTECODE", "TMPDIR", "PATH"}


def test_a_plan_can_be_shown_for_it_holds_no_secret_and_a_spec_shows_none() -> None:
    assert "s3cret" not in repr(plan())
    assert "s3cret" not in repr(filled("notes"))


def test_what_differs_between_tenants_is_the_secret_and_the_data_directory() -> None:
    one = filled("notes", {"key": Secret("one")}, Kept("/data", "/state/data/one/notes", "/state/x", None))
    two = filled("notes", {"key": Secret("two")})
    assert (dict(one.env)["TOKEN"], one.data) == ("x-one-$", "/state/data/one/notes")
    assert (dict(two.env)["TOKEN"], two.data) == ("x-two-$", None)
    assert (one.argv, one.mounts, one.limits, one.require) == (two.argv, two.mounts, two.limits, two.require)


def test_a_worker_starts_in_its_directory_and_requires_what_the_policy_requires() -> None:
    assert (filled("notes").cwd, filled("time").cwd) == ("/srv", "/")
    assert filled("time").require == frozenset(plan().policy.require)
    assert "seccomp" in filled("time").require
    assert filled("time").argv == ("/bin/time", "-a")


def test_a_tenant_is_planned_with_its_patterns_limits_and_servers() -> None:
    acme, other = plan().tenants["acme"], plan().tenants["other"]
    assert (acme.allow, acme.deny, acme.servers) == (("*",), ("time/*",), ("notes",))
    assert acme.limits == Limits(Rate(2.0, 7), 3, 900)
    assert (acme.weight, other.weight) == (4, 1)
    assert acme.items == {
        "notes/*": Limits(None, 2),
        "notes/add": Limits(Rate(0.5, 30)),
        "notes/get": Limits(Rate(1.0, 5), 1),
    }
    assert (other.limits.quota, other.items) == (None, {})
    assert other.servers == ("time",)


def test_routes_are_planned_with_the_servers_that_run() -> None:
    text = (
        "version: 1\nmcpServers: {time: {command: time}, notes: {command: notes}, off: {command: x, disabled: true}}\n"
        "tenants: {a: {tokens: [{id: t, fromEnv: T}]}}\n"
        "routes: {/mcp: {}, /mcp/x: {servers: [off, notes], capabilities: [tools], naming: none, prefer: healthy, "
        "onServerDown: fail}, /mcp/y: {servers: [off]}}"
    )
    made = compile_plan(loads(text, file="p.yaml"), PROGRAMS)
    assert made.routes["/mcp"].servers is None
    assert made.routes["/mcp"].separator == "__"
    tools = frozenset({"tools"})
    bare = Route("/mcp/x", ("notes",), tools, separator="", interchangeable=True, skips_down=False)
    assert made.routes["/mcp/x"] == bare
    assert made.routes["/mcp/y"].servers == ()
    assert plan().routes == {"/mcp": EVERYTHING}


patterns = st.sampled_from(["*", "time/*", "t*/now", "?otes/*", "notes/add", "x*/*", "no*/*a*"])


@settings(deadline=None)
@given(st.lists(patterns, max_size=3), st.lists(patterns, max_size=3))
def test_the_servers_of_a_tenant_are_those_that_its_permissions_see(
    allow: list[str], deny: list[str]
) -> None:
    policy = POLICY_READ
    tenant = policy.tenants["acme"].model_copy(update={"allow": tuple(allow), "deny": tuple(deny)})
    judge = Permissions(allow, deny)
    for server in policy.servers:
        assert tenant.may_use(server) == judge.sees(server)


def test_a_minimal_policy_makes_a_plan_of_defaults() -> None:
    text = "version: 1\nmcpServers: {time: {command: time}}\ntenants: {a: {tokens: [{id: t, fromEnv: T}]}}"
    made = compile_plan(loads(text, file="p.yaml"), PROGRAMS)
    assert made.tenants["a"].servers == ()
    assert made.servers["time"].expect.tools == frozenset()


# --- names and places ---------------------------------------------------------------------------------

servers = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}(_[A-Za-z0-9-]{1,9})?", fullmatch=True)
tenants = st.just(SHARED) | st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@settings(deadline=None)
@given(servers, tenants)
def test_the_name_of_a_worker_is_one_that_a_sandbox_takes(server: str, tenant: str) -> None:
    name = worker_name(server, tenant)
    assert SandboxSpec(name=name, argv=("x",)).name == name
    assert set(name) <= set(string.ascii_lowercase + string.digits + "-")


@settings(deadline=None)
@given(st.lists(st.tuples(servers, tenants), min_size=2, max_size=5, unique=True))
def test_different_workers_have_different_names(workers: list[tuple[str, str]]) -> None:
    assert len({worker_name(*each) for each in workers}) == len(workers)


def test_names_that_read_alike_stay_apart() -> None:
    assert worker_name("a-b", "c") != worker_name("a", "b-c")
    assert worker_name("A", "c") != worker_name("a", "c")


KEPT_POLICY = """
version: 1
runtime: {stateDir: /state}
mcpServers:
  time:
    command: time
    data: {size: 1Gi}
    volumes: [{name: cache, target: /cache, mode: rw}, {name: pile, target: /pile, mode: rw, size: 16Mi}]
  common: {command: time, scope: shared, volumes: ["cache:/cache:rw"]}
  given: {command: time, volumes: ["/host/in:/seen", {source: /host/out, target: /a, mode: rw}]}
"""


def test_each_tenant_has_its_own_places_and_a_shared_server_has_one_for_all() -> None:
    servers = loads(KEPT_POLICY, file="p.yaml").servers
    assert kept_places("/state", "acme", "time", servers["time"]) == (
        Kept("/data", "/state/data/acme/time.img", "/state/data/acme/time", 1024**3),
        Kept("/cache", "/state/volumes/acme/time/cache/files", "/state/volumes/acme/time/cache/image", None),
        Kept(
            "/pile",
            "/state/volumes/acme/time/pile/image",
            "/state/volumes/acme/time/pile/files",
            16 * 1024**2,
        ),
    )
    assert kept_places("/state", SHARED, "common", servers["common"]) == (
        Kept(
            "/cache",
            "/state/volumes/_shared/common/cache/files",
            "/state/volumes/_shared/common/cache/image",
            None,
        ),
    )
    assert kept_places(None, "acme", "given", servers["given"]) == ()


def test_kept_places_and_their_sizes_reach_the_sandbox() -> None:
    policy = loads(KEPT_POLICY, file="p.yaml")
    made = compile_plan(policy, dict.fromkeys(policy.servers, PROGRAMS["time"])).servers["time"]
    spec = made.sandbox.fill("time", {}, kept_places("/state", "acme", "time", made.server))
    assert (spec.data, spec.data_size_bytes) == ("/state/data/acme/time.img", 1024**3)
    assert [(each.target, each.size_bytes) for each in spec.volumes] == [
        ("/cache", None),
        ("/pile", 16 * 1024**2),
    ]


def test_a_path_of_the_host_is_seen_under_another_and_read_only_unless_it_says_otherwise() -> None:
    policy = loads(KEPT_POLICY, file="p.yaml")
    made = compile_plan(policy, dict.fromkeys(policy.servers, PROGRAMS["time"]), lambda path: f"/real{path}")
    assert set(made.servers["given"].sandbox.mounts) >= {
        Mount(source="/real/host/in", target="/seen"),
        Mount(source="/real/host/out", target="/a", writable=True),
    }


def test_no_server_is_given_a_part_of_what_is_kept_for_tenants_nor_what_lies_around_it() -> None:
    text = """
version: 1
profiles: {wide: {filesystem: {read: [/srv]}}, deep: {filesystem: {write: [/srv/state/data/acme]}}}
mcpServers:
  time: {command: a, profile: wide}
  notes: {command: b, profile: deep}
  same: {command: c, volumes: ["/srv/state:/seen"]}
  apart: {command: d, volumes: ["/srv/state-of-things:/seen"]}
"""
    policy = loads(text, file="p.yaml")
    made = compile_plan(policy, dict.fromkeys(policy.servers, PROGRAMS["time"]))
    assert {name for name, _ in mounts_of_state(made, "/srv/state")} == {"time", "notes", "same"}


def test_what_lies_below_a_writable_path_is_contested_and_the_path_itself_is_not() -> None:
    text = """
version: 1
profiles: {writer: {filesystem: {write: [/srv/shared]}}, reader: {filesystem: {read: [/usr, /srv/shared/sub]}}}
mcpServers: {time: {command: a, profile: writer}, notes: {command: b, profile: reader}}
"""
    made = compile_plan(loads(text, file="p.yaml"), dict.fromkeys(("time", "notes"), PROGRAMS["time"]))
    assert contested_mounts(made) == [("notes", "/srv/shared/sub", "/srv/shared")]


def test_links_are_resolved_when_the_plan_is_made_and_the_path_inside_stays() -> None:
    made = compile_plan(POLICY_READ, PROGRAMS, lambda path: f"/real{path}")
    mounts = made.servers["time"].sandbox.mounts
    assert mounts
    assert all(mount.source == f"/real{mount.target}" for mount in mounts)


REACHING = """
version: 1
profiles:
  out:
    network: {egress: [api.example.com:443, "*.cdn.example.com:443"], allowAddresses: [10.20.0.0/16]}
  quiet: {extends: out, network: {egress: []}}
  same: {extends: out}
mcpServers:
  reaching: {command: a, profile: out, env: {HTTPS_PROXY: "http://elsewhere:1"}}
  quiet: {command: a, profile: quiet}
  same: {command: a, profile: same}
"""
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def reaching(text: str = REACHING, certificates: str | None = "/srv/bundle.pem") -> Plan:
    policy = loads(text, file="p.yaml")
    programs = dict.fromkeys(policy.servers, PROGRAMS["time"])
    return compile_plan(policy, programs, lambda path: f"/real{path}", certificates)


def test_an_egress_list_gives_the_sandbox_a_way_out_and_the_proxy_its_rules() -> None:
    made = reaching().servers
    assert {name: server.sandbox.network for name, server in made.items()} == {
        "reaching": "proxy", "quiet": "none", "same": "proxy",
    }  # fmt: skip
    egress = made["same"].egress
    assert egress is not None
    assert [str(rule) for rule in egress.rules] == ["api.example.com:443", "*.cdn.example.com:443"]
    assert [str(network) for network in egress.networks] == ["10.20.0.0/16"]
    assert made["quiet"].egress is None


def test_a_worker_with_a_way_out_is_told_of_its_proxy_and_certificates_and_no_other_is() -> None:
    made = reaching().servers
    env = dict(made["same"].sandbox.env)
    assert {env[name] for name in ("HTTP_PROXY", "https_proxy", "all_proxy")} == {"http://127.0.0.1:3128"}
    assert (env["NO_PROXY"], env["NODE_USE_ENV_PROXY"]) == ("localhost,127.0.0.1,::1", "1")
    assert {env[name] for name in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE")} == {BUNDLE}
    assert Mount(source="/real/srv/bundle.pem", target=BUNDLE) in made["same"].sandbox.mounts
    assert dict(made["reaching"].sandbox.env)["HTTPS_PROXY"] == "http://elsewhere:1"
    assert not [name for name, _ in made["quiet"].sandbox.env if "PROXY" in name.upper() or "CERT" in name]
    assert all(mount.target != BUNDLE for mount in made["quiet"].sandbox.mounts)


@pytest.mark.parametrize("place", ["/etc/ssl", "/etc/ssl/certs", BUNDLE])
def test_certificates_that_the_policy_grants_itself_are_left_to_it(place: str) -> None:
    text = REACHING.replace("  out:\n", f"  out:\n    filesystem: {{read: [/usr, {place}]}}\n")
    sandbox = reaching(text).servers["same"].sandbox
    assert [mount.source for mount in sandbox.mounts if mount.target.startswith("/etc")] == [f"/real{place}"]
    assert "SSL_CERT_FILE" not in dict(sandbox.env)


def test_without_certificates_on_this_machine_none_are_promised() -> None:
    sandbox = reaching(certificates=None).servers["same"].sandbox
    assert "SSL_CERT_FILE" not in dict(sandbox.env)
    assert "HTTPS_PROXY" in dict(sandbox.env)


def test_a_zygote_is_planned_with_nothing_secret() -> None:
    policy = loads(
        POLICY.replace(
            "command: notes\n",
            "command: notes\n    spawn: zygote\n    preload: [json, notes]\n",
        ).replace(
            "LANG: de_DE}", 'LANG: de_DE, PYTHONPATH: "/x$$", PYTHONHASHSEED: 1, PYTHONKEY: "${secret:key}"}'
        ),
        file="p.yaml",
    )
    entry = Entry(("/bin/python", "-u"), "notes", "notes:main", ("/bin/notes", "--all"))
    programs = {**PROGRAMS, "notes": replace(PROGRAMS["notes"], entry=entry)}
    sandbox = compile_plan(policy, programs).servers["notes"].sandbox
    shape = sandbox.shape(kept_places("/state", "x", "notes", policy.servers["notes"]))
    assert shape.zygote == Zygote(
        interpreter=("/bin/python", "-u"),
        preload=("notes", "json"),
        run="notes:main",
        argv=("/bin/notes", "--all"),
        settings=(("PYTHONPATH", "/x$"),),
    )
    assert shape.env == ()
    assert filled("notes").zygote is None
