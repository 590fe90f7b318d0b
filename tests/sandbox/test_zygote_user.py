"""Zygotes of an ordinary user, whose zygotes and workers are all that one user, told apart by namespaces alone."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from attacks.modes import ORDINARY, copy_package, interpreter

pytestmark = pytest.mark.kernel

USER = 54321
PROGRAM = """
import json, os, select, sys
sys.path.append(sys.argv[1])
from sandbox import *
limits = Limits(memory_bytes=64 << 20, pids=12, cpu_millis=1000)
mounts = (Mount(source="/usr", target="/usr"), Mount(source=sys.argv[2], target="/code"))
spawner = Spawner.start(name="user")

def go(module, asked, **changes):
    zygote = Zygote(interpreter=(sys.executable, "-S"), preload=(module,), run=f"{module}:main", argv=(module,),
                    settings=(("PYTHONPATH", "/code"),))
    values = {"name": "user", "argv": ("x",), "mounts": mounts, "limits": limits, "zygote": zygote} | changes
    done = run(SandboxSpec(**values), asked.encode(), spawner=spawner)
    return done, done.stdout.decode()

def refused(module):
    try:
        go(module, "")
    except SandboxSetupFailed as error:
        return error.message

done, out = go("served", "os.getuid(), open('/data/file', 'w').write('x'), open('/tmp/mine', 'w').write('x')\\n"
               "sum(os.path.exists(f'/proc/{pid}') for pid in range(1, 1000))\\n"
               "__import__('ctypes').CDLL(None, use_errno=True).setns(0, 0x10000000)\\n", data=sys.argv[3])
_, second = go("served", "os.listdir('/tmp')\\n")
_, bomb = go("served", "forked()\\n")
report = {
    "layers": {status.layer: status.state for status in done.layers}, "out": out.split("\\n"),
    "second": second.strip(), "bomb": bomb.strip(), "shared": refused("shares"), "kept": refused("keeps"),
}
spawner.close()
print(json.dumps(report))
"""
SERVED = """
import os, sys
def forked():
    made = 0
    try:
        while made < 100:
            if os.fork() == 0:
                __import__('time').sleep(5)
                os._exit(0)
            made += 1
    except BlockingIOError:
        return made
    return made
def main():
    for line in sys.stdin:
        print(repr(eval(line)), flush=True)
"""
SHARES = "import mmap\nshared = mmap.mmap(-1, 4096)\ndef main(): pass\n"
KEEPS = "import sys\nsys.modules['__main__']._give_up = lambda order: None\ndef main(): pass\n"


@pytest.fixture(scope="module")
def report():
    """What the program above says as that user."""
    # Not below pytest's own folder, which every other pytest on this machine closes to other users when it starts.
    with tempfile.TemporaryDirectory(prefix="ordinary-") as folder:
        place = copy_package(Path(folder))
        code, data = place / "code", place / "data"
        for made in (code, data):
            made.mkdir()
        for name, text in (("served", SERVED), ("shares", SHARES), ("keeps", KEEPS)):
            (code / f"{name}.py").write_text(text)
        os.chown(data, USER, USER)
        done = subprocess.run(
            [interpreter(ORDINARY), "-I", "-c", PROGRAM, str(place), str(code), str(data)],
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


def test_everything_but_control_groups_is_enforced(report):
    missing = {layer for layer, state in report["layers"].items() if state != "enforced"}
    assert missing == {"cgroup.memory", "cgroup.pids", "cgroup.cpu"}


def test_a_worker_is_nobody_writes_its_data_and_sees_itself_alone(report):
    assert report["out"][:3] == ["(65533, 1, 1)", "1", "-1"]
    assert (report["data"] / "file").stat().st_uid == USER


def test_a_second_worker_finds_nothing_of_the_first(report):
    assert report["second"] == "[]"


def test_the_cap_on_processes_holds_without_a_group(report):
    assert 0 < int(report["bomb"]) <= 12


def test_modules_that_leave_a_way_are_refused_here_too(report):
    assert "it shares writable memory" in report["shared"]
    assert "its CapPrm is" in report["kept"]
