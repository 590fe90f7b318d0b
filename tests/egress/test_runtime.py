"""The whole of it: a policy with an egress list, `mcphost run`, a client, a server that fetches, metrics and logs."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from egress.lab import Lab
from harness import MODERN_META, tenant_entry, token_of
from mcphost.errors import StartRefused
from mcphost.policy import loads
from mcphost.preflight import refuse_unenforceable
from ports import free_ports
from sandbox import LAYERS, Features, LayerStatus

pytestmark = [pytest.mark.kernel, pytest.mark.interop, pytest.mark.timeout(90)]

FETCHER = Path(__file__).parent / "fetcher.py"
SECONDS = 40.0
# The runtime's own resolver reads this file, and nobody else sees it.
RUN = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """What another process does by itself is announced by nothing but its log."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, f"not within {SECONDS:g} s: {what}"
        time.sleep(0.01)


def call(port: int, tenant: str, url: str, **more: object) -> str:
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "fetch", "arguments": {"url": url, **more}, "_meta": MODERN_META},
    }
    headers = {
        "Authorization": f"Bearer {token_of(tenant)}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "fetch",
    }
    answer = httpx.post(
        f"http://127.0.0.1:{port}/servers/web/mcp", json=body, headers=headers, timeout=SECONDS
    )
    result: dict[str, Any] = answer.json()
    assert "result" in result, result
    return result["result"]["content"][0]["text"]


OURS = {"command": "python3", "args": [str(FETCHER)]}


def write_policy(folder: Path, lab: Lab, server: dict[str, Any] = OURS) -> tuple[Path, int, int]:
    listen, admin = free_ports(2)
    policy = {
        "version": 1,
        "runtime": {
            "listen": f"127.0.0.1:{listen}",
            "admin": f"127.0.0.1:{admin}",
            "log": {"format": "json", "level": "info"},
        },
        "profiles": {
            "out": {
                "network": {
                    "egress": ["api.example.test:443", "inside.example.test:443"],
                    "allowAddresses": [lab.network],
                }
            }
        },
        "mcpServers": {"web": server | {"profile": "out"}},
        "tenants": {"acme": tenant_entry("acme"), "globex": tenant_entry("globex")},
    }
    file = folder / "policy.json"
    file.write_text(json.dumps(policy))
    (folder / "hosts").write_text(
        f"127.0.0.1 localhost inside.example.test\n{lab.address} api.example.test other.example.test\n"
    )
    return file, listen, admin


@contextlib.contextmanager
def running(folder: Path, lab: Lab, file: Path) -> Iterator[Path]:
    log = folder / "log"
    command = ["unshare", "--mount", "sh", "-c", RUN, "sh", str(folder / "hosts"),
               sys.executable, "-m", "mcphost", "run", str(file)]  # fmt: skip
    environ = {**os.environ, "SSL_CERT_FILE": str(lab.authority)}
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=environ)
    assert process.stdout is not None
    try:
        with process.stdout:
            wait_until(
                lambda: process.poll() is not None or '"listening"' in log.read_text(), "clients can connect"
            )
            assert process.poll() is None, log.read_text()
            yield log
            process.terminate()
            assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()


def test_a_server_fetches_what_its_policy_lists_and_every_connection_is_counted_and_logged(
    tmp_path: Path, lab: Lab
) -> None:
    file, listen, admin = write_policy(tmp_path, lab)
    with running(tmp_path, lab, file) as log:
        assert (
            call(listen, "acme", "https://api.example.test/hello")
            == "hello api.example.test api.example.test\n"
        )
        assert call(listen, "globex", "https://api.example.test/hello").startswith("hello")
        assert "403" in call(listen, "acme", "https://other.example.test/hello")
        assert "403" in call(listen, "acme", "https://inside.example.test/hello")
        assert "405" in call(listen, "acme", "http://api.example.test/hello")
        wait_until(lambda: log.read_text().count('"egress_finished"') == 5, "every connection has ended")
        metrics = httpx.get(f"http://127.0.0.1:{admin}/metrics").text
        workers = httpx.get(f"http://127.0.0.1:{admin}/servers").json()["workers"]
    for tenant, outcome in (
        ("acme", "done"), ("globex", "done"), ("acme", "not-listed"), ("acme", "address-refused"), ("acme", "plain-http"),
    ):  # fmt: skip
        sample = f'mcphost_egress_connections_total{{outcome="{outcome}",server="web",tenant="{tenant}"}} 1.0'
        assert sample in metrics
    assert 'mcphost_egress_bytes_total{direction="received",server="web",tenant="globex"}' in metrics
    netns = [each for worker in workers for each in worker["layers"] if each["layer"] == "netns"]
    assert all(each["state"] == "enforced" and "3128" in each["reason"] for each in netns)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    ended = [line for line in lines if line["event"] == "egress_finished"]
    assert len(ended) == 5
    done = next(line for line in ended if line["outcome"] == "done" and line["tenant"] == "acme")
    assert (done["server"], done["host"], done["port"], done["address"]) == (
        "web", "api.example.test", 443, lab.address,
    )  # fmt: skip
    assert done["sent"] > 300
    assert done["received"] > 500
    inside = next(line for line in ended if line["outcome"] == "address-refused")
    assert "127.0.0.1" in inside["why"]


def test_a_server_of_others_fetches_what_its_policy_lists(tmp_path: Path, lab: Lab) -> None:
    program = Path(__file__).parents[2] / ".peers" / "servers" / "bin" / "mcp-server-fetch"
    if not program.exists():
        pytest.skip("the peers are not installed: make peers")
    theirs = {"command": str(program), "args": ["--ignore-robots-txt"]}
    file, listen, _ = write_policy(tmp_path, lab, theirs)
    with running(tmp_path, lab, file):
        # To read a page as text it would install a program at this moment, for which it has no way out.
        page = call(listen, "acme", "https://api.example.test/hello", raw=True)
        refused = call(listen, "acme", "https://other.example.test/hello", raw=True)
    assert "hello api.example.test api.example.test" in page
    assert "Failed to fetch" in refused


def test_check_prints_what_can_be_reached(tmp_path: Path, lab: Lab) -> None:
    file, _, _ = write_policy(tmp_path, lab)
    command = [sys.executable, "-m", "mcphost", "check", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    assert f"egress api.example.test:443, inside.example.test:443; also at {lab.network}" in done.stdout
    assert "HTTPS_PROXY" in done.stdout


@pytest.mark.parametrize("layer", ["netns", "seccomp", "landlock"])
def test_a_policy_with_egress_is_refused_where_a_layer_that_it_needs_cannot_be_had(layer: str) -> None:
    """Whatever `require` says; and one without egress is not."""
    found = (LayerStatus(each, "absent" if each == layer else "enforced", "so it is") for each in LAYERS)
    features = Features(tuple(found))
    policy: dict[str, Any] = {"version": 1, "require": [], "mcpServers": {"web": {"command": "x"}}}
    refuse_unenforceable(loads(json.dumps(policy), file="p.yaml"), features)
    policy["profiles"] = {"default": {"network": {"egress": ["api.example.test:443"]}}}
    with pytest.raises(StartRefused) as caught:
        refuse_unenforceable(loads(json.dumps(policy), file="p.yaml"), features)
    assert f"{layer}: so it is" in str(caught.value)
    assert "leave web without `network.egress`" in str(caught.value)
