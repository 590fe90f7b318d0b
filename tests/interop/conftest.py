"""The product itself, started as its users start it, and what is needed to look at it from outside."""

import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ports import free_ports

ROOT = Path(__file__).parent.parent.parent
SERVERS = ROOT / "tests" / "servers"
SCRIPTS = Path(sysconfig.get_path("scripts"))
PYTHON = SCRIPTS / "python"

START_SECONDS = 60.0
STOP_SECONDS = 30.0
CALL_SECONDS = 60.0
PAUSE_SECONDS = 0.02

# A hostile server may need many a start.
PATIENT = {"max": 1000, "backoff": {"initial": "10ms", "max": "50ms"}}

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.interop)
            item.add_marker(pytest.mark.timeout(240))


def wait_until(holds: Callable[[], object], what: str, seconds: float = STOP_SECONDS) -> None:
    """Return as soon as the condition holds; fail when it has not within some seconds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(PAUSE_SECONDS)


@dataclass
class Product:
    """One running `mcphost run`."""

    process: subprocess.Popen
    policy: dict
    directory: Path
    tokens: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://{self.policy['runtime']['listen']}"

    @property
    def admin(self) -> str:
        return f"http://{self.policy['runtime']['admin']}"

    @property
    def log(self) -> str:
        return (self.directory / "stderr").read_text(errors="replace")

    def endpoint(self, server: str | None = None) -> str:
        return f"{self.url}/mcp" if server is None else f"{self.url}/servers/{server}/mcp"

    def headers(self, tenant: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[tenant]}"}

    def is_ready(self) -> bool:
        assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log}"
        try:
            return httpx.get(f"{self.admin}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def workers(self) -> list[dict]:
        return httpx.get(f"{self.admin}/servers", timeout=5).json()["workers"]

    async def send(self, tenant: str, server: str | None, method: str, params: dict) -> dict:
        """One modern request and its answer, whole."""
        name = params.get("name") or params.get("uri")
        headers = self.headers(tenant) | {
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": method,
        }
        if name is not None:
            headers["Mcp-Name"] = name
        body = {
            "jsonrpc": "2.0",
            "id": secrets.token_hex(4),
            "method": method,
            "params": params | {"_meta": META},
        }
        # A fresh connection for each call; nothing of TLS is needed, and loading certificates takes time.
        async with httpx.AsyncClient(timeout=CALL_SECONDS, verify=False, trust_env=False) as client:
            response = await client.post(self.endpoint(server), json=body, headers=headers)
        if response.headers["content-type"].startswith("text/event-stream"):
            data = [
                line.removeprefix("data:") for line in response.text.splitlines() if line.startswith("data:")
            ]
            answer = json.loads(data[-1])
        else:
            answer = response.json()
        # What is refused before the body is read has no id.
        assert answer.get("id", body["id"]) == body["id"], answer
        return answer

    async def call(self, tenant: str, server: str | None, tool: str, **arguments: object) -> dict:
        """One tool call; its whole answer."""
        return await self.send(tenant, server, "tools/call", {"name": tool, "arguments": arguments})

    async def text(self, tenant: str, server: str | None, tool: str, **arguments: object) -> str:
        """One tool call that is expected to succeed; its text."""
        answer = await self.call(tenant, server, tool, **arguments)
        assert "result" in answer, answer
        assert not answer["result"].get("isError"), answer
        return answer["result"]["content"][0]["text"]

    def family(self) -> "Family":
        """Every process below the runtime now, itself included, and the control groups they are in."""
        pids = descendants(self.process.pid)
        return Family({pid: started_at(pid) for pid in pids}, cgroups_of(pids))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the runtime and wait for its end."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


@dataclass
class Family:
    """Processes, each with its start time, which no other process of that pid has; and their control groups."""

    processes: dict[int, str]
    cgroups: set[Path]

    def alive(self) -> set[int]:
        """Those that have not ended."""
        return {pid for pid, start in self.processes.items() if start and started_at(pid) == start}

    def cgroups_left(self) -> set[Path]:
        """Those that have not been removed."""
        return {path for path in self.cgroups if path.exists()}


def started_at(pid: int) -> str:
    """When a process started, in clock ticks; empty if there is none (proc(5), /proc/pid/stat, field 22)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]


def descendants(root: int) -> set[int]:
    """The process and all below it, daemons that were left to an init in between included."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(folder.name))
    found, new = {root}, [root]
    while new:
        new = [child for pid in new for child in children.get(pid, [])]
        found.update(new)
    return found


def cgroups_of(pids: set[int]) -> set[Path]:
    """The control groups that the processes are in and this one is not."""
    own, found = cgroup_paths("self"), set()
    for pid in pids:
        found |= cgroup_paths(str(pid))
    return found - own


def cgroup_paths(pid: str) -> set[Path]:
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return set()
    found = set()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for mounted in (controllers.removeprefix("name="), "unified", ""):
            place = Path("/sys/fs/cgroup", mounted, path.lstrip("/"))
            if (place / "cgroup.procs").exists():
                found.add(place)
                break
    return found


@pytest.fixture(scope="module")
def start_product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Product]]:
    """Start the runtime on a policy, given without its listeners and tokens, and wait until it is ready."""
    running: list[Product] = []

    def start(policy: dict, environment: dict[str, str] | None = None) -> Product:
        directory = tmp_path_factory.mktemp("runtime")
        temporary = directory / "tmp"
        temporary.mkdir()
        listen, admin = free_ports(2)
        tokens = {tenant: secrets.token_urlsafe(32) for tenant in policy["tenants"]}
        settings = {
            "listen": f"127.0.0.1:{listen}",
            "admin": f"127.0.0.1:{admin}",
            "stateDir": str(directory / "state"),
            "log": {"format": "json"},
        } | policy.get("runtime", {})
        tenants = {
            name: {"tokens": [{"id": "test", "sha256": hashlib.sha256(tokens[name].encode()).hexdigest()}]}
            | tenant
            for name, tenant in policy["tenants"].items()
        }
        whole = {"version": 1} | policy | {"runtime": settings, "tenants": tenants}
        file = directory / "policy.yaml"
        file.write_text(json.dumps(whole, indent=1))
        with (directory / "stderr").open("wb") as log:
            process = subprocess.Popen(
                [SCRIPTS / "mcphost", "run", file],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=dict(os.environ) | {"TMPDIR": str(temporary)} | (environment or {}),
            )
        product = Product(process, whole, directory, tokens)
        running.append(product)
        wait_until(product.is_ready, "ready", START_SECONDS)
        return product

    yield start
    for product in running:
        if product.process.poll() is None:
            product.process.terminate()
            try:
                product.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                product.process.kill()
                product.process.wait()


@pytest.fixture(scope="session")
def readable_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make a folder that workers, who are nobody in particular, can read and write once it is given to them."""

    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        folder.chmod(0o777)
        return folder

    return make


@pytest.fixture(scope="session")
def python_server(readable_folder: Callable[[str], Path]) -> Callable[..., dict]:
    """A policy entry for one of our own test servers, copied to a folder of its own so that it sees nothing else."""

    def describe(script: str, *options: str, **more: object) -> dict:
        copy = readable_folder(script.partition(".")[0]) / script
        copy.write_bytes((SERVERS / script).read_bytes())
        parts = SERVERS / f"{Path(script).stem}_parts"
        if parts.is_dir():
            shutil.copytree(parts, copy.parent / parts.name)
        return {"command": str(PYTHON), "args": [str(copy), *options], "restart": PATIENT} | more

    return describe
