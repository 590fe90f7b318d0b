"""The lock files pin, by hash, everything that pyproject.toml asks for, and name no place to get it from."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCKS = [
    "requirements/runtime.txt",
    "requirements/dev.txt",
    "requirements/build.txt",
    "tests/peers/servers.txt",
    "tests/peers/sdk1.txt",
    "tests/peers/fuzz.txt",
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINNED = re.compile(r"^(?P<name>[a-z0-9.-]+)==(?P<version>\S+)", re.MULTILINE)


def pinned(lock: str) -> dict[str, str]:
    return dict(PINNED.findall((ROOT / lock).read_text()))


def group(name: str) -> list[str]:
    entries = PROJECT["dependency-groups"][name]
    return [
        wanted
        for entry in entries
        for wanted in (group(entry["include-group"]) if isinstance(entry, dict) else [entry])
    ]


RUNTIME = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["uvloop"]]
WANTED = {
    "requirements/runtime.txt": RUNTIME,
    "requirements/dev.txt": [*RUNTIME, *group("dev")],
    "requirements/build.txt": PROJECT["build-system"]["requires"],
}


@pytest.mark.parametrize("lock", WANTED)
def test_a_lock_file_pins_a_fitting_version_of_whatever_is_asked_for(lock):
    versions = pinned(lock)
    for wanted in map(Requirement, WANTED[lock]):
        assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), wanted


def test_the_tests_run_with_the_versions_that_the_runtime_is_installed_with():
    assert pinned("requirements/runtime.txt").items() <= pinned("requirements/dev.txt").items()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_gives_hashes_and_no_address(lock):
    text = (ROOT / lock).read_text()
    assert "://" not in text
    hashed = re.findall(r"^[a-z0-9.-]+==.*\\\n +--hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
    assert len(hashed) == len(PINNED.findall(text))


def test_the_lock_file_of_the_node_packages_gives_hashes_and_no_address():
    text = (ROOT / "tests/peers/package-lock.json").read_text()
    assert '"resolved"' not in text
    packages = text.count('"node_modules/')
    assert text.count('"integrity"') == packages
