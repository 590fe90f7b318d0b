"""Python servers of others, forked from zygotes, through the whole product."""

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = ROOT / ".peers" / "servers" / "bin"
TENANTS = ("red", "blue")


@pytest.fixture(scope="module")
def repository(readable_folder) -> Path:
    place = readable_folder("repository")
    names = {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "the first commit"]):
        subprocess.run(["git", *command], cwd=place, env=dict(os.environ) | names, check=True)
    subprocess.run(["chmod", "-R", "a+rwX", str(place)], check=True)
    return place


@pytest.fixture(scope="module")
def product(start_product, repository):
    if not (SCRIPTS / "mcp-server-time").exists():
        pytest.skip("the peers are not installed: make peers")
    trusted = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    policy = {
        "profiles": {"repository": {"filesystem": {"write": [str(repository)]}}},
        "mcpServers": {
            "time": {
                "command": str(SCRIPTS / "mcp-server-time"),
                "args": ["--local-timezone", "UTC"],
                "scope": "shared",
                "spawn": "zygote",
            },
            "git": {
                "command": str(SCRIPTS / "mcp-server-git"),
                "env": {**trusted, "CANARY": "${secret:canary}"},
                "profile": "repository",
                "spawn": "zygote",
            },
            "clock": {"command": "mcphost-server-clock", "spawn": "zygote"},
        },
        "tenants": {
            tenant: {"allow": ["*"], "secrets": {"canary": {"fromEnv": f"{tenant.upper()}_CANARY"}}}
            for tenant in TENANTS
        },
    }
    return start_product(policy, {f"{tenant.upper()}_CANARY": f"canary-{tenant}" for tenant in TENANTS})


def program_of(init: int) -> int:
    """The other process in a worker's user namespace: its program."""
    space = os.readlink(f"/proc/{init}/ns/user")
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if entry.name != str(init) and os.readlink(entry / "ns" / "user") == space:
                return int(entry.name)
    raise AssertionError(f"{init} is alone")


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().split("PPid:")[1].split()[0])


async def test_real_servers_answer_from_workers_that_were_forked_and_are_fully_confined(product, repository):
    when = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
    for tenant in TENANTS:
        assert "T21:00:00+09:00" in await product.text(tenant, "time", "convert_time", **when)
        log = await product.text(tenant, "git", "git_log", repo_path=str(repository), max_count=1)
        assert "the first commit" in log
        assert await product.text(tenant, "clock", "now")
    workers = product.workers()
    assert len(workers) == 5
    for worker in workers:
        assert {layer["state"] for layer in worker["layers"]} == {"enforced"}, worker
    parents = {name: {parent(program_of(each["pid"])) for each in workers if each["server"] == name}
               for name in ("time", "git", "clock")}  # fmt: skip
    assert [len(each) for each in parents.values()] == [1, 1, 1]
    assert len(set.union(*parents.values())) == 3


async def test_each_worker_has_its_own_tenants_secret_and_no_other(product, repository):
    for tenant in TENANTS:
        await product.text(tenant, "git", "git_log", repo_path=str(repository), max_count=1)
    for worker in product.workers():
        if worker["server"] == "git":
            own = worker["tenant"]
            (other,) = set(TENANTS) - {own}
            memory = readable_memory(program_of(worker["pid"]))
            assert f"canary-{own}".encode() in memory
            assert f"canary-{other}".encode() not in memory


def readable_memory(pid: int) -> bytes:
    parts = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if line.split()[1].startswith("rw"):
                first, last = (int(part, 16) for part in line.split()[0].split("-"))
                with suppress(OSError):
                    memory.seek(first)
                    parts.append(memory.read(last - first))
    return b"".join(parts)


async def test_a_worker_that_is_killed_is_followed_by_another(product):
    await product.text("red", "clock", "now")
    (worker,) = [each for each in product.workers() if (each["server"], each["tenant"]) == ("clock", "red")]
    os.kill(program_of(worker["pid"]), signal.SIGKILL)
    with anyio.fail_after(30):
        while any(each.get("pid") == worker["pid"] for each in product.workers()):
            await anyio.sleep(0.02)
    assert await product.text("red", "clock", "now")
