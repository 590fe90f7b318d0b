"""All of it again as a user without any privilege, in a process that gave root up for good."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from attacks.modes import ORDINARY, copy_package, interpreter

pytestmark = pytest.mark.kernel

USER = 54321
# A copy in a place that user can read: the package and an interpreter are not, in some developers' homes.
PROGRAM = """
import json, os, sys
sys.path.append(sys.argv[1])
from sandbox import *
limits = Limits(memory_bytes=64 << 20, pids=12, cpu_millis=1000)
usr = (Mount(source="/usr", target="/usr"),)
def go(script, **changes):
    values = {"name": "user", "argv": ("/bin/sh", "-c", script), "mounts": usr, "limits": limits} | changes
    return run(SandboxSpec(**values), spawner=spawner)
features = probe()
spawner = Spawner.start(name="user")
done = go("id -u; cat /proc/self/uid_map; test -e /home || echo no home; echo x > /data/file; grep Cap /proc/self/status",
          data=sys.argv[2])
try:
    go("true", require=frozenset({"cgroup.memory"}))
    refused = ""
except SandboxUnsupported as error:
    refused = error.message
bomb = go("for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 5 & done")
spawner.close()
print(json.dumps({
    "probe": {status.layer: status.state for status in features},
    "layers": {status.layer: status.state for status in done.layers},
    "out": done.stdout.decode(), "err": done.stderr.decode(), "code": done.ended.code,
    "refused": refused, "bomb": bomb.stderr.decode(),
}))
"""


@pytest.fixture(scope="module")
def report():
    """What the program above says as that user."""
    # Not below pytest's own folder, which every other pytest on this machine closes to other users when it starts.
    with tempfile.TemporaryDirectory(prefix="ordinary-") as folder:
        place = copy_package(Path(folder))
        data = place / "data"
        data.mkdir()
        os.chown(data, USER, USER)
        done = subprocess.run(
            [interpreter(ORDINARY), "-I", "-c", PROGRAM, str(place), str(data)],
            user=USER,
            group=USER,
            extra_groups=[],
            cwd="/",
            env={},
            capture_output=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        yield {**json.loads(done.stdout), "data": data}


NOT_FOR_USERS = {"cgroup.memory", "cgroup.pids", "cgroup.cpu"}


def test_everything_but_control_groups_is_enforced(report):
    missing = {layer for layer, state in report["layers"].items() if state != "enforced"}
    assert missing == {layer for layer, state in report["probe"].items() if state != "enforced"}
    assert missing == NOT_FOR_USERS


def test_a_required_control_group_is_refused_with_the_reason(report):
    assert "cgroup.memory is absent" in report["refused"]
    assert "Permission denied" in report["refused"]


def test_the_worker_is_that_user_under_another_name(report):
    lines = report["out"].splitlines()
    assert lines[0] == "65533"
    assert lines[1].split() == ["65533", str(USER), "1"]


def test_the_host_is_not_there_and_no_capability_is_left(report):
    assert "no home" in report["out"]
    caps = [line for line in report["out"].splitlines() if line.startswith("Cap")]
    assert len(caps) == 5
    assert all(int(line.split()[1], 16) == 0 for line in caps)


def test_the_data_directory_is_the_users_own(report):
    assert (report["data"] / "file").stat().st_uid == USER


def test_a_fork_bomb_still_meets_a_cap(report):
    assert "Cannot fork" in report["bomb"] or "Resource temporarily unavailable" in report["bomb"]
    assert report["layers"]["cgroup.pids"] == "degraded"
