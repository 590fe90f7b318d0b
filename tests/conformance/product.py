"""The product as its users start it, serving the fixture server of every kind without asking who is there."""

import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from conformance.cells import endpoints
from ports import free_ports

# The suite begins many calls in which the server asks, and never comes back to them. Each holds a process of a legacy
# server for a while. What it answers it answers at once, so it need not be waited for as long as people are.
ANSWER_TIME, PARKED = "1s", 64
# And it gives an answer half a second where a process may have to be started for it: spares are there before.
WARM = 2

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sysconfig.get_path("scripts"))
FIXTURE = ROOT / "tests" / "servers" / "fixture.py"
START_SECONDS, STOP_SECONDS, PAUSE_SECONDS = 60.0, 30.0, 0.05


def policy(folder: Path, port: int, admin: int) -> dict:
    """A server for each endpoint, for one tenant, which is everybody."""
    servers = {
        str(served): {
            "command": sys.executable,
            "args": [str(FIXTURE), "--era", served.era, "--name", str(served)],
            "scope": served.scope,
            "warm": WARM if served.speaks == "legacy" else 0,
        }
        for served in endpoints()
    }
    # The suite knows tools and resources by their own names, so nothing is put before them. The other server is there
    # so that lists and handshakes are put together from several.
    routes = {
        served.path: {"servers": [str(served), "clock"], "naming": "none"}
        for served in endpoints()
        if served.endpoint == "aggregated"
    }
    return {
        "version": 1,
        "runtime": {
            "listen": f"127.0.0.1:{port}",
            "admin": f"127.0.0.1:{admin}",
            "auth": "none",
            "stateDir": str(folder / "state"),
            "drain": "1s",
            "limits": {"answerTime": ANSWER_TIME, "parked": PARKED},
            "log": {"format": "json"},
        },
        "mcpServers": servers | {"clock": {"command": str(SCRIPTS / "mcphost-server-clock")}},
        "routes": routes,
        "tenants": {
            "all": {"allow": ["*"], "limits": {"rate": "100000/s", "burst": 100000, "concurrency": 500}}
        },
    }


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Start it in a folder of its own; gives its address, and stops it at the end.

    Raises:
        RuntimeError: it ended, or was not ready in time. The message has what it said.
    """
    port, admin = free_ports(2)
    file, log = folder / "policy.json", folder / "log"
    file.write_text(json.dumps(policy(folder, port, admin)))
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "mcphost", "run", file],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=out,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    try:
        _wait_ready(process, admin, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(process: subprocess.Popen, admin: int, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        with suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{admin}/readyz", timeout=5, trust_env=False).status_code == 200:
                return
        time.sleep(PAUSE_SECONDS)
    raise RuntimeError(f"it did not get ready:\n{log.read_text(errors='replace')}")
