"""The command line as its users meet it: a child process, its streams and its exit status."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml

from harness import fixture_server, make_policy
from mcphost.decisions.identity import well_formed
from ports import free_ports

ROOT = Path(__file__).parents[2]
SECONDS = 60


def mcphost(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mcphost", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, **options)  # type: ignore[call-overload]


def write_policy(path: Path, **changes: object) -> tuple[Path, int]:
    port, admin = free_ports(2)
    runtime = {"listen": f"127.0.0.1:{port}", "admin": f"127.0.0.1:{admin}", "log": {"format": "json"}}
    policy = make_policy({"fix": fixture_server(scope="shared")}, runtime=runtime)
    policy["tenants"]["acme"]["tokens"] = [{"id": "made", "generate": True}]
    file = path / "policy.yaml"
    file.write_text(yaml.safe_dump({**policy, **changes}, width=1000))
    return file, port


BROKEN = sorted((ROOT / "tests" / "policy" / "broken").glob("*.yaml"))


def test_there_are_at_least_twenty_broken_policies() -> None:
    assert len(BROKEN) >= 20


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: file.stem)
def test_a_broken_policy_is_refused_with_its_place_and_without_a_traceback(file: Path) -> None:
    done = mcphost("check", str(file))
    assert done.returncode == 78
    assert re.search(rf"{re.escape(str(file.parent))}[^:]*:\d+:\d+: ", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_bug_has_another_exit_status_than_a_refusal_to_start(tmp_path: Path) -> None:
    """So that a service manager starts it again. Here a library that it stands on is broken."""
    file, _ = write_policy(tmp_path)
    (tmp_path / "uvloop.py").write_text("raise RuntimeError('broken')\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = mcphost("run", str(file), env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 70
    assert "RuntimeError: broken" in done.stderr


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_policy_that_is_not_there_is_told_so(command: str, tmp_path: Path) -> None:
    done = mcphost(command, str(tmp_path / "none.yaml"))
    assert done.returncode == 78
    assert "none.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_prints_what_would_run_and_starts_nothing(tmp_path: Path) -> None:
    file, port = write_policy(tmp_path)
    done = mcphost("check", str(file))
    assert done.returncode == 0, done.stderr
    for expected in ("server fix", "fixture.py", "reads", "/usr", "tenant acme", f"127.0.0.1:{port}", "ok"):
        assert expected in done.stdout
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_explain_says_what_is_allowed_by_its_exit_status_and_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(
        "version: 1\nmcpServers:\n  notes: {command: nowhere-to-be-found}\ntenants:\n  acme:\n"
        "    tokens: [{id: ci, fromEnv: NOT_SET, deny: [notes/delete]}]\n    allow: [notes/*]\n"
    )
    allowed = mcphost("explain", str(file), "acme", "notes/delete")
    assert (allowed.returncode, allowed.stderr) == (0, "")
    assert f"{file}:7:13: tenants.acme.allow[0]: notes/* matches" in allowed.stdout
    denied = mcphost("explain", str(file), "acme/ci", "notes/delete", "--json")
    assert denied.returncode == 1
    assert json.loads(denied.stdout)["rules"] == [
        {
            "path": "tenants.acme.tokens[0].deny[0]",
            "pattern": "notes/delete",
            "file": str(file),
            "line": 6,
            "column": 48,
        }
    ]
    unknown = mcphost("explain", str(file), "acme", "note/delete")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "did you mean notes?" in unknown.stderr
    assert mcphost("explain", str(BROKEN[0]), "acme", "notes/delete").returncode == 78


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_policy_that_fails_its_own_tests_is_not_served(command: str, tmp_path: Path) -> None:
    test = {"tenant": "acme", "token": "made", "call": "fix/echo", "expect": "denied"}
    file, _ = write_policy(tmp_path, tests=[test])
    done = mcphost(command, str(file))
    assert (done.returncode, done.stdout) == (78, "")
    assert "tests[0]: this test fails: fix/echo is allowed to acme/made, by " in done.stderr
    assert "tenants.acme.allow[0]: * matches" in done.stderr


def test_check_counts_the_tests_that_hold_and_prints_what_a_token_may(tmp_path: Path) -> None:
    tenant = {
        "allow": ["*"],
        "tokens": [{"id": "ci", "generate": True, "allow": ["fix/a"], "deny": ["fix/b"]}],
    }
    test = {"tenant": "acme", "token": "ci", "call": "fix/b", "expect": "denied"}
    file, _ = write_policy(tmp_path, tenants={"acme": tenant}, tests=[test])
    done = mcphost("check", str(file))
    assert "token  ci: allow fix/a; deny fix/b" in done.stdout, done.stderr
    assert "tests    1, all hold" in done.stdout


def test_check_prints_the_routes(tmp_path: Path) -> None:
    routes = {
        "/mcp": {"separator": "--"},
        "/mcp/x": {"naming": "none", "servers": ["fix"], "onServerDown": "fail"},
    }
    file, _ = write_policy(tmp_path, routes=routes)
    done = mcphost("check", str(file))
    assert "route    /mcp (all servers; " in done.stdout, done.stderr
    assert "; server--name; lists go without a server that is down)" in done.stdout
    assert "route    /mcp/x (fix; " in done.stdout
    assert (
        "; names without a prefix, the first server of a name; lists fail with a server that is down)"
        in done.stdout
    )


def test_check_shows_the_names_of_an_environment_and_never_its_values(tmp_path: Path) -> None:
    file, _ = write_policy(tmp_path, mcpServers={"fix": fixture_server(env={"API_KEY": "plain-canary"})})
    done = mcphost("check", str(file))
    assert "API_KEY" in done.stdout
    assert "canary" not in done.stdout + done.stderr


@pytest.mark.kernel
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_layer_that_cannot_be_enforced_stops_check_and_run(command: str, tmp_path: Path) -> None:
    """The cgroups are hidden from the runtime, as in a container that was given none."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make a mount namespace in which there are no cgroups")
    file, _ = write_policy(tmp_path, require=["seccomp", "cgroup.memory"])
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/fs/cgroup && exec "$@"', "sh"]
    done = subprocess.run(
        [*hidden, sys.executable, "-m", "mcphost", command, str(file)],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "cgroup.memory: " in done.stderr
    assert "seccomp: " not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_told_with_the_key_to_change(tmp_path: Path) -> None:
    file, port = write_policy(tmp_path)
    with socket.create_server(("127.0.0.1", port)):
        done = mcphost("run", str(file))
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "runtime.listen" in done.stderr


def test_token_new_prints_a_token_and_the_digest_to_write_down() -> None:
    done = mcphost("token", "new")
    token = done.stdout.strip()
    assert well_formed(token)
    assert hashlib.sha256(token.encode()).hexdigest() in done.stderr
    assert mcphost("token", "new").stdout != done.stdout


@pytest.mark.kernel
def test_run_shows_a_token_that_works_once_and_logs_it_never(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl, to run what is printed to be pasted")
    file, _ = write_policy(tmp_path)
    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "mcphost", "run", str(file)],
            stdout=subprocess.PIPE, stderr=stderr, text=True,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        shown = ""
        while "mcpServers" not in shown:
            line = process.stdout.readline()
            assert line, log.read_text()
            shown += line
        token = re.search(r"mcph_\w+", shown).group()  # type: ignore[union-attr]
        pasted = re.search(r"^curl .*?\}'$", shown, re.MULTILINE | re.DOTALL).group()  # type: ignore[union-attr]
        answer = subprocess.run(
            ["sh", "-c", pasted], capture_output=True, text=True, timeout=SECONDS, check=True
        )
        assert "fix__echo" in {tool["name"] for tool in json.loads(answer.stdout)["result"]["tools"]}
        admin = yaml.safe_load(file.read_text())["runtime"]["admin"]
        assert httpx.get(f"http://{admin}/healthz").status_code == 200
        assert httpx.get(f"http://{admin}/readyz").json()["status"] == "ready"
        metrics = httpx.get(f"http://{admin}/metrics").text
        assert 'mcp_requests_total{method="tools/list",server="",status="ok",tenant="acme"} 1.0' in metrics
        workers = httpx.get(f"http://{admin}/servers").json()["workers"]
        layers = {each["layer"]: each["state"] for each in workers[0]["layers"]}
        assert layers["seccomp"] == layers["landlock"] == layers["userns"] == "enforced"
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    text = log.read_text()
    assert token not in text
    events = [json.loads(line) for line in text.splitlines()]
    assert [event["event"] for event in events if event["event"] == "call_finished"] == ["call_finished"]
    assert events[-1]["event"] == "stopped"


@pytest.mark.kernel
def test_a_call_under_way_is_finished_before_the_runtime_stops(tmp_path: Path) -> None:
    file, port = write_policy(tmp_path)
    policy = yaml.safe_load(file.read_text())
    policy["tenants"]["acme"]["tokens"] = [{"id": "t", "sha256": hashlib.sha256(b"secret").hexdigest()}]
    file.write_text(yaml.safe_dump(policy, width=1000))
    process = subprocess.Popen([sys.executable, "-m", "mcphost", "run", str(file)], stderr=subprocess.DEVNULL)
    try:
        admin = policy["runtime"]["admin"]
        ready = 0
        end = time.monotonic() + SECONDS
        while ready != 200:
            assert time.monotonic() < end
            try:
                ready = httpx.get(f"http://{admin}/readyz").status_code
            except httpx.TransportError:
                time.sleep(0.02)
        body = {
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "fix__sleep", "arguments": {"seconds": 1.5},
                       "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
                                 "io.modelcontextprotocol/clientCapabilities": {}, "progressToken": 1}},
        }  # fmt: skip
        headers = {
            "Authorization": "Bearer secret", "Content-Type": "application/json",
            "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "fix__sleep",
        }  # fmt: skip
        url = f"http://127.0.0.1:{port}/mcp"
        calls = ThreadPoolExecutor(1)
        call = calls.submit(httpx.post, url, json=body, headers=headers, timeout=SECONDS)
        while not httpx.get(f"http://{admin}/servers").json()["workers"][0]["inFlight"]:
            assert time.monotonic() < end
        process.send_signal(signal.SIGTERM)
        assert call.result(SECONDS).json()["result"]["content"][0]["text"] == "slept"
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()
