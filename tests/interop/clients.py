"""The clients of others: how each is started, and which steps it can take. What they do stands in tests/peers.

A run is a client in one of its modes. It makes all visits, and takes there the steps that it tries.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from interop.catalogue import MODULES, PEERS, ROOT, node_program
from interop.steps import ASKED, CANCELS, CHANGES, LISTS, READS, WHOLE, Visit, both

DRIVERS = ROOT / "tests" / "peers"
CLIENT_SECONDS = 120
MODERN, LEGACY = "2026-07-28", "2025-11-25"

# Each step is a program that starts anew: one server of either era has to do.
INSPECTED = LISTS - {"templates"} | READS | {"call memory", "call alone", "tool error"}

DEV, SDK1, NODE = "requirements/dev.txt", "tests/peers/sdk1.txt", "tests/peers/package-lock.json"


@dataclass(frozen=True)
class Client:
    """A client in all its modes, each with the revision that it must agree on."""

    name: str
    package: str
    lock: str
    program: str
    modes: Mapping[str, str]
    tries: frozenset[str] = WHOLE
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One client in one mode."""

    client: Client
    mode: str
    revision: str

    @property
    def tries(self) -> frozenset[str]:
        return self.client.tries

    @property
    def version(self) -> str:
        """The version that is pinned."""
        text = (ROOT / self.client.lock).read_text()
        if self.client.lock == NODE:
            return json.loads(text)["packages"][f"node_modules/{self.client.package}"]["version"]
        found = re.search(rf"^{re.escape(self.client.package)}==(\S+)", text, re.MULTILINE)
        assert found, self.client.package
        return found[1]

    def command(self) -> list[str]:
        if self.client.program.endswith(".mjs"):
            return [str(node_program()), "--input-type=module", "-"]
        python = PEERS / "sdk1" / "bin" / "python" if self.client.lock == SDK1 else Path(sys.executable)
        return [str(python), str(DRIVERS / self.client.program)]

    def task(self, visits: list[Visit]) -> dict:
        """What the program is told."""
        listed = [asdict(visit) | {"steps": list(visit.steps.values())} for visit in visits]
        whole = {"visits": listed, "mode": self.mode, **self.client.options}
        if self.client.program == "inspector.py":
            whole["inspector"] = [str(node_program()), str(MODULES / ".bin" / "mcp-inspector")]
        if self.client.package == "mcp-remote":
            proxy = str(MODULES / "mcp-remote" / "dist" / "proxy.js")
            options = ["--header", "HEADER", "--allow-http", "--transport", "http-only", "--silent"]
            whole["bridge"] = [str(node_program()), proxy, "URL", *options]
        return whole


CLIENTS = [
    Client("Python SDK 2", "mcp", DEV, "sdk2.py", {"auto": MODERN, "legacy": LEGACY, MODERN: MODERN}),
    Client("Python SDK 1", "mcp", SDK1, "sdk1.py", {"legacy": LEGACY}, WHOLE - CANCELS),
    Client(
        "TypeScript SDK 2",
        "@modelcontextprotocol/client",
        NODE,
        "typescript.mjs",
        {"auto": MODERN, "legacy": LEGACY},
        options={"sdk": 2},
    ),
    Client(
        "TypeScript SDK 1",
        "@modelcontextprotocol/sdk",
        NODE,
        "typescript.mjs",
        {"legacy": LEGACY},
        options={"sdk": 1},
    ),
    Client(
        "MCP Inspector, command line",
        "@modelcontextprotocol/inspector",
        NODE,
        "inspector.py",
        {"modern": MODERN, "legacy": LEGACY},
        INSPECTED,
    ),
    Client("FastMCP", "fastmcp-slim", DEV, "fastmcp_client.py", {"auto": MODERN}, WHOLE - CHANGES),
    Client("FastMCP", "fastmcp-slim", DEV, "fastmcp_client.py", {"legacy": LEGACY}),
    Client(
        "pydantic-ai",
        "pydantic-ai-slim",
        DEV,
        "pydantic_agent.py",
        {"auto": MODERN},
        WHOLE - CHANGES - CANCELS - {"completion"} | {"agent"},
    ),
    Client(
        "langchain-mcp-adapters",
        "langchain-mcp-adapters",
        SDK1,
        "langchain_client.py",
        {"legacy": LEGACY},
        WHOLE
        - CHANGES
        - CANCELS
        - both("sampling", "roots")
        - {"version", "templates", "prompts", "completion", "unknown tool"},
    ),
    Client(
        "openai-agents",
        "openai-agents",
        SDK1,
        "openai_agent.py",
        {"legacy": LEGACY},
        WHOLE - CHANGES - CANCELS - ASKED - {"version", "completion", "progress"} | {"agent"},
    ),
    Client("mcp-remote", "mcp-remote", NODE, "sdk2.py", {"auto": MODERN}, WHOLE - CANCELS),
    Client("mcp-remote", "mcp-remote", NODE, "sdk2.py", {"legacy": LEGACY}),
]
RUNS = {
    f"{client.name.partition(',')[0].replace(' ', '-')}-{mode}": Run(client, mode, revision)
    for client in CLIENTS
    for mode, revision in client.modes.items()
}


def trying(step: str) -> list[str]:
    """The names of the runs that try a step."""
    return [name for name, run in RUNS.items() if step in run.tries]


# --- doing it ----------------------------------------------------------------------------------------------------


def drive(run: Run, visits: list[Visit], home: Path) -> dict[str, dict]:
    """Start the program of a run, and give what each step of it saw."""
    tried = [
        replace(visit, steps={name: step for name, step in visit.steps.items() if name in run.tries})
        for visit in visits
    ]
    tried = [visit for visit in tried if visit.steps]
    ended = subprocess.run(
        run.command(),
        input=(DRIVERS / run.client.program).read_bytes(),
        cwd=PEERS / "node",
        env={"PATH": os.environ["PATH"], "HOME": str(home), "TASK": json.dumps(run.task(tried))},
        capture_output=True,
        timeout=CLIENT_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, (ended.stdout + ended.stderr).decode()
    told = json.loads(ended.stdout)
    return {
        name: step
        for visit, seen in zip(tried, told, strict=True)
        for name, step in zip(visit.steps, seen, strict=True)
    }
