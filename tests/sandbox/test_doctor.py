"""`python -m sandbox` in the places it is for: the rows are what trials found there, and the remedies do what they say.

A remedy is believed when following it makes its layer appear, so the same container is looked at stock and remedied.
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from attacks.modes import CONTAINER, CONTAINER_USER, ORDINARY, ROOT, command, copy_package, interpreter
from sandbox import LAYERS, Diagnosis, diagnose, probe, shown
from sandbox.layers import CGROUP_LAYERS, NAMESPACE_LAYERS

pytestmark = pytest.mark.kernel

BOOT = "import sys; sys.path.insert(0, {!r}); sys.argv[1:] = ['--json']; from sandbox.__main__ import main; main()"


@pytest.fixture(scope="module")
def package() -> Iterator[Path]:
    # Not below pytest's own folder, which every other pytest on this machine closes to other users when it starts.
    with tempfile.TemporaryDirectory() as folder:
        yield copy_package(Path(folder))


@pytest.fixture
def examined(package):
    """What `python -m sandbox --json` says in a place."""

    def run_it(place) -> dict:
        argv = [interpreter(place), "-I", "-c", BOOT.format(str(package))]
        done = subprocess.run(command(place, argv), capture_output=True, timeout=50, check=False)
        assert done.returncode == 0, done.stderr.decode()
        found = json.loads(done.stdout)
        return {**found, "states": {each["layer"]: each["state"] for each in found["layers"]},
                "fixes": {each["layer"]: each["fix"] for each in found["layers"]},
                "abilities": {each["ability"]: each["state"] for each in found["abilities"]}}  # fmt: skip

    return run_it


def test_as_root_on_a_machine_everything_holds_and_nothing_is_to_be_done(examined):
    found = examined(ROOT)
    assert found["states"] == dict.fromkeys(LAYERS, "enforced")
    assert set(found["abilities"].values()) == {"possible"}
    assert found["place"]["kind"] == "machine"
    assert not any(found["fixes"].values())


def test_an_ordinary_user_lacks_only_what_needs_delegation_and_is_told_how_to_get_it(examined):
    found = examined(ORDINARY)
    missing = {layer for layer, state in found["states"].items() if state != "enforced"}
    assert missing == set(CGROUP_LAYERS)
    assert all("Delegate=yes" in found["fixes"][layer] for layer in missing)
    assert found["abilities"]["sized-volumes"] == "missing"


@pytest.mark.parametrize("place", [CONTAINER, CONTAINER_USER], ids=["root", "user"])
def test_a_stock_container_is_recognised_and_its_filter_is_named(examined, place):
    found = examined(place)
    assert found["place"]["kind"] == "docker"
    for layer in (*NAMESPACE_LAYERS, "rootfs"):
        assert found["states"][layer] == "absent"
        assert "seccomp=deploy/seccomp.json" in found["fixes"][layer]
    assert {found["states"][layer] for layer in ("no-new-privs", "landlock", "seccomp")} == {"enforced"}
    assert "writable-cgroups" in found["fixes"]["cgroup.memory"]
    assert ("--user" in found["fixes"]["mountns"]) == (place == CONTAINER)


def test_with_the_shipped_filter_the_container_is_told_of_its_covered_proc(examined):
    found = examined(replace(CONTAINER_USER, allow_namespaces=True))
    assert found["states"]["rootfs"] == "enforced"
    assert "systempaths=unconfined" in found["fixes"]["rootfs"]
    assert "seccomp" not in found["fixes"]["rootfs"]


def test_a_container_that_followed_every_remedy_has_every_layer(examined):
    place = replace(CONTAINER_USER, allow_namespaces=True, masked_proc=False)
    states = examined(place)["states"]
    assert {layer for layer, state in states.items() if state != "enforced"} <= set(CGROUP_LAYERS)


def test_root_in_a_container_with_the_shipped_filter_is_told_to_be_somebody_else(examined):
    found = examined(replace(CONTAINER, allow_namespaces=True, masked_proc=False))
    assert found["states"]["rootfs"] == "absent"
    assert "--user" in found["fixes"]["rootfs"]


def test_a_look_leaves_nothing_behind_and_agrees_with_a_probe():
    before = Path("/proc/self/mountinfo").read_text()
    found = diagnose()
    assert isinstance(found, Diagnosis)
    assert {each.layer for each in found.findings if each.state == "enforced"} == {
        each.layer for each in probe() if each.state == "enforced"
    }
    assert Path("/proc/self/mountinfo").read_text() == before


def test_rows_fit_the_width_and_tell_each_remedy_once():
    found = diagnose()
    findings = tuple(replace(each, state="absent", fix="Do this thing. " * 9) for each in found.findings)
    text = shown(replace(found, findings=findings), columns=72)
    assert max(len(line) for line in text.splitlines()[1:]) <= 72
    assert text.count("-> Do this thing.") == 1
    assert text.count("-> as for userns") == len(LAYERS) - 1
