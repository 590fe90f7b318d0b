"""The runtime's own directories: made below the one it was given, and through nothing that somebody planted."""

import os
from pathlib import Path

import pytest

from mcphost.errors import StartRefused
from mcphost.workers.keeping import make_kept, make_state


def keep(state: Path, place: str, *, sized: bool = False) -> Path:
    directory = state / place
    make_kept(str(state), str(directory), sized=sized, other=str(directory) + ".img")
    return directory


@pytest.fixture
def state(tmp_path: Path) -> Path:
    make_state(str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir(mode=0o755)
    return tmp_path / "outside"


def test_what_is_made_is_closed_to_everybody_else(state: Path) -> None:
    made = keep(state, "data/acme/fix")
    keep(state, "data/acme/fix")
    for directory in (made, *list(made.parents)[:3]):
        assert directory.stat().st_mode & 0o777 == 0o700


def test_an_image_gets_its_way_made_and_nothing_in_its_own_place(state: Path) -> None:
    keep(state, "data/acme/fix", sized=True)
    assert list((state / "data" / "acme").iterdir()) == []


@pytest.mark.parametrize("at", ["data", "volumes"])
def test_a_link_in_place_of_what_the_state_directory_holds_is_refused(
    tmp_path: Path, outside: Path, at: str
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / at).symlink_to(outside)
    with pytest.raises(StartRefused):
        make_state(str(tmp_path / "state"))
    assert outside.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("sized", [False, True])
@pytest.mark.parametrize("at", ["data/acme", "data/acme/fix"])
def test_a_link_on_the_way_or_at_its_end_is_refused_and_nothing_is_made_behind_it(
    state: Path, outside: Path, at: str, sized: bool
) -> None:
    (state / at).parent.mkdir(parents=True, exist_ok=True)
    (state / at).symlink_to(outside)
    # An image's own place is the fork server's to look at; here only the way to it is.
    if sized and at == "data/acme/fix":
        keep(state, at, sized=True)
    else:
        with pytest.raises(StartRefused):
            keep(state, "data/acme/fix", sized=sized)
    assert list(outside.iterdir()) == []


def test_the_plain_way_would_have_made_it_behind_the_link(state: Path, outside: Path) -> None:
    """So that the tests above mean something."""
    (state / "data" / "acme").symlink_to(outside)
    (state / "data" / "acme" / "fix").mkdir(parents=True)
    assert [path.name for path in outside.iterdir()] == ["fix"]


@pytest.mark.parametrize("plant", ["fifo", "file", "device"])
def test_what_is_no_directory_is_refused_without_being_opened(state: Path, plant: str) -> None:
    place = state / "data" / "acme"
    if plant == "fifo":
        os.mkfifo(place)
    elif plant == "file":
        place.write_text("precious")
    elif os.geteuid() == 0:
        os.mknod(place, 0o600 | 0o020000, os.makedev(1, 7))
    else:
        pytest.skip("needs root to make a device")
    with pytest.raises(StartRefused):
        keep(state, "data/acme/fix")


def test_a_directory_of_somebody_else_on_the_way_is_refused(state: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give a directory away")
    (state / "data" / "acme").mkdir()
    os.chown(state / "data" / "acme", 65533, 65533)
    with pytest.raises(StartRefused, match="belongs to another user"):
        keep(state, "data/acme/fix")
    assert not (state / "data" / "acme" / "fix").exists()


@pytest.mark.parametrize("other", ["link", "file", "full"])
def test_the_other_form_of_a_volume_is_never_left_aside(state: Path, outside: Path, other: str) -> None:
    place = state / "data" / "acme" / "fix.img"
    place.parent.mkdir()
    if other == "link":
        place.symlink_to(outside)
    elif other == "file":
        place.touch()
    else:
        (place / "content").mkdir(parents=True)
    with pytest.raises(StartRefused, match="was kept"):
        keep(state, "data/acme/fix")


def test_an_empty_directory_is_no_other_form(state: Path) -> None:
    (state / "data" / "acme" / "fix.img").mkdir(parents=True)
    assert keep(state, "data/acme/fix").is_dir()
