"""The product under test: `mcphost run` with two tenants, as root or as an ordinary user, and calls to it."""

import hashlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chaos import system
from ports import free_ports

ROOT = Path(__file__).resolve().parent.parent.parent
FIXTURE = ROOT / "tests" / "servers" / "fixture.py"
TENANTS = ("alpha", "beta")
# A user that no machine has.
USER = 54321
WARM = 1
FORK_SERVER_SPARES = 2
WAIT_SECONDS = 45.0
PAUSE_SECONDS = 0.01
# A kill costs a start; nothing here is about giving up.
PATIENT = {"max": 100000, "backoff": {"initial": "10ms", "max": "50ms"}}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "chaos", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


class NotInTime(AssertionError):
    """Something that must come did not."""


def wait_for(holds: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise NotInTime(f"not within {seconds:g} s: {what}")
        time.sleep(PAUSE_SECONDS)


@dataclass
class Product:
    """One run of the product over a folder that stays the same from run to run."""

    folder: Path
    user: bool
    process: subprocess.Popen
    port: int
    admin: int
    groups: system.OwnGroups

    @classmethod
    def start(cls, folder: Path, groups: system.OwnGroups, *, user: bool) -> "Product":
        """Start it without waiting for anything."""
        port, admin = free_ports(2)
        for name in ("state", "tmp", "server"):
            (folder / name).mkdir(exist_ok=True)
        shutil.copy(FIXTURE, folder / "server")
        parts = FIXTURE.with_name("fixture_parts")
        shutil.copytree(parts, folder / "server" / parts.name, dirs_exist_ok=True)
        policy = folder / "policy.json"
        policy.write_text(json.dumps(policy_for(folder, port, admin, user=user)))
        command = [sys.executable, "-m", "mcphost", "run", str(policy)]
        if user:
            for place in (folder / "state", folder / "tmp"):
                os.chown(place, USER, USER)
            command = [sys.executable, "-m", "chaos.ordinary", str(USER), *command]
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**os.environ, "TMPDIR": str(folder / "tmp"), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            )
        return cls(folder, user, process, port, admin, groups)

    def page(self, path: str) -> dict:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as response:
            return json.load(response)

    def is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise NotInTime(f"the runtime ended with {self.process.returncode}")
        try:
            return self.page("/readyz")["status"] == "ready"
        except (OSError, http.client.HTTPException):
            return False

    def spawner(self) -> int:
        """The fork server's pid; -1 while there is none."""
        for pid in system.tree().get(self.process.pid, []):
            if not system.is_zombie(pid):
                return pid
        return -1

    def inits(self) -> dict[str, int]:
        """The init of each tenant's worker, as the admin page shows it."""
        try:
            workers = self.page("/servers")["workers"]
        except (OSError, http.client.HTTPException):
            return {}
        return {worker["tenant"]: worker["pid"] for worker in workers if worker.get("pid")}

    @property
    def full_house(self) -> int:
        """How many processes there are below the runtime when every spare is there: each worker has an init."""
        workers = len(TENANTS) * (1 if self.user else 1 + WARM) + FORK_SERVER_SPARES
        return 1 + 2 * workers

    def census(self) -> dict[str, int]:
        """What must be the same again whenever the product is at rest."""
        spawner = self.spawner()
        return {
            "processes": len(system.descendants(self.process.pid)),
            "runtime descriptors": system.descriptors(self.process.pid),
            "spawner descriptors": system.descriptors(spawner),
            "groups": len([name for name in self.groups.names() if f".{spawner}." in name]),
        }

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise NotInTime("the runtime did not stop") from None

    def call(self, tenant: str, connection: http.client.HTTPConnection, text: str) -> dict:
        """One call of the tool `echo`; the whole answer. Raises what the connection raises."""
        params = {"name": "echo", "arguments": {"text": text}, "_meta": META}
        headers = {
            "Authorization": f"Bearer {token_of(tenant)}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": "tools/call",
            "Mcp-Name": "echo",
        }
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        connection.request("POST", "/servers/fix/mcp", body, headers)
        answer = connection.getresponse().read()
        if answer.startswith(b"{"):
            return json.loads(answer)
        return json.loads(answer.rpartition(b"data:")[2])


def token_of(tenant: str) -> str:
    return f"the-token-of-{tenant}"


def policy_for(folder: Path, port: int, admin: int, *, user: bool) -> dict:
    """Two tenants with a worker each; as root with all that can be left behind: loop devices, mounts, warm spares."""
    more = {} if user else {"data": {"size": "16Mi"}, "warm": WARM}
    digest = {tenant: hashlib.sha256(token_of(tenant).encode()).hexdigest() for tenant in TENANTS}
    limits = {"rate": "1000000/s", "burst": 1000000, "concurrency": 100}
    return {
        "version": 1,
        "runtime": {
            "listen": f"127.0.0.1:{port}",
            "admin": f"127.0.0.1:{admin}",
            "stateDir": str(folder / "state"),
            "drain": "1s",
            "log": {"format": "json"},
        },
        "mcpServers": {
            "fix": {
                "command": sys.executable,
                "args": [str(folder / "server" / "fixture.py")],
                "restart": PATIENT,
                "timeouts": {"stop": "300ms"},
                **more,
            }
        },
        "tenants": {
            tenant: {"tokens": [{"id": "chaos", "sha256": digest[tenant]}], "allow": ["*"], "limits": limits}
            for tenant in TENANTS
        },
    }
