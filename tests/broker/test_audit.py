"""The audit of a running runtime: what its records hold, and what happens when it is killed, moved, or out of room."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from harness import (
    MODERN_META,
    fixture_server,
    make_policy,
    read_answer,
    serving,
    tenant_entry,
    token_of,
    until,
)
from mcphost.errors import AuditUnavailable
from mcphost.telemetry.audit import ACT_ROOM, MAX_WAITING, Audit
from mcphost.telemetry.auditfile import AuditFile, verify
from mcphost.telemetry.metrics import Metrics
from ports import free_ports

SECONDS = 30.0
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ACME = {"acme": tenant_entry("acme", allow=["fix/*"], deny=["fix/crash"])}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "log"
    folder.mkdir(0o700)
    return folder / "audit.jsonl"


def records(*paths: Path, kind: str | None = None) -> list[dict[str, Any]]:
    lines = [line for path in paths for line in path.read_text().splitlines() if line.endswith('"}')]
    return [each for each in map(json.loads, lines) if kind in {None, each["kind"]}]


def audited(path: Path, **settings: Any) -> dict[str, Any]:
    return make_policy({"fix": fixture_server()}, ACME, audit={"file": str(path), **settings})


@pytest.mark.kernel
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_call_leaves_one_record_of_who_did_what_and_why_it_was_allowed(era: str, path: Path) -> None:
    async with serving(audited(path)) as served:
        client = await served.client(era, "fix")
        params = {"name": "echo", "arguments": {"text": "said in confidence"}}
        traceparent = f"00-{TRACE}-00f067aa0ba902b7-01"
        assert (await client.request("tools/call", params, traceparent=traceparent)).text
    (record,) = (each for each in records(path, kind="call") if each["method"] == "tools/call")
    assert record.items() >= {
        "tenant": "acme", "token": "test", "endpoint": "/servers/fix/mcp", "era": era, "server": "fix", "name": "echo",
        "decision": "allow", "rule": ["tenant allow fix/*"], "outcome": "ok", "trace": TRACE,
        "arguments_sha256": hashlib.sha256(b'{"text":"said in confidence"}').hexdigest(),
    }.items()  # fmt: skip
    assert record["request"]
    assert record["seconds"] > 0
    assert record["bytes_in"] > record["bytes_out"] > 0
    assert "confidence" not in path.read_text()
    assert token_of("acme") not in path.read_text()
    assert verify([str(path)]).torn == 0


@pytest.mark.kernel
async def test_refusals_and_failures_are_recorded_with_their_reason(path: Path) -> None:
    async with serving(audited(path)) as served:
        client = served.modern("fix")
        await client.call("crash")
        await client.request("tools/nonsense")
        await served.http.post("/mcp", json={})
        await served.http.post("/nowhere", json={}, headers={"authorization": f"Bearer {token_of('acme')}"})
        await served.http.post("/mcp", content=b"x", headers=client.headers("tools/list", None))
    denied, unknown = records(path, kind="call")
    assert (denied["decision"], denied["rule"]) == ("deny", ["tenant deny fix/crash"])
    assert (denied["outcome"], unknown["outcome"]) == ("forbidden", "invalid-request")
    refusals = records(path, kind="refusal")
    assert [each["status"] for each in refusals] == [401, 404, 400]
    assert [each.get("tenant") for each in refusals] == [None, None, "acme"]
    assert {each["client"] for each in refusals} == {"127.0.0.1"}


@pytest.mark.kernel
async def test_acts_are_recorded_from_the_start_to_the_stop(path: Path) -> None:
    async with serving(audited(path)) as served:
        await served.modern("fix").call("echo", text="x")
        os.kill(served.worker_set("fix").worker.pid, signal.SIGKILL)
        await until(lambda: served.worker_set("fix").state == "backoff", "the end is noticed")
        await served.modern("fix").call("echo", text="x")
    kinds = [each["kind"] for each in records(path)]
    assert kinds[:4] == ["file-begun", "runtime-started", "worker-ready", "call"]
    assert [kind for kind in kinds if kind.startswith("worker-")][:3] == [
        "worker-ready",
        "worker-backoff",
        "worker-ready",
    ]
    assert kinds[-2:] == ["worker-stopped", "runtime-stopped"]


@pytest.mark.kernel
async def test_a_flood_without_a_token_is_counted_and_not_all_kept(path: Path) -> None:
    async with serving(audited(path)) as served:
        for _ in range(150):
            await served.http.post("/mcp", json={})
        metrics = served.runtime.metrics.render().decode()
    kept = records(path, kind="refusal")
    assert len(kept) < 150
    left_out = 150 - len(kept)
    assert f'mcphost_audit_dropped_total{{kind="refusal"}} {left_out}.0' in metrics


@pytest.mark.kernel
async def test_arguments_are_kept_in_full_by_choice_without_what_is_secret(path: Path) -> None:
    async with serving(audited(path, arguments="full", redact=["pass-word"])) as served:
        client = served.modern("fix")
        await client.call("echo", text="x", more=[{"PassWord": {"deep": "s3cret"}, "n": 1}])
        await client.call("echo", text="y" * 70_000)
    short, long = records(path, kind="call")
    assert short["arguments"] == {"text": "x", "more": [{"PassWord": "[redacted]", "n": 1}]}
    assert "s3cret" not in path.read_text()
    assert "arguments" not in long
    assert long["arguments_sha256"]


@pytest.mark.kernel
async def test_a_renamed_file_is_followed_without_a_signal(path: Path) -> None:
    old = path.with_suffix(".1")
    async with serving(audited(path, arguments="none")) as served:
        client = served.modern("fix")
        await client.call("echo", text="x")
        path.rename(old)
        await client.call("echo", text="y")
    verify([str(old), str(path)])
    assert len(records(old, path, kind="call")) == 2
    assert not any("arguments_sha256" in each for each in records(old, path))


# --- the product in a process of its own ----------------------------------------------------------


class Product:
    """`mcphost run`, and calls to it."""

    def __init__(self, folder: Path, policy: dict[str, Any]) -> None:
        listen, admin = free_ports(2)
        file = folder / "policy.yaml"
        runtime = {"listen": f"127.0.0.1:{listen}", "admin": f"127.0.0.1:{admin}"}
        file.write_text(yaml.safe_dump({**policy, "runtime": runtime}, width=1000))
        self.log = folder / "log.txt"
        with self.log.open("a") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mcphost", "run", str(file)], stderr=stderr, stdout=subprocess.DEVNULL
            )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{listen}", timeout=SECONDS)
        self.admin = f"http://127.0.0.1:{admin}"
        self._wait_ready()

    def call(self, text: str) -> httpx.Response:
        params = {"name": "echo", "arguments": {"text": text}, "_meta": MODERN_META}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        headers = {
            "Authorization": f"Bearer {token_of('acme')}", "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "echo",
        }  # fmt: skip
        return self.http.post("/servers/fix/mcp", json=body, headers=headers)

    def room(self, size: int) -> None:
        """No file that the runtime writes can grow beyond this size: to a writer the same as a full disk."""
        _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, hard))

    def _wait_ready(self) -> None:
        end = time.monotonic() + SECONDS
        while True:
            try:
                if httpx.get(f"{self.admin}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end
            time.sleep(0.02)


@contextmanager
def product(folder: Path, policy: dict[str, Any]) -> Iterator[Product]:
    running = Product(folder, policy)
    try:
        yield running
    finally:
        running.http.close()
        running.process.kill()
        running.process.wait()


def wait_until(holds: Any) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.kernel
def test_while_the_disk_is_full_no_call_begins_and_what_had_begun_is_written_later(path: Path) -> None:
    with product(path.parent.parent, audited(path)) as running:
        assert running.call("first").status_code == 200
        wait_until(lambda: records(path, kind="call"))
        running.room(path.stat().st_size + 100)
        running.call("begun before anybody knew")
        wait_until(lambda: "audit_unavailable" in running.log.read_text())
        refused = running.call("never begun")
        assert refused.status_code == 503
        assert read_answer(refused).error["data"]["reason"] == "audit-unavailable"
        assert int(refused.headers["retry-after"]) >= 1
        running.room(resource.RLIM_INFINITY)
        wait_until(lambda: running.call("after").status_code == 200)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(SECONDS) == 0
    assert verify([str(path)]).torn == 1
    sums = [each["arguments_sha256"] for each in records(path, kind="call")]
    said = ["first", "begun before anybody knew", "after"]
    assert sums == [
        hashlib.sha256(json.dumps({"text": it}, separators=(",", ":")).encode()).hexdigest() for it in said
    ]


@pytest.mark.kernel
def test_after_a_kill_the_chain_goes_on(path: Path) -> None:
    with product(path.parent.parent, audited(path)) as running:
        for number in range(20):
            running.call(str(number))
        running.process.kill()
        running.process.wait()
    before = path.read_bytes()
    path.write_bytes(before[:-30])  # as if the last write had been cut off
    with product(path.parent.parent, audited(path)) as running:
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(SECONDS) == 0
    done = subprocess.run(
        [sys.executable, "-m", "mcphost", "audit", "verify", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cut off and said so: 1" in done.stdout
    last = done.stdout.split()[-1]
    path.write_bytes(path.read_bytes().replace(b'"name":"echo"', b'"name":"ehco"', 1))
    command = [sys.executable, "-m", "mcphost", "audit", "verify", str(path), "--expect", last]
    broken = subprocess.run(command, capture_output=True, text=True, check=False)
    assert broken.returncode == 1
    assert f"{path}:4: the record is not as it was written" in broken.stderr


# --- its bound ------------------------------------------------------------------------------------


@pytest.mark.parametrize("required", [True, False])
def test_when_too_many_records_wait_calls_are_refused_or_counted_and_acts_have_room(
    path: Path, *, required: bool
) -> None:
    metrics = Metrics("0")
    audit = Audit(AuditFile.open(str(path), lambda: 0.0), metrics, lambda: 0.0, required=required)
    assert all(audit.promise() for _ in range(MAX_WAITING))
    if required:
        with pytest.raises(AuditUnavailable):
            audit.promise()
    else:
        assert not audit.promise()
        assert 'mcphost_audit_dropped_total{kind="call"} 1.0' in metrics.render().decode()
    for _ in range(ACT_ROOM + 3):
        audit.act("worker-ready")
    assert 'mcphost_audit_dropped_total{kind="act"} 3.0' in metrics.render().decode()
