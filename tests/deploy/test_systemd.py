"""The shipped unit under a real systemd, and what each directive that it leaves out would cost."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from control_groups import groups_named
from harness import make_policy
from sandbox import LAYERS
from sandbox.layers import CGROUP_LAYERS, NAMESPACE_LAYERS

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "mcphost.service"
BOOT = Path(__file__).with_name("boot_systemd.sh")
SYSTEMD = Path("/lib/systemd/systemd")
SECONDS = 30

# Left out of the unit, and what each of them takes away when it is put in.
COSTS = {
    "RestrictSUIDSGID": {"rootfs"},
    "ProtectHostname": {"utsns"},
    "ProtectControlGroups": set(CGROUP_LAYERS),
    "RestrictNamespaces": {*NAMESPACE_LAYERS, "rootfs"},
}

# A page of the admin listener, asked for again as long as the answer is an error: /readyz has no event of its own.
FETCH = """
import sys, time, urllib.error, urllib.request
while True:
    try:
        print(urllib.request.urlopen(f"http://127.0.0.1:9090/{sys.argv[1]}").read().decode())
        break
    except urllib.error.HTTPError:
        time.sleep(0.05)
"""

pytestmark = pytest.mark.kernel


def unit_text(*changes: str) -> str:
    """The shipped unit with the runtime of this checkout in it, and further directives."""
    start = f"{sys.executable} -m mcphost run /run/systemd/system/policy.yaml"
    text = re.sub("^ExecStart=.*$", f"ExecStart={start}", UNIT.read_text(), flags=re.MULTILINE)
    text = text.replace("After=network.target", "DefaultDependencies=no").partition("[Install]")[0]
    settings = [f"Environment=PYTHONPATH={ROOT} PATH={Path(sys.executable).parent}:/usr/bin:/bin", *changes]
    if str(ROOT).startswith(("/tmp/", "/var/tmp/")):
        settings.append("PrivateTmp=no")
    return text + "\n".join(settings) + "\n"


def trial_text(directive: str, output: Path) -> str:
    """The shipped unit's settings and one more, around a look at the layers."""
    look = f'{sys.executable} -c "import sandbox, json; print(json.dumps([[each.layer, each.state] for each in sandbox.probe()]))"'
    text = re.sub("^Type=.*$", "Type=oneshot", unit_text(f"{directive}=yes"), flags=re.MULTILINE)
    text = re.sub("^ExecStart=.*$", f"ExecStart={look}", text, flags=re.MULTILINE)
    text = re.sub("^(Restart|WatchdogSec|NotifyAccess).*$", "", text, flags=re.MULTILINE)
    return text + f"StandardOutput=file:{output}\n"


@dataclass
class Booted:
    """A systemd in namespaces of its own, everything that was to start started."""

    pid: int
    folder: Path

    def inside(self, *command: str) -> str:
        """What a command prints that is run there."""
        enter = ["nsenter", "-t", str(self.pid), "-m", "-p", "-n", "-C", "--", *command]
        return subprocess.run(enter, capture_output=True, text=True, timeout=SECONDS, check=True).stdout

    def properties(self) -> dict[str, str]:
        """What systemd says of the service."""
        names = "ActiveState,StatusText,Result,ExecMainStatus,NRestarts"
        lines = self.inside("systemctl", "show", "-p", names, "mcphost.service").splitlines()
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture(scope="module")
def booted() -> Iterator[Booted]:
    if os.geteuid() != 0 or not SYSTEMD.exists():
        pytest.skip("needs root, and systemd installed, to run one in namespaces of its own")
    group = f"trial-{os.getpid()}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = _boot(folder, group)
        try:
            with open(folder / "told") as told:
                assert told.read() == "all started\n"
            yield Booted(_first_of(process), folder)
        finally:
            # The first process of the namespace takes every other with it; `unshare` would leave it to itself.
            os.kill(_first_of(process), signal.SIGKILL)
            process.wait(SECONDS)
            _remove_groups(group)


def _boot(folder: Path, group: str) -> "subprocess.Popen[bytes]":
    units = folder / "units"
    units.mkdir()
    os.mkfifo(folder / "told")
    servers = {"clock": {"command": "mcphost-server-clock", "scope": "shared", "start": "eager"}}
    runtime = {"listen": "127.0.0.1:8080", "admin": "127.0.0.1:9090", "stateDir": "/var/lib/mcphost"}
    policy = make_policy(servers, runtime=runtime, require=list(LAYERS))
    (units / "policy.yaml").write_text(yaml.safe_dump(policy, width=1000))
    (units / "mcphost.service").write_text(unit_text(f"StandardError=file:{folder}/log"))
    for directive in COSTS:
        (units / f"{directive}.service").write_text(trial_text(directive, folder / f"{directive}.json"))
    names = " ".join(["mcphost.service", *(f"{directive}.service" for directive in COSTS)])
    (units / "told.service").write_text(
        f"[Unit]\nDefaultDependencies=no\nAfter={names}\n[Service]\nType=oneshot\n"
        f"ExecStart=/bin/sh -c 'echo all started > {folder}/told'\n"
    )
    (units / "trial.target").write_text(f"[Unit]\nDefaultDependencies=no\nWants={names} told.service\n")
    return subprocess.Popen(
        ["bash", str(BOOT), str(units), group], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )


def _first_of(process: "subprocess.Popen[bytes]") -> int:
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


def _remove_groups(group: str) -> None:
    for place in groups_named(group):
        for folder in sorted(place.rglob("*/"), key=lambda path: -len(path.parts)):
            with suppress(OSError):
                folder.rmdir()
        with suppress(OSError):
            place.rmdir()


def test_the_unit_serves_with_every_layer_enforced_and_stops_in_order(booted: Booted):
    log = booted.folder / "log"
    properties = booted.properties()
    assert properties["ActiveState"] == "active", log.read_text()
    assert properties["StatusText"].startswith("serving 1 servers to 1 tenants")
    booted.inside(sys.executable, "-c", FETCH, "readyz")
    (worker,) = json.loads(booted.inside(sys.executable, "-c", FETCH, "servers"))["workers"]
    assert {each["layer"]: each["state"] for each in worker["layers"]} == dict.fromkeys(LAYERS, "enforced")
    abilities = json.loads(booted.inside(sys.executable, "-c", FETCH, "layers"))["abilities"]
    assert {each["ability"] for each in abilities if each["state"] != "possible"} == set()
    booted.inside("systemctl", "stop", "mcphost.service")
    properties = booted.properties()
    assert (properties["ActiveState"], properties["Result"]) == ("inactive", "success")
    assert (properties["ExecMainStatus"], properties["NRestarts"]) == ("0", "0")
    assert json.loads(log.read_text().splitlines()[-1])["event"] == "stopped"


@pytest.mark.parametrize("directive", COSTS)
def test_a_directive_that_is_left_out_would_take_layers_away(booted: Booted, directive):
    found = json.loads((booted.folder / f"{directive}.json").read_text())
    missing = {layer for layer, state in found if state != "enforced"}
    assert missing >= COSTS[directive]
    assert missing - COSTS[directive] <= {"capabilities"}


@pytest.mark.parametrize(
    "covered", ["/proc/kmsg", "/proc/sys"], ids=["ProtectKernelLogs", "ProtectKernelTunables"]
)
def test_covering_a_part_of_proc_takes_workers_their_own(covered):
    """What those directives do, done by hand: a systemd that leaves its old root in place hides the effect."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make a mount namespace")
    cover = f"mount --bind {'/dev/null' if covered.endswith('kmsg') else covered} {covered}"
    look = "import sandbox; print(sandbox.probe().status('rootfs').reason)"
    for script, lacks in ((cover, True), ("true", False)):
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", f'{script} && exec "$@"', "sh", sys.executable, "-c", look],
            capture_output=True, text=True, timeout=SECONDS, check=True,
        )  # fmt: skip
        assert ("without /proc" in done.stdout) == lacks


def test_each_line_of_the_unit_is_known_to_systemd(tmp_path: Path):
    if (analyze := shutil.which("systemd-analyze")) is None:
        pytest.skip("needs systemd-analyze")
    file = tmp_path / "mcphost.service"
    file.write_text(UNIT.read_text().replace("/opt/mcphost/bin/mcphost", "/bin/true"))
    done = subprocess.run(
        [analyze, "verify", str(file)], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert (
        done.returncode,
        done.stdout,
        [line for line in done.stderr.splitlines() if str(file) in line],
    ) == (0, "", [])


def test_no_directive_is_both_left_out_and_in():
    text = UNIT.read_text()
    left_out = re.findall(r"^#   (\w+)= ", text, re.MULTILINE)
    assert set(left_out) >= {*COSTS, "ProtectKernelLogs", "ProtectKernelTunables", "PrivateUsers"}
    assert not [name for name in left_out if re.search(rf"^{name}=", text, re.MULTILINE)]
