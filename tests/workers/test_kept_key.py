"""The runtime's own key: made once, ours alone, and never taken from anything that is not."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mcphost.errors import StartRefused
from mcphost.workers.keeping import make_state
from mcphost.workers.kept_key import kept_key

SIZE = 32


@pytest.fixture
def state(tmp_path: Path) -> Path:
    make_state(str(tmp_path / "state"))
    return tmp_path / "state"


def key_of(state: Path, random_bytes: Callable[[int], bytes] = os.urandom) -> bytes:
    return kept_key(str(state), SIZE, random_bytes)


def test_a_key_is_made_once_and_nobody_else_can_read_it(state: Path) -> None:
    made = key_of(state)
    assert len(made) == SIZE
    assert key_of(state) == made
    kept = state / "keys" / "seal"
    assert kept.read_bytes() == made
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(kept.parent) == ["seal"]


def test_a_wide_umask_changes_nothing(state: Path) -> None:
    before = os.umask(0)
    try:
        key_of(state)
    finally:
        os.umask(before)
    assert (state / "keys" / "seal").stat().st_mode & 0o777 == 0o600


def test_of_two_that_are_made_at_once_the_first_counts_for_both(state: Path) -> None:
    others: list[bytes] = []

    def random_bytes(count: int) -> bytes:
        if not others:
            others.append(b"")
            others[0] = key_of(state)  # another runtime, after this one found none
        return os.urandom(count)

    assert key_of(state, random_bytes) == others[0]
    assert os.listdir(state / "keys") == ["seal"]


@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1])
def test_a_file_of_another_size_is_no_key(state: Path, size: int) -> None:
    key_of(state)
    (state / "keys" / "seal").write_bytes(b"x" * size)
    with pytest.raises(StartRefused, match="is no key"):
        key_of(state)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_key_that_others_may_open_is_refused(state: Path, mode: int) -> None:
    key_of(state)
    (state / "keys" / "seal").chmod(mode)
    with pytest.raises(StartRefused, match="ours alone"):
        key_of(state)


@pytest.mark.parametrize("plant", ["link", "fifo", "directory", "linked directory"])
def test_what_is_planted_in_its_place_is_not_followed(tmp_path: Path, state: Path, plant: str) -> None:
    place = state / "keys" / "seal"
    outside = tmp_path / "outside"
    outside.mkdir()
    if plant == "linked directory":
        (state / "keys").symlink_to(outside)
    else:
        (state / "keys").mkdir()
    if plant == "link":
        (outside / "key").write_bytes(b"k" * SIZE)
        (outside / "key").chmod(0o600)
        place.symlink_to(outside / "key")
    elif plant == "fifo":
        os.mkfifo(place, 0o600)
    elif plant == "directory":
        place.mkdir(0o700)
    with pytest.raises(StartRefused):
        key_of(state)
    assert [path.name for path in outside.iterdir()] == (["key"] if plant == "link" else [])


def test_a_key_of_somebody_else_is_refused(state: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give a file away")
    key_of(state)
    os.chown(state / "keys" / "seal", 65533, 65533)
    with pytest.raises(StartRefused, match="ours alone"):
        key_of(state)
