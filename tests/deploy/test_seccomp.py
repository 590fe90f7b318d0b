"""The filter shipped for containers: just enough for the sandbox, proven by running under it and by tracing a runtime."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from attacks.modes import USER, copy_package
from harness import fixture_server, make_policy
from sandbox import LAYERS
from sandbox.layers import CGROUP_LAYERS
from sandbox.seccomp import filters

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "deploy" / "seccomp.json"
FILTER = Path(__file__).with_name("oci_filter.py")
SECONDS = 50
SYSTEM_PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable

LOOK = """
import json, sys
sys.path.insert(0, {package!r})
import sandbox
states = {{each.layer: each.state for each in sandbox.probe()}}
if not {spawn}:
    print(json.dumps([states, "", {{}}]))
    sys.exit()
spec = sandbox.SandboxSpec(name="t", argv=("/bin/sh", "-c", "echo inside as $(id -u)"),
                           mounts=(sandbox.Mount(source="/usr", target="/usr"),))
done = sandbox.run(spec)
print(json.dumps([states, done.stdout.decode(), {{each.layer: each.state for each in done.layers}}]))
"""


def profile() -> dict:
    return json.loads(PROFILE.read_text())


def group(words: str) -> list[str]:
    (found,) = [rule["names"] for rule in profile()["syscalls"] if words in rule["comment"]]
    return found


@pytest.fixture(scope="module")
def package() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        place = copy_package(Path(folder))
        shutil.copy(FILTER, place)
        shutil.copy(PROFILE, place)
        yield str(place)


def look(package: str, *, without: list[str] | tuple[str, ...] = ()) -> list:
    """What an ordinary user finds under the shipped filter: by a trial, and by a worker's output and layers.

    Under a filter without some of the calls there is the trial only.
    """
    program = LOOK.format(package=package, spawn=not without)
    done = subprocess.run(
        [SYSTEM_PYTHON, "-I", f"{package}/oci_filter.py", package, f"{package}/seccomp.json", ",".join(without),
         str(USER), SYSTEM_PYTHON, "-I", "-c", program],
        capture_output=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.kernel
def test_under_the_shipped_filter_an_ordinary_user_has_every_layer_but_the_groups(package):
    states, output, layers = look(package)
    for found in (states, layers):
        missing = {layer for layer in LAYERS if found[layer] != "enforced"}
        assert missing <= set(CGROUP_LAYERS)
    assert output == "inside as 65533\n"


@pytest.mark.kernel
def test_without_the_calls_added_for_namespaces_there_are_none(package):
    states, _, _ = look(package, without=group("namespaces"))
    assert {states[layer] for layer in ("mountns", "rootfs", "netns", "ipcns", "utsns", "cgroupns")} == {
        "absent"
    }
    assert {states[layer] for layer in ("seccomp", "landlock", "no-new-privs")} == {"enforced"}


@pytest.mark.kernel
@pytest.mark.parametrize("call", ["mount_setattr", "move_mount", "pivot_root"])
def test_each_call_added_for_mounts_is_needed(package, call):
    states, _, _ = look(package, without=[call])
    assert states["rootfs"] == "absent"


def test_the_file_is_what_its_generator_writes():
    made = subprocess.run(
        [sys.executable, "-c", "import make_seccomp; print(make_seccomp.text(), end='')"],
        cwd=ROOT / "deploy", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert made.stdout == PROFILE.read_text()


def test_every_call_of_it_has_a_number_and_none_is_one_that_changes_the_machine():
    names = {name for rule in profile()["syscalls"] for name in rule["names"]}
    assert names <= filters.call_names()
    machine = {"bpf", "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon",
               "settimeofday", "clock_settime", "perf_event_open", "userfaultfd", "keyctl", "add_key", "ptrace", "iopl",
               "open_by_handle_at", "quotactl", "syslog", "acct", "fsopen", "io_uring_setup", "process_vm_readv"}  # fmt: skip
    assert not names & machine


@pytest.mark.kernel
@pytest.mark.slow
def test_a_traced_runtime_makes_no_call_that_the_filter_refuses(tmp_path):
    """strace(1) over a whole life: start, a worker that gets ready, stop."""
    if (strace := shutil.which("strace")) is None:
        pytest.skip("needs strace")
    policy = make_policy(
        {"fix": fixture_server(scope="shared", start="eager")},
        runtime={"listen": "127.0.0.1:0", "admin": None},
    )
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy, width=1000))
    trace = tmp_path / "trace"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(SECONDS)
        process = subprocess.Popen(
            [strace, "-f", "-qq", "--signal=none", "-o", str(trace), sys.executable, "-m", "mcphost", "run",
             str(tmp_path / "policy.yaml")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
        )  # fmt: skip
        try:
            assert b"READY=1" in listening.recv(4096)
            (runtime,) = {int(line.split()[0]) for line in trace.read_text().splitlines()[:1]}
            os.kill(runtime, signal.SIGTERM)
            process.wait(SECONDS)
        finally:
            process.kill()
            process.wait()
    made = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))
    allowed = {name for rule in profile()["syscalls"] for name in rule["names"]}
    assert {"unshare", "pivot_root", "seccomp", "landlock_restrict_self"} <= made
    # Asked for and done without: what is refused here is refused by an engine's own filter, too.
    tolerated = {"io_uring_setup", "io_uring_enter"}
    assert made - allowed - tolerated == set()
