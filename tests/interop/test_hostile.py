"""A hostile server gets nowhere, and nobody else notices that it tried."""

import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest

CANARY = "canary-of-the-runtime"
SECRET = "canary-of-a-file"
MEMORY = "128Mi"
PIDS = 32


def policy_for(python_server, runtime: dict | None = None) -> dict:
    limits = {"rate": "1000000/min", "burst": 10000, "concurrency": 500}
    hostile = {
        "profile": "tight",
        "timeouts": {"call": "30s", "stop": "500ms", "tools": {"never_answer": "1s"}},
    }
    return {
        "runtime": runtime or {},
        "profiles": {
            "tight": {
                "resources": {"limits": {"memory": MEMORY, "pids": PIDS, "files": 64, "message": "1Mi"}}
            },
        },
        "mcpServers": {
            "hostile": python_server("hostile.py", **hostile),
            "honest": python_server("fixture.py", "--era", "legacy"),
        },
        "tenants": {
            "attacker": {"allow": ["hostile/*"], "limits": limits},
            "neighbour": {"allow": ["honest/*", "hostile/*"], "limits": limits},
        },
    }


@pytest.fixture(scope="module")
def product(start_product, python_server):
    return start_product(policy_for(python_server), {"MCPHOST_TEST_CANARY": CANARY})


@asynccontextmanager
async def neighbour_served(product) -> AsyncIterator[None]:
    """Call the neighbour's server before, all through and after the block; each answer must be right."""
    stop, served = anyio.Event(), 0

    async def keep_calling() -> None:
        nonlocal served
        while not stop.is_set():
            served += 1
            assert await product.text("neighbour", "honest", "echo", text=f"{served}") == f"{served}"

    before = await product.text("neighbour", "honest", "whoami")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep_calling)
        yield
        stop.set()
    after = await product.text("neighbour", "honest", "whoami")
    assert json.loads(before)["pid"] == json.loads(after)["pid"]
    assert served


async def attack(product, tool: str, **arguments: object) -> dict:
    async with neighbour_served(product):
        return await product.call("attacker", "hostile", tool, **arguments)


async def attack_text(product, tool: str, **arguments: object) -> str:
    answer = await attack(product, tool, **arguments)
    assert "result" in answer, answer
    return answer["result"]["content"][0]["text"]


async def assert_back_in_service(product) -> None:
    """After whatever happened to the worker, calls are answered again."""
    with anyio.fail_after(30):
        while True:
            answer = await product.call("attacker", "hostile", "list_dir", path="/")
            if "result" in answer:
                return
            await anyio.sleep(0.05)


# --- reaching out ------------------------------------------------------------------------------------------------


async def test_files_of_the_host_cannot_be_read(product, tmp_path):
    canary = tmp_path / "secret"
    canary.write_text(SECRET)
    for folder in (canary, *canary.parents):
        if folder == Path("/tmp"):
            break
        folder.chmod(0o755)
    policy = product.directory / "policy.yaml"
    for path in (
        canary,
        policy,
        Path("/etc/shadow"),
        Path(f"/proc/{product.process.pid}/environ"),
        Path("/root/.profile"),
    ):
        said = await attack_text(product, "read_host_file", path=str(path))
        assert said.startswith("refused: "), path
    for folder in (tmp_path, product.directory, Path("/home"), Path("/boot"), Path("/var"), Path("/sys")):
        said = await attack_text(product, "list_dir", path=str(folder))
        assert said == "[]" or said.startswith("refused: "), folder


async def test_nothing_of_the_host_can_be_written(product):
    for path in ("/etc/passwd", "/usr/bin/env", "/hostile", "/proc/sys/kernel/core_pattern", "/dev/hostile"):
        assert (await attack_text(product, "write_host_file", path=path)).startswith("refused: "), path


async def test_the_environment_and_the_files_of_the_runtime_are_not_inherited(product):
    seen = json.loads(await attack_text(product, "env_dump"))
    assert CANARY not in json.dumps(seen)
    assert product.tokens["attacker"] not in json.dumps(seen)
    assert set(seen["env"]) <= {
        "HOME",
        "LANG",
        "LC_CTYPE",
        "PATH",
        "PYTHONDONTWRITEBYTECODE",
        "TMPDIR",
        "PWD",
    }
    kinds = {number: target.partition(":")[0] for number, target in seen["fds"].items()}
    # The fourth is the folder of descriptors itself, open while it is listed.
    assert sorted(kinds)[:3] == ["0", "1", "2"]
    assert len(kinds) <= 4
    assert {kinds[number] for number in "012"} == {"pipe"}


async def test_a_worker_is_nobody_with_no_privilege_in_namespaces_of_its_own(product):
    seen = json.loads(await attack_text(product, "env_dump"))
    status = dict(line.split(":\t", 1) for line in seen["status"].splitlines() if ":\t" in line)
    assert 0 not in seen["ids"]
    assert {status[name].strip("0") for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {""}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert {int(pid) for pid in seen["pids"]} <= {1, seen["pid"]}
    assert seen["hostname"] != os.uname().nodename
    assert all(name == "lo" or name.startswith("refused: ") for name in seen["interfaces"])
    assert len([line for line in seen["uidMap"].splitlines() if line.split()[1] == "0"]) == 0


async def test_the_ports_of_the_runtime_cannot_be_reached(product):
    for address in (product.policy["runtime"]["listen"], product.policy["runtime"]["admin"]):
        host, _, port = address.partition(":")
        assert (await attack_text(product, "connect", host=host, port=int(port))).startswith("refused: ")
    assert (await attack_text(product, "connect", host="169.254.169.254", port=80)).startswith("refused: ")


async def test_unix_sockets_of_the_host_cannot_be_reached(product, tmp_path):
    name = f"mcphost-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as abstract, socket.socket(socket.AF_UNIX) as path:
        abstract.bind(f"\0{name}")
        abstract.listen()
        path.bind(str(tmp_path / "socket"))
        path.listen()
        for address in (f"@{name}", str(tmp_path / "socket"), "/run/docker.sock"):
            assert (await attack_text(product, "connect", unix=address)).startswith("refused: ")


async def test_system_calls_that_lead_out_are_refused(product):
    seen = json.loads(await attack_text(product, "try_syscalls"))
    # EINVAL: that user does not exist in here, as it should be.
    assert seen.pop("setuid") in {"EPERM", "EINVAL"}
    assert {name: outcome for name, outcome in seen.items() if outcome not in {"EPERM", "ENOSYS"}} == {}


async def test_killing_everyone_in_sight_kills_nobody_else(product):
    answer = await attack(product, "kill_everyone")
    assert "not tried" not in json.dumps(answer)
    await assert_back_in_service(product)


# --- using it up -------------------------------------------------------------------------------------------------


async def test_more_memory_than_allowed_ends_the_worker_and_nothing_else(product):
    answer = await attack(product, "memory_hog", mb=600)
    if "result" in answer:
        assert answer["result"]["content"][0]["text"].startswith("refused")
    else:
        assert answer["error"]["data"]["reason"] == "worker-died"
    await assert_back_in_service(product)


async def test_a_fork_bomb_is_stopped_at_the_limit(product):
    seen = json.loads(await attack_text(product, "fork_bomb", n=500))
    assert seen["stopped_by"] == "EAGAIN"
    assert seen["started"] < PIDS


async def test_open_files_are_limited(product):
    seen = json.loads(await attack_text(product, "open_many_files"))
    assert seen["stopped_by"] == "EMFILE"
    assert seen["opened"] < 64


async def test_the_temporary_folder_is_limited(product):
    seen = json.loads(await attack_text(product, "fill_disk", path="/tmp/filler", mb=600))
    assert seen["stopped_by"] in {"ENOSPC", "ENOMEM"}
    assert seen["written"] <= 64 << 20


async def test_a_flood_on_standard_error_slows_only_its_server_and_fills_no_log(product):
    before = len(product.log)
    answer = await attack(product, "flood_stderr", mb=2)
    assert "flooded" in json.dumps(answer) or answer["error"]["data"]["reason"] == "timeout"
    assert len(product.log) - before < 1 << 20
    await assert_back_in_service(product)


# --- lying on the wire -------------------------------------------------------------------------------------------


async def test_garbage_before_an_answer_is_passed_over_or_ends_the_worker(product):
    answer = await attack(product, "flood_stdout", lines=10_000)
    assert "flooded" in json.dumps(answer) or answer["error"]["data"]["reason"]
    await assert_back_in_service(product)


async def test_answers_that_nobody_asked_for_reach_nobody(product):
    await product.text("neighbour", "honest", "echo", text="")
    async with neighbour_served(product), anyio.create_task_group() as tasks:
        answers: list[str] = []

        async def wait_for_an_answer(number: int) -> None:
            said = await product.text("neighbour", "honest", "sleep", seconds=0.5)
            assert said == "slept"
            answers.append(f"{number}")

        for number in range(20):
            tasks.start_soon(wait_for_an_answer, number)
        answer = await product.call("attacker", "hostile", "forged_ids", n=2000)
        assert "forged" in json.dumps(answer) or answer["error"]["data"]["reason"]
    assert len(answers) == 20
    await assert_back_in_service(product)


async def test_requests_of_a_server_that_were_never_offered_are_refused(product):
    answer = await attack(product, "send_requests", n=1000)
    assert answer["error"]["code"] == -32021  # what it asks, this client has not declared
    replies = json.loads(await attack_text(product, "replies"))
    assert replies
    assert all("error" in reply or reply["result"] == {} for reply in replies)


async def test_a_line_that_never_ends_ends_the_worker(product):
    answer = await attack(product, "endless_line")
    assert answer["error"]["code"] > 0
    await assert_back_in_service(product)


async def test_a_call_that_is_never_answered_times_out(product):
    answer = await attack(product, "never_answer")
    assert answer["error"]["data"]["reason"] == "timeout"
    await assert_back_in_service(product)


async def test_an_exit_in_the_middle_of_an_answer_is_a_typed_error(product):
    answer = await attack(product, "exit_mid_frame")
    assert answer["error"]["data"]["reason"] == "worker-died"
    await assert_back_in_service(product)


async def test_a_daemon_left_behind_ends_with_its_worker(product):
    await assert_back_in_service(product)
    marker = f"daemon-of-{os.getpid()}-a"
    assert await attack_text(product, "setsid_grandchild", marker=marker) == "left behind"
    assert daemons(marker)
    await attack(product, "exit_mid_frame")
    await wait_for(lambda: not daemons(marker), "the daemon to end with its worker")
    await assert_back_in_service(product)


def daemons(marker: str) -> list[int]:
    """The processes that were started with the marker among their arguments."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if marker.encode() in arguments:
            found.append(int(folder.name))
    return found


async def wait_for(holds, what: str) -> None:
    with anyio.move_on_after(30) as scope:
        while not holds():
            await anyio.sleep(0.02)
    assert not scope.cancelled_caught, f"waited in vain for {what}"


async def test_the_neighbour_may_run_the_same_server_and_meets_its_own_worker(product):
    assert (
        await product.text("attacker", "hostile", "write_host_file", path="/tmp/mine", text="x") == "written"
    )
    assert (await product.text("neighbour", "hostile", "read_host_file", path="/tmp/mine")).startswith(
        "refused"
    )


# --- the end -----------------------------------------------------------------------------------------------------


async def full_house(product, marker: str) -> None:
    """Workers that do not want to end: deaf to signals, with a daemon each, one of them with a call in flight."""
    assert await product.text("attacker", "hostile", "setsid_grandchild", marker=marker) == "left behind"
    assert await product.text("attacker", "hostile", "ignore_sigterm") == "ignoring"
    assert await product.text("neighbour", "hostile", "setsid_grandchild", marker=marker) == "left behind"
    assert await product.text("neighbour", "honest", "echo", text="hello") == "hello"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_nothing_is_left_when_the_runtime_ends(start_product, python_server, number):
    mounts = Path("/proc/self/mountinfo").read_text()
    product = start_product(policy_for(python_server, {"drain": "1s"}))
    marker = f"daemon-of-{os.getpid()}-{number}"
    await full_house(product, marker)
    family = product.family()
    assert len(daemons(marker)) == 2
    assert set(daemons(marker)) <= family.processes.keys()
    assert family.cgroups

    status = await anyio.to_thread.run_sync(product.stop, number)
    assert status == (-number if number == signal.SIGKILL else 0)
    await wait_for(lambda: not family.alive(), f"processes to end: {family.alive()}")
    await wait_for(lambda: not family.cgroups_left(), f"control groups to go: {family.cgroups_left()}")
    assert daemons(marker) == []
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert list((product.directory / "tmp").iterdir()) == []


async def test_a_call_in_flight_when_the_runtime_is_told_to_stop_is_drained(start_product, python_server):
    product = start_product(policy_for(python_server, {"drain": "20s"}))
    answers: list[str] = []

    async def slow() -> None:
        answers.append(await product.text("neighbour", "honest", "sleep", seconds=1.5))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(slow)
        await wait_for(
            lambda: any(worker.get("inFlight") for worker in product.workers()), "the call to be in flight"
        )
        product.process.terminate()
    assert answers == ["slept"]
    assert await anyio.to_thread.run_sync(product.process.wait, 30) == 0


async def test_a_crash_fails_only_the_calls_in_flight_and_the_next_finds_a_fresh_worker(product):
    async with neighbour_served(product):
        before = json.loads(await product.text("neighbour", "honest", "whoami"))["pid"]
    answers: list[dict] = []

    async def asleep() -> None:
        answers.append(await product.call("neighbour", "honest", "sleep", seconds=600))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(asleep)
        await wait_for(
            lambda: any(each.get("inFlight") == 3 for each in product.workers()), "three calls in flight"
        )
        crashed = await product.call("neighbour", "honest", "crash", code=9)
    for answer in (*answers, crashed):
        assert answer["error"]["data"] == {"reason": "worker-died", "retryable": False}
    after = json.loads(await product.text("neighbour", "honest", "whoami"))
    assert after["era"] == "legacy"
    # Both are numbered in a process namespace of their own, so only their memory tells them apart.
    assert isinstance(before, int)
    counted = json.loads(await product.text("neighbour", "honest", "calls"))
    assert counted == {"whoami": 1, "calls": 1}


async def test_no_token_or_a_wrong_one_is_refused(product):
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    headers = {"Accept": "application/json, text/event-stream"}
    async with httpx.AsyncClient() as client:
        for more in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {product.tokens['attacker']}"},
        ):
            refused = await client.post(product.endpoint("hostile"), json=body, headers=headers | more)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Bearer")
        unknown = await client.post(
            product.endpoint("honest"), json=body, headers=headers | product.headers("attacker")
        )
        assert unknown.status_code == 404
