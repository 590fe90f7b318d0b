"""The clients of others: how each is started, and which steps it can take. What they do stands in tests/peers.

A run is a client in one of its modes. It makes three visits, to the endpoint of all servers and to those of a legacy and
a modern one alone, and takes there the steps that it tries.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from interop.catalogue import MODULES, PEERS, REAL, ROOT, Place, node_program

DRIVERS = ROOT / "tests" / "peers"
CLIENT_SECONDS = 120
MODERN, LEGACY = "2026-07-28", "2025-11-25"

Step = list[object]
# What to do where: an address, and steps by name.
Visits = list[tuple[str, dict[str, Step]]]


@dataclass(frozen=True)
class Run:
    """One client in one mode: what it is called, the package whose version counts, and what it tries.

    `revision` is the one that it must have agreed on, where it tells.
    """

    client: str
    mode: str
    package: str
    lock: str
    program: str
    revision: str | None
    tries: frozenset[str]
    options: Mapping[str, object] = field(default_factory=dict)
    bridge: bool = False

    def command(self) -> list[str]:
        if self.program.endswith(".mjs"):
            return [str(node_program()), "--input-type=module", "-"]
        python = PEERS / "sdk1" / "bin" / "python" if self.lock.endswith("sdk1.txt") else Path(sys.executable)
        return [str(python), str(DRIVERS / self.program)]

    def task(self, visits: list[tuple[str, list[Step]]], token: str) -> dict:
        """What the program is told."""
        whole = {"token": token, "visits": [{"url": url, "steps": steps} for url, steps in visits]}
        whole |= self.options
        if self.program == "inspector.py":
            whole["inspector"] = [str(node_program()), str(MODULES / ".bin" / "mcp-inspector")]
        if self.bridge:
            proxy = str(MODULES / "mcp-remote" / "dist" / "proxy.js")
            whole["bridge"] = [
                str(node_program()),
                proxy,
                "URL",
                "--header",
                f"Authorization: Bearer {token}",
            ]
            whole["bridge"] += ["--allow-http", "--transport", "http-only", "--silent"]
        return whole


# --- the steps ---------------------------------------------------------------------------------------------------

DOCUMENT = "demo://resource/static/document/architecture.md"


def at_all(place: Place) -> dict[str, Step]:
    """The steps at the endpoint of all servers."""
    calls = {f"call {name}": ["call", f"{name}__{it.tool}", it.arguments(place)] for name, it in REAL.items()}
    return {
        "tools": ["tools"],
        **calls,
        "tool error": ["call", "filesystem__read_text_file", {"path": "/nowhere"}],
        "unknown tool": ["call", "time__nothing", {}],
    }


def at_time(place: Place) -> dict[str, Step]:
    """The steps at the endpoint of a server that speaks both eras."""
    return {"call alone": ["call", REAL["time"].tool, REAL["time"].arguments(place)]}


AT_EVERYTHING: dict[str, Step] = {
    "version": ["version"],
    "agent": ["agent", "echo", {"message": "round and round"}],
    "resources": ["resources"],
    "templates": ["templates"],
    "read": ["read", DOCUMENT],
    "unknown resource": ["read", "demo://nothing"],
    "prompts": ["prompts"],
    "prompt": ["prompt", "args-prompt", {"city": "Oslo"}],
    "completion": ["complete", "completable-prompt", "department", "E"],
    "progress": ["progress", "trigger-long-running-operation", {"duration": 0.2, "steps": 4}],
}

CALLS = frozenset(f"call {name}" for name in REAL)
LISTS = frozenset({"tools", "resources", "templates", "prompts"})
READS = frozenset({"read", "unknown resource", "prompt"})
ERRORS = frozenset({"tool error", "unknown tool"})
WHOLE = CALLS | LISTS | READS | ERRORS | {"version", "call alone", "completion", "progress"}
# Each step is a program that starts anew: one server of either era has to do.
INSPECTED = LISTS - {"templates"} | READS | {"call memory", "call alone", "tool error"}

DEV, SDK1, NODE = "requirements/dev.txt", "tests/peers/sdk1.txt", "tests/peers/package-lock.json"


def runs() -> dict[str, Run]:
    """Every run, by a name for tests."""
    v2 = "@modelcontextprotocol/client"
    inspector = "@modelcontextprotocol/inspector"
    listed = [
        *(
            Run("Python SDK 2", mode, "mcp", DEV, "sdk2.py", revision, WHOLE, {"mode": mode})
            for mode, revision in (("auto", MODERN), ("legacy", LEGACY), (MODERN, MODERN))
        ),
        Run("Python SDK 1", "legacy", "mcp", SDK1, "sdk1.py", LEGACY, WHOLE),
        *(
            Run(
                "TypeScript SDK 2",
                mode,
                v2,
                NODE,
                "typescript.mjs",
                revision,
                WHOLE,
                {"sdk": 2, "mode": mode},
            )
            for mode, revision in (("auto", MODERN), ("legacy", LEGACY))
        ),
        Run(
            "TypeScript SDK 1",
            "legacy",
            "@modelcontextprotocol/sdk",
            NODE,
            "typescript.mjs",
            LEGACY,
            WHOLE,
            {"sdk": 1},
        ),
        *(
            Run(
                "MCP Inspector, command line",
                era,
                inspector,
                NODE,
                "inspector.py",
                None,
                INSPECTED,
                {"era": era},
            )
            for era in ("modern", "legacy")
        ),
        *(
            Run("FastMCP", mode, "fastmcp-slim", DEV, "fastmcp_client.py", revision, WHOLE, {"mode": mode})
            for mode, revision in (("auto", MODERN), ("legacy", LEGACY))
        ),
        Run(
            "pydantic-ai",
            "auto",
            "pydantic-ai-slim",
            DEV,
            "pydantic_agent.py",
            MODERN,
            WHOLE - {"completion"} | {"agent"},
        ),
        Run(
            "langchain-mcp-adapters",
            "legacy",
            "langchain-mcp-adapters",
            SDK1,
            "langchain_client.py",
            None,
            WHOLE - {"version", "templates", "prompts", "completion", "unknown tool"},
        ),
        Run(
            "openai-agents",
            "legacy",
            "openai-agents",
            SDK1,
            "openai_agent.py",
            None,
            WHOLE - {"version", "completion", "progress"} | {"agent"},
        ),
        Run(
            "mcp-remote",
            "legacy",
            "mcp-remote",
            NODE,
            "sdk2.py",
            LEGACY,
            WHOLE,
            {"mode": "legacy"},
            bridge=True,
        ),
    ]
    return {f"{run.client.partition(',')[0].replace(' ', '-')}-{run.mode}": run for run in listed}


RUNS = runs()


def trying(step: str) -> list[str]:
    """The names of the runs that try a step."""
    return [name for name, run in RUNS.items() if step in run.tries]


# --- doing it ----------------------------------------------------------------------------------------------------


def drive(run: Run, visits: Visits, token: str, home: Path) -> dict[str, dict]:
    """Start the program of a run, and give what each step of it saw."""
    tried = [
        (url, {name: step for name, step in steps.items() if name in run.tries}) for url, steps in visits
    ]
    task = run.task([(url, list(steps.values())) for url, steps in tried], token)
    ended = subprocess.run(
        run.command(),
        input=(DRIVERS / run.program).read_bytes(),
        cwd=PEERS / "node",
        env={"PATH": os.environ["PATH"], "HOME": str(home), "TASK": json.dumps(task)},
        capture_output=True,
        timeout=CLIENT_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, (ended.stdout + ended.stderr).decode()
    told = json.loads(ended.stdout)
    return {
        name: step
        for (_, steps), seen in zip(tried, told, strict=True)
        for name, step in zip(steps, seen, strict=True)
    }


def drive_all(visits: Callable[[], Visits], token: str, home: Path) -> dict[str, Future]:
    """Start all clients, as many at once as there are processors; each future gives what `drive` gives."""
    with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 1)) as workers:
        return {name: workers.submit(drive, run, visits(), token, home) for name, run in RUNS.items()}
