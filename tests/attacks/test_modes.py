"""The places themselves: what a command finds in each, so that what is shown in them means something."""

import json
import subprocess
import tempfile
from pathlib import Path

import pytest

from attacks import modes

pytestmark = pytest.mark.kernel

LOOK = """
import ctypes, json, os, sys
sys.path.insert(0, sys.argv[1])
import sandbox
def attempt(action):
    try:
        action()
    except OSError as error:
        return error.strerror
    return "done"
libc = ctypes.CDLL(None, use_errno=True)
seen = {
    "uid": os.getuid(),
    "pid": os.getpid(),
    "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")][0],
    "sysctl": attempt(lambda: open("/proc/sys/kernel/hostname", "a").close()),
    "group": attempt(lambda: os.mkdir("/sys/fs/cgroup/attacks-test")),
    "devices": len(os.listdir("/dev")),
    "layers": [status.layer for status in sandbox.probe() if status.state == "enforced"],
}
libc.unshare(0x10000000)
print(json.dumps({**seen, "unshare": os.strerror(ctypes.get_errno())}))
"""

WITHOUT_NAMESPACES = ["no-new-privs", "landlock", "seccomp", "rlimits"]


@pytest.fixture(scope="module")
def packages():
    """A copy that every user can read; pytest closes its own folders to other users whenever it starts."""
    with tempfile.TemporaryDirectory(prefix="modes-") as folder:
        yield str(modes.copy_package(Path(folder)))


@pytest.fixture(scope="module")
def look(packages):
    """What `LOOK` says in a place."""

    def run(place):
        argv = modes.command(place, [modes.interpreter(place), "-I", "-c", LOOK, packages])
        done = subprocess.run(argv, capture_output=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    return run


def test_a_stock_container_has_dockers_capabilities_and_no_namespaces(look):
    seen = look(modes.CONTAINER)
    assert (seen["uid"], seen["pid"], int(seen["capabilities"], 16)) == (0, 2, 0xA80425FB)
    assert seen["unshare"] == "Operation not permitted"
    assert seen["sysctl"] == seen["group"] == "Read-only file system"
    assert seen["devices"] < 20
    assert set(seen["layers"]) == {*WITHOUT_NAMESPACES, "capabilities"}


def test_a_user_in_a_stock_container_has_no_capability(look):
    seen = look(modes.CONTAINER_USER)
    assert (seen["uid"], int(seen["capabilities"], 16)) == (modes.USER, 0)
    assert set(WITHOUT_NAMESPACES) <= set(seen["layers"])


def test_a_filter_that_allows_namespaces_and_an_open_proc_give_all_of_them_to_a_user(look):
    place = modes.Place(container=True, user=modes.USER, allow_namespaces=True, masked_proc=False)
    assert {"userns", "mountns", "pidns", "netns", "rootfs"} <= set(look(place)["layers"])


def test_an_ordinary_user_has_no_capability_and_the_machines_own_files(look):
    seen = look(modes.ORDINARY)
    assert (seen["uid"], int(seen["capabilities"], 16)) == (modes.USER, 0)
    assert {"userns", "mountns", "pidns", "netns", "rootfs"} <= set(seen["layers"])


START = """
import json, sys
sys.path.insert(0, sys.argv[1])
from sandbox import Limits, Mount, SandboxSpec, run
spec = SandboxSpec(name="inside", argv=("/bin/echo", "well"), mounts=(Mount(source="/usr", target="/usr"),))
done = run(spec)
print(json.dumps([done.stdout.decode(), [status.layer for status in done.layers if status.state == "enforced"]]))
"""


@pytest.mark.parametrize("place", [modes.CONTAINER, modes.CONTAINER_USER])
def test_a_worker_starts_in_a_stock_container_with_the_layers_that_there_are(packages, place):
    argv = modes.command(place, [modes.interpreter(place), "-I", "-c", START, packages])
    done = subprocess.run(argv, capture_output=True, timeout=30, check=False)
    said, layers = json.loads(done.stdout or done.stderr)
    assert said == "well\n"
    assert {"no-new-privs", "landlock", "seccomp", "rlimits"} <= set(layers)
