"""`mcphost doctor` as an operator meets it: rows, exit statuses, and JSON whose form does not change."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness import fixture_server, make_policy
from mcphost.doctor import examine
from sandbox import LAYERS

pytestmark = pytest.mark.kernel

SECONDS = 60
NO_GROUPS = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/fs/cgroup && exec "$@"', "sh"]


def doctor(*arguments: str, around: tuple[str, ...] | list[str] = ()) -> subprocess.CompletedProcess[str]:
    command = [*around, sys.executable, "-m", "mcphost", "doctor", *arguments]
    environ = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, env=environ)


def write_policy(folder: Path, **changes: object) -> str:
    file = folder / "policy.yaml"
    file.write_text(
        yaml.safe_dump(make_policy({"fix": fixture_server(scope="shared")}, **changes), width=1000)
    )
    return str(file)


def test_without_a_policy_every_layer_has_a_row_and_the_default_is_judged():
    done = doctor()
    assert done.returncode == 0, done.stdout
    rows = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines() if len(line.split()) > 1}
    assert {layer: rows.get(layer) for layer in LAYERS} == dict.fromkeys(LAYERS, "enforced")
    assert "required (by default): userns, mountns," in done.stdout
    assert "all of it is met" in done.stdout


def test_a_policy_shows_what_its_servers_ask_for(tmp_path: Path):
    report = examine(write_policy(tmp_path))
    assert report.ok
    assert "server fix asks for" in report.text(100)
    assert "  met     64 processes" in report.text(100)


def test_where_a_required_layer_cannot_be_had_the_status_is_1_and_the_server_that_asks_is_told(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root to make a mount namespace in which there are no cgroups")
    done = doctor(write_policy(tmp_path, require=["seccomp", "cgroup.memory"]), around=NO_GROUPS)
    assert done.returncode == 1
    assert "not met: cgroup.memory" in done.stdout
    assert "  not met 268435456 bytes of memory (lacks cgroup.memory)" in done.stdout
    assert "-> Mount control groups" in done.stdout
    # The same place serves a policy that does not require it.
    assert doctor(write_policy(tmp_path, require=["seccomp"]), around=NO_GROUPS).returncode == 0


def test_a_wrong_policy_is_78_and_says_where(tmp_path: Path):
    file = tmp_path / "policy.yaml"
    file.write_text("version: 1\nmcpServers: {}\nrequire: [selinux]\n")
    done = doctor(str(file), "--json")
    assert (done.returncode, done.stdout) == (78, "")
    assert f"{file}:3:" in done.stderr


def test_the_json_form_has_every_documented_key(tmp_path: Path):
    report = json.loads(doctor(write_policy(tmp_path), "--json").stdout)
    assert report["format"] == 1
    assert report.keys() == {
        "format", "place", "kernel", "uid", "layers", "abilities", "policy", "require", "unmet", "servers", "ok",
    }  # fmt: skip
    assert report["place"].keys() == {"kind", "name", "unit"}
    assert [each["layer"] for each in report["layers"]] == list(LAYERS)
    assert all(each.keys() == {"layer", "state", "reason", "fix"} for each in report["layers"])
    assert all(each.keys() == {"ability", "state", "reason", "fix"} for each in report["abilities"])
    assert all(each.keys() == {"what", "met", "refused", "lacks"} for each in report["servers"]["fix"])
    assert report["ok"] is True
