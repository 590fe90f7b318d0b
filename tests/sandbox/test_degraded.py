"""Where namespaces are missing: what holds there holds, what does not is said, and nobody pays for the difference."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from attacks import modes
from sandbox import LAYERS, syscalls
from sandbox.seccomp import filters
from sandbox.seccomp.bpf import ALLOW, ERRNO, program

pytestmark = pytest.mark.kernel

HERE = Path(__file__).parent
OPEN_CONTAINER = replace(modes.CONTAINER_USER, allow_namespaces=True)

LOOK = """
import contextlib, json, sys
sys.path.insert(0, sys.argv[1])
from sandbox import Mount, SandboxSpec, Spawner, run
spec = SandboxSpec(name="t", argv=("/usr/bin/python3", "-I", "-S", "-c", sys.argv[2]),
    mounts=(Mount(source="/usr", target="/usr"),), cwd="/")
with contextlib.closing(Spawner.start(name="tests")) as spawner:
    found = {each.layer: [each.state, each.reason] for each in spawner.features}
    done = run(spec, spawner=spawner)
print(json.dumps({"features": found, "out": done.stdout.decode(), "errors": done.stderr.decode(),
    "layers": {each.layer: [each.state, each.reason] for each in done.layers}, "uncounted": done.uncounted}))
"""


@pytest.fixture(scope="module")
def packages() -> Iterator[str]:
    # Not below pytest's own folder, which another run may close to others at any moment.
    with tempfile.TemporaryDirectory() as folder:
        modes.copy_package(Path(folder))
        shutil.copy(HERE / "degraded.py", folder)
        yield folder


@pytest.fixture(scope="module")
def attacked(packages) -> dict:
    place = modes.CONTAINER_USER
    argv = [modes.interpreter(place), "-I", f"{packages}/degraded.py", packages]
    done = subprocess.run(modes.command(place, argv), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1])


def looked(packages: str, place: modes.Place, code: str) -> dict:
    argv = modes.command(place, [modes.interpreter(place), "-I", "-c", LOOK, packages, code])
    return told(subprocess.run(argv, capture_output=True, timeout=60, check=False))


def told(done: subprocess.CompletedProcess) -> dict:
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout.splitlines()[-1])


# What each attack needs; with that layer left out it has to succeed, or it proves nothing.
ATTACKS = {
    **dict.fromkeys(
        ["environ", "memory", "descriptors", "signal", "signal init", "read", "write", "users"], "landlock"
    ),
    **dict.fromkeys(
        ["limits", "processors", "mode", "times", "attribute", "watch", "flags", "lease"], "seccomp"
    ),
    **dict.fromkeys(["path socket", "datagram"], "seccomp"),
    # Two walls each.
    **dict.fromkeys(["spawner", "cut", "abstract socket", "port"], None),
}


@pytest.mark.parametrize(("attack", "layer"), ATTACKS.items())
def test_a_worker_that_shares_its_user_with_everything_gets_nowhere(attacked, attack, layer):
    refusals = {"Permission denied", "Operation not permitted", "Address family not supported by protocol"}
    assert attacked["all"][attack] in refusals
    if layer is not None:
        assert attacked[layer][attack] == "done"


def test_what_a_program_needs_it_still_has(attacked):
    assert {attacked["all"][what] for what in ("own limits", "pair", "threads", "linker")} == {"done"}


def test_a_fork_bomb_stops_at_its_cap_though_others_of_its_user_run(attacked):
    # More than asked by what the user's other processes have done meanwhile; it would have gone on to 500.
    assert 24 <= attacked["forks"] < 400


def test_the_runtime_cannot_be_read_by_its_own_user(attacked):
    assert attacked["runtime readable"] is False
    assert attacked["landlock"]["spawner"] == "Permission denied"


def test_what_is_missing_in_a_stock_container_is_said_layer_by_layer(attacked):
    states = {layer: state for layer, (state, _) in attacked["layers"].items()}
    assert {layer for layer in LAYERS if states[layer] == "enforced"} == {
        "no-new-privs",
        "landlock",
        "seccomp",
        "rlimits",
    }
    assert {layer for layer in LAYERS if states[layer] == "degraded"} == {"capabilities", "cgroup.pids"}
    assert "no-new-privs keeps" in attacked["layers"]["capabilities"][1]
    assert "with all else that this user runs" in attacked["layers"]["cgroup.pids"][1]
    assert "Operation not permitted" in attacked["layers"]["pidns"][1]
    assert "Read-only file system" in attacked["layers"]["cgroup.memory"][1]


def test_root_in_a_stock_container_gives_its_workers_another_user(packages):
    seen = looked(packages, modes.CONTAINER, "import os; print(os.getuid())")
    assert int(seen["out"]) > 65536
    assert seen["layers"]["capabilities"][0] == "enforced"


def test_where_no_fresh_proc_may_be_mounted_the_root_stays_and_shows_none(packages):
    seen = looked(packages, OPEN_CONTAINER, "import os; print(os.listdir('/proc'), os.getpid(), os.getuid())")
    assert seen["out"].strip() == "[] 2 65533"
    assert seen["layers"]["rootfs"][0] == "enforced"
    assert "without /proc: mount-proc: mount: Operation not permitted" in seen["layers"]["rootfs"][1]
    absent = {layer for layer, (state, _) in seen["layers"].items() if state != "enforced"}
    assert absent <= {"cgroup.memory", "cgroup.pids", "cgroup.cpu"}


def run_below(refused: tuple[str, ...], packages: str, code: str) -> dict:
    """As root of this machine, but for a filter that refuses some calls."""
    rules = {filters.numbers(syscalls.MACHINE)[name]: ERRNO | 1 for name in refused}
    boot = (
        "import os, sys; sys.path.insert(0, sys.argv[2]); from sandbox import syscalls\n"
        "syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1); syscalls.seccomp_filter(bytes.fromhex(sys.argv[1]))\n"
        "os.execv(sys.executable, [sys.executable, '-I', '-c', sys.argv[3], sys.argv[2], sys.argv[4]])"
    )
    filter_text = program(rules, ALLOW, syscalls.MACHINE).hex()
    argv = [sys.executable, "-I", "-c", boot, filter_text, packages, LOOK]
    return told(subprocess.run([*argv, code], capture_output=True, timeout=60, check=False))


@pytest.mark.parametrize(
    ("refused", "lost"),
    [
        (("pivot_root",), {"rootfs"}),
        (("mount_setattr",), {"rootfs"}),
        (("landlock_create_ruleset",), {"landlock"}),
    ],
)
def test_one_call_that_is_refused_costs_one_layer(packages, refused, lost):
    seen = run_below(refused, packages, "print('ran')")
    states = {layer: state for layer, (state, _) in seen["layers"].items()}
    assert {layer for layer in LAYERS if states[layer] != "enforced"} - {
        "cgroup.memory",
        "cgroup.pids",
        "cgroup.cpu",
    } == lost
    assert seen["out"] == "ran\n"


ALONE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from sandbox import namespaces, syscalls
parent, child = os.pipe()
pid = os.fork()
if pid == 0:
    os.setresgid(54321, 54321, 54321); os.setresuid(54321, 54321, 54321)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", "0 54321 1"), ("gid_map", "0 54321 1")):
        open(f"/proc/self/{name}", "w").write(text)
    os.execv("/usr/bin/python3", ["/usr/bin/python3", "-I", "-c", sys.argv[2], sys.argv[1], sys.argv[3]])
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_root_that_is_the_only_user_of_its_namespace_starts_workers_as_itself(packages):
    """As in a container without subordinate users: outside it is an ordinary user, and so are its workers."""
    argv = [sys.executable, "-I", "-c", ALONE, packages, LOOK, "import os; print(os.getuid())"]
    seen = told(subprocess.run(argv, capture_output=True, timeout=60, check=False))
    assert seen["out"].strip() == "65533"
    assert seen["layers"]["userns"][0] == seen["layers"]["rootfs"][0] == "enforced"
