"""The data directory: kept from one worker to the next, whoever they are on this machine, and never a way out."""

import os
from pathlib import Path

import pytest

from sandbox import Limits, Mount, SandboxSetupFailed, Tmpfs

pytestmark = pytest.mark.kernel

WORKER_ID = 65533


def test_one_worker_reads_and_changes_what_another_wrote(shell, tmp_path):
    assert shell("umask 077; echo one > /data/file; mkdir /data/dir", data=str(tmp_path)).ended.code == 0
    done = shell("cat /data/file; echo two > /data/file; rmdir /data/dir; cat /data/file", data=str(tmp_path))
    assert done.stdout == b"one\ntwo\n"


def test_on_disk_everything_belongs_to_one_user_that_is_not_root(shell, tmp_path):
    shell("touch /data/file; chmod 4755 /data/file", data=str(tmp_path))
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in (tmp_path, tmp_path / "file")}
    assert owners == {(WORKER_ID, WORKER_ID)}


def test_without_a_data_directory_there_is_none(shell):
    assert shell("test -e /data").ended.code == 1


def test_a_directory_with_someone_elses_content_is_not_taken_over(shell, tmp_path):
    (tmp_path / "precious").touch()
    with pytest.raises(SandboxSetupFailed) as caught:
        shell("true", data=str(tmp_path))
    assert caught.value.step == "open-data"
    assert tmp_path.stat().st_uid == os.getuid()


def test_a_planted_link_is_not_followed_by_us(shell, tmp_path):
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(SandboxSetupFailed) as caught:
        shell("true", data=str(tmp_path / "link"))
    assert caught.value.step == "open-data"


def test_a_link_the_worker_plants_leads_nowhere_outside(shell, tmp_path):
    done = shell("ln -s /etc/shadow /data/link; cat /data/link", data=str(tmp_path))
    assert b"No such file" in done.stderr


def test_the_way_upwards_ends_at_the_workers_own_root(says, tmp_path):
    program = "import os; os.chdir('/data'); print(os.path.samefile('../../../../..', '/'), os.path.exists('../../boot'))"
    assert says(program, data=str(tmp_path)) == "True False"


def test_a_read_only_mount_of_a_private_directory_can_be_read_but_not_written(shell, tmp_path):
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    inner = private / "inner"
    inner.mkdir()
    (inner / "file").write_text("seen\n")
    mounts = (Mount(source="/usr", target="/usr"), Mount(source=str(inner), target="/srv/inner"))
    done = shell("cat /srv/inner/file; echo x > /srv/inner/file; echo x > /srv/inner/new", mounts=mounts)
    assert done.stdout == b"seen\n"
    assert done.stderr.count(b"Read-only file system") + done.stderr.count(b"Permission denied") == 2


def test_a_single_file_can_be_mounted(shell, tmp_path):
    file = tmp_path / "certificates"
    file.write_text("trust\n")
    mounts = (Mount(source="/usr", target="/usr"), Mount(source=str(file), target="/etc/ssl/cert.pem"))
    assert shell("cat /etc/ssl/cert.pem", mounts=mounts).stdout == b"trust\n"


def test_a_writable_mount_keeps_this_machines_permissions(shell, tmp_path):
    place = tmp_path / "shared"
    place.mkdir()
    mounts = (Mount(source="/usr", target="/usr"), Mount(source=str(place), target="/shared", writable=True))
    assert shell("echo x > /shared/file", mounts=mounts).ended.code != 0
    place.chmod(0o777)
    assert shell("echo x > /shared/file", mounts=mounts).ended.code == 0
    assert (Path(place) / "file").stat().st_uid != 0


def test_the_root_has_only_what_was_mounted(says):
    program = "import os; print(sorted(os.listdir('/')))"
    usual = {"bin", "dev", "etc", "lib", "lib64", "proc", "root", "sbin", "tmp", "usr"}
    assert set(eval(says(program))) <= usual


def test_as_many_mounts_as_allowed_start_under_the_smallest_cap_on_files(shell, tmp_path):
    places = [tmp_path / f"m{number}" for number in range(63)]
    for place in places:
        place.mkdir()
    mounts = tuple(Mount(source=str(place), target=f"/srv/{place.name}") for place in places)
    done = shell(
        "ls /srv | wc -l", mounts=(Mount(source="/usr", target="/usr"), *mounts), limits=Limits(files=64)
    )
    assert done.stdout.strip() == b"63"


def test_a_file_and_a_directory_can_be_mounted_inside_scratch_space(shell, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("seen\n")
    mounts = (
        Mount(source="/usr", target="/usr"),
        Mount(source=str(folder / "file"), target="/tmp/inside/file"),
        Mount(source=str(folder), target="/tmp/folder"),
    )
    assert shell("cat /tmp/inside/file /tmp/folder/file", mounts=mounts).stdout == b"seen\nseen\n"


def test_a_source_that_became_a_link_is_a_failed_start_and_nothing_behind_it_is_shown(shell, tmp_path):
    secret, granted = tmp_path / "secret", tmp_path / "writable" / "granted"
    secret.mkdir()
    (secret / "file").write_text("canary")
    granted.parent.mkdir()
    granted.symlink_to(secret)
    mounts = (Mount(source="/usr", target="/usr"), Mount(source=str(granted), target="/granted"))
    with pytest.raises(SandboxSetupFailed, match="granted") as caught:
        shell("cat /granted/file", mounts=mounts)
    assert caught.value.step == "open-mounts"


def test_a_link_planted_where_a_mount_goes_leads_nobody_to_the_host(shell, tmp_path):
    outside, writable = tmp_path / "outside", tmp_path / "writable"
    for directory in (outside, writable):
        directory.mkdir(mode=0o777)
        directory.chmod(0o777)
    (writable / "link").symlink_to(outside)
    mounts = (
        Mount(source="/usr", target="/usr"),
        Mount(source=str(writable), target="/tmp/w", writable=True),
        Mount(source="/usr/share", target="/tmp/w/link/made/here"),
    )
    with pytest.raises(SandboxSetupFailed):
        shell("true", mounts=mounts)
    assert list(outside.iterdir()) == []


def test_scratch_space_is_not_mounted_through_a_planted_link_either(shell, tmp_path):
    outside, writable = tmp_path / "outside", tmp_path / "writable"
    outside.mkdir()
    writable.mkdir()
    (writable / "link").symlink_to(outside)
    mounts = (
        Mount(source="/usr", target="/usr"),
        Mount(source=str(writable), target="/w", writable=True),
    )
    with pytest.raises(SandboxSetupFailed):
        shell("true", mounts=mounts, tmpfs=(Tmpfs(target="/w/link", size_bytes=65536),))


def test_one_worker_cannot_use_up_what_the_kernel_counts_for_a_user(says):
    program = """
import ctypes
libc = ctypes.CDLL(None)
count = 0
while count < 500 and libc.inotify_init1(0) >= 0: count += 1
print(count)
"""
    assert int(says(program)) <= 16
