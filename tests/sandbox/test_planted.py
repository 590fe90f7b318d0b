"""What a hostile hand may have left where images lie: it is refused, and nothing behind it is opened or changed."""

import fcntl
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import SandboxSetupFailed, Volume, probe_sizes
from sandbox.volumes.images import filesystem_bytes, judge

pytestmark = pytest.mark.kernel
needs_sizes = pytest.mark.skipif(probe_sizes("/tmp").state != "enforced", reason="needs sized volumes")

SIZE = 16 * 1024 * 1024


def plant_link(place: Path, victim: Path) -> None:
    place.symlink_to(victim)


def plant_hard_link(place: Path, victim: Path) -> None:
    place.hardlink_to(victim)


def plant_dangling_link(place: Path, victim: Path) -> None:
    place.symlink_to(victim.parent / "not-there")


def plant_fifo(place: Path, _: Path) -> None:
    os.mkfifo(place, 0o600)


def plant_device(place: Path, _: Path) -> None:
    os.mknod(place, 0o600 | 0o060000, os.makedev(7, 255))


def plant_socket(place: Path, _: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(place))


def plant_directory(place: Path, _: Path) -> None:
    place.mkdir(0o700)


def plant_file_of_another(place: Path, _: Path) -> None:
    place.write_bytes(bytes(SIZE))
    place.chmod(0o600)
    os.chown(place, 65533, 65533)


def plant_file_open_to_others(place: Path, _: Path) -> None:
    place.write_bytes(bytes(SIZE))
    place.chmod(0o666)


PLANTS = [
    plant_link, plant_hard_link, plant_dangling_link, plant_fifo, plant_device, plant_socket, plant_directory,
    plant_file_of_another, plant_file_open_to_others,
]  # fmt: skip


@pytest.fixture
def victim(shell, tmp_path):
    """Another tenant's image, sound and of the right size, so that whoever is led to it would take it."""
    place = tmp_path / "victim"
    shell("echo precious > /v/file", volumes=(Volume(source=str(place), target="/v", size_bytes=SIZE),))
    with place.open("r+b") as held:  # waits until the fork server is done with it
        fcntl.flock(held, fcntl.LOCK_EX)
    return place


@needs_sizes
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
@pytest.mark.parametrize("name", ["image", ".image.new"])
def test_what_is_planted_for_an_image_is_neither_used_nor_followed(shell, tmp_path, victim, plant, name):
    before = victim.read_bytes()
    place = tmp_path / "images" / name
    place.parent.mkdir()
    plant(place, victim)
    volumes = (Volume(source=str(tmp_path / "images" / "image"), target="/v", size_bytes=SIZE),)
    if name == "image" or plant is plant_directory:
        with pytest.raises(SandboxSetupFailed):
            shell("true", volumes=volumes)
        assert os.path.lexists(place)
    else:
        # A leftover of ours under that name is thrown away, whatever it is: the name goes, not what it leads to.
        assert shell("cat /v/file", volumes=volumes).stdout == b""
    assert victim.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "victim"]


@pytest.mark.parametrize("plant", [plant_link, plant_hard_link])
def test_the_plain_way_would_have_written_into_it(tmp_path, plant):
    """So that the test above means something."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    plant(tmp_path / "image", victim)
    (tmp_path / "image").write_bytes(b"gone")
    assert victim.read_bytes() == b"gone"


@needs_sizes
def test_a_link_on_the_way_to_an_image_is_not_followed(shell, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "way").symlink_to(tmp_path / "elsewhere")
    volumes = (Volume(source=str(tmp_path / "way" / "image"), target="/v", size_bytes=SIZE),)
    with pytest.raises(SandboxSetupFailed):
        shell("true", volumes=volumes)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@needs_sizes
def test_links_that_a_worker_plants_inside_lead_nowhere_outside_the_next_time(shell, tmp_path):
    volumes = (Volume(source=str(tmp_path / "image"), target="/v", size_bytes=SIZE),)
    shell("ln -s / /v/root; ln -s /etc/shadow /v/shadow; mkfifo /v/fifo", volumes=volumes)
    done = shell("cat /v/shadow; ls /v/root/home; ls /v", volumes=volumes)
    assert done.stdout.split() == [b"fifo", b"root", b"shadow"]
    assert done.stderr.count(b"No such file") == 2


@pytest.mark.parametrize("plant", [plant_link, plant_dangling_link, plant_fifo, plant_file_open_to_others])
def test_what_is_planted_for_a_volume_without_a_size_is_not_followed_either(shell, tmp_path, plant):
    victim = tmp_path / "victim"
    victim.mkdir()
    plant(tmp_path / "volume", victim)
    with pytest.raises(SandboxSetupFailed) as caught:
        shell("true", volumes=(Volume(source=str(tmp_path / "volume"), target="/v"),))
    assert caught.value.step == "open-volume"
    assert victim.stat().st_uid == os.getuid()


@given(st.binary(max_size=1200), st.integers(0, 2**40))
def test_any_bytes_for_a_superblock_are_judged_or_refused(superblock, file_bytes):
    try:
        work = judge(superblock, file_bytes, SIZE)
    except SandboxSetupFailed:
        return
    assert work in {"check", "grow"}
    assert (filesystem_bytes(superblock) or 0) <= SIZE
