"""`python -m benchmarks`: the runtime in front of a server that does nothing, beside a bare uvicorn.

Prints a table and writes `benchmarks/results/latest.json`. The bare uvicorn answers a constant and is no
broker; it is the floor that the same HTTP front alone costs, so the ratio is what brokering adds: token,
permission, rate limit, deadline, sandboxed worker, metrics and log line included.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_server
from typing import Any

HERE = Path(__file__).parent
TOKEN = "benchmark"
PAYLOADS = (64, 4096, 262_144)
CLIENTS = (1, 32)
ROUNDS = 3
SECONDS = 2.0

FLOOR = """
import uvicorn
BODY = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":""}]}}'
async def app(scope, receive, send):
    while (await receive()).get("more_body"): pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(BODY))]})
    await send({"type": "http.response.body", "body": BODY})
uvicorn.run(app, port=PORT, log_level="error", access_log=False, lifespan="off")
"""


def free_port() -> int:
    """A port that is free now."""
    with create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


def policy(server: Path, port: int, admin: int) -> str:
    """A policy with one shared null server and no limit that the load could meet."""
    return json.dumps(
        {
            "version": 1,
            "runtime": {
                "listen": f"127.0.0.1:{port}", "admin": f"127.0.0.1:{admin}", "log": {"format": "json"},
            },
            "profiles": {"default": {"filesystem": {"read": ["/usr", str(server.parent)]}}},
            "mcpServers": {"null": {"command": str(server), "scope": "shared", "era": "legacy", "concurrency": 64}},
            "tenants": {
                "bench": {
                    "tokens": [{"id": "bench", "sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}],
                    "allow": ["*"],
                    "limits": {"rate": "1000000/s", "burst": 1_000_000, "concurrency": 1000},
                }
            },
        }
    )  # fmt: skip


@contextmanager
def running(command: list[str], probe: str, log: Path) -> Iterator[int]:
    """A child that answers `probe`; its pid. Ended with the block."""
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as child:
        try:
            wait_answered(probe, child)
            yield child.pid
        finally:
            child.terminate()


def wait_answered(url: str, child: subprocess.Popen[bytes], *, seconds: float = 30.0) -> None:
    """Wait until a URL answers with 200."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and child.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1) as response:
                if response.status == 200:
                    return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{url} did not answer")


def cpu_seconds(pid: int) -> float:
    """User and system time of one process (proc(5), stat, fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(port: int, path: str, pid: int, payload: int, clients: int) -> dict[str, Any]:
    """One case: the load generator's figures and the broker's own CPU per call."""
    before = cpu_seconds(pid)
    command = [
        sys.executable,
        str(HERE / "load.py"),
        str(port),
        path,
        TOKEN,
        str(payload),
        str(clients),
        str(SECONDS),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    result["cpu_us_per_call"] = (cpu_seconds(pid) - before) * 1e6 / max(1, result["calls"])
    return result


def median(rounds: list[dict[str, Any]], key: str) -> float:
    """The middle one of the rounds."""
    return sorted(each[key] for each in rounds)[len(rounds) // 2]


def main() -> None:
    """Measure, print, keep."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        server = place / "null" / "null-server"
        server.parent.mkdir()
        place.chmod(0o755)
        subprocess.run(["cc", "-O2", "-o", str(server), str(HERE / "null_server.c")], check=True)
        port, admin, floor = free_port(), free_port(), free_port()
        (place / "policy.json").write_text(policy(server, port, admin))
        ours = [sys.executable, "-m", "mcphost", "run", str(place / "policy.json")]
        bare = [sys.executable, "-c", FLOOR.replace("PORT", str(floor))]
        cases = []
        with (
            running(ours, f"http://127.0.0.1:{admin}/readyz", place / "ours.log") as our_pid,
            running(bare, f"http://127.0.0.1:{floor}/", place / "bare.log") as bare_pid,
        ):
            for payload in PAYLOADS:
                for clients in CLIENTS:
                    rounds = [
                        (measure(port, "/servers/null/mcp", our_pid, payload, clients),
                         measure(floor, "/", bare_pid, payload, clients))
                        for _ in range(ROUNDS)
                    ]  # fmt: skip
                    cases.append({"payload": payload, "clients": clients, "mcphost": [a for a, _ in rounds],
                                  "bare_uvicorn": [b for _, b in rounds]})  # fmt: skip
    versions = {
        name: importlib.metadata.version(name) for name in ("uvicorn", "httptools", "msgspec", "anyio")
    }
    report = {"python": platform.python_version(), "kernel": platform.release(), "cpus": os.cpu_count(),
              "versions": versions, "seconds": SECONDS, "cases": cases}  # fmt: skip
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / "latest.json").write_text(json.dumps(report, indent=1) + "\n")
    sys.stdout.write("payload  clients     p50 us   calls/s  cpu us/call   p50 / bare   cpu / bare\n")
    for case in cases:
        a, b = case["mcphost"], case["bare_uvicorn"]
        sys.stdout.write(
            f"{case['payload']:7}  {case['clients']:7}  {median(a, 'p50_us'):9.0f} {median(a, 'calls_per_second'):9.0f}"
            f"  {median(a, 'cpu_us_per_call'):11.0f}  {median(a, 'p50_us') / median(b, 'p50_us'):11.2f}"
            f"  {median(a, 'cpu_us_per_call') / median(b, 'cpu_us_per_call'):11.2f}\n"
        )


if __name__ == "__main__":
    main()
