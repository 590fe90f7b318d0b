"""Volumes with a size: the size holds, nothing else suffers, and no image is lost, shared by mistake or left behind."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sandbox
from attacks import modes
from sandbox import Exited, Mount, SandboxSetupFailed, Spawned, Spawner, Volume, probe_sizes, run

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        probe_sizes("/tmp").state != "enforced", reason=f"needs sized volumes: {probe_sizes('/tmp').reason}"
    ),
]

MIB = 1024 * 1024
SIZE = 16 * MIB
FILL = "cat /dev/zero > /v/full"
COUNT = """
number = 0
try:
    while number < 1200: open(f"/v/{number}", "w").close(); number += 1
except OSError as error: assert error.errno == 28, error
print(number)
"""


def volume(path: Path, size: int | None = SIZE) -> dict[str, object]:
    return {"volumes": (Volume(source=str(path), target="/v", size_bytes=size),)}


def attached(path: Path) -> bool:
    """Whether a loop device of this machine holds the image."""
    places = Path("/sys/block").glob("loop*/loop/backing_file")
    with contextlib.suppress(FileNotFoundError):  # one that went while we looked
        return any(place.read_text().strip() == str(path) for place in places)
    return attached(path)


def let_go(path: Path) -> None:
    """Wait until nothing of the image is attached; it is written out by a process of its own."""
    end = time.monotonic() + 10
    while attached(path):
        assert time.monotonic() < end, "the image stays attached"
        time.sleep(0.01)


def used(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.fixture
def image(tmp_path):
    yield tmp_path / "image"
    let_go(tmp_path / "image")


# --- the size holds -----------------------------------------------------------------------------------


def test_a_full_volume_is_full_for_its_worker_alone_and_takes_no_more_of_the_host_than_its_size(
    shell, image, tmp_path
):
    other = tmp_path / "other"
    done = shell(FILL, **volume(image))
    assert b"No space left on device" in done.stderr
    assert MIB < used(image) <= SIZE
    assert shell("echo kept > /v/file && cat /v/file", **volume(other)).stdout == b"kept\n"
    assert shell("stat -c %s /v/full", **volume(image)).stdout.strip().isdigit()
    let_go(other)


def test_without_a_size_the_same_program_goes_on(python, tmp_path):
    program = f"open('/v/full', 'wb').write(bytes({2 * SIZE}))"
    assert python(program, **volume(tmp_path, None)).ended.code == 0


def test_what_is_deleted_inside_is_given_back_to_the_host(shell, image):
    shell(FILL, **volume(image))
    let_go(image)
    full = used(image)
    shell("rm /v/full", **volume(image))
    let_go(image)
    assert used(image) < full - 8 * MIB


def test_the_number_of_files_is_bounded_too(says, image, tmp_path):
    counted = int(says(COUNT, **volume(image)))
    assert 100 < counted <= SIZE // (16 * 1024)
    (tmp_path / "plain").mkdir()
    assert int(says(COUNT, **volume(tmp_path / "plain", None))) == 1200


def test_the_data_directory_can_have_a_size_as_well(shell, image):
    done = shell("cat /dev/zero > /data/full", data=str(image), data_size_bytes=SIZE)
    assert b"No space left on device" in done.stderr


def test_nothing_in_a_volume_is_executable_a_device_or_gives_a_user_away(says, image):
    program = """
import os, stat
open('/v/run', 'w').write('#!/bin/sh\\necho ran\\n'); os.chmod('/v/run', 0o4755)
flags = os.statvfs('/v').f_flag
print(bool(flags & os.ST_NOEXEC), bool(flags & os.ST_NOSUID), bool(flags & os.ST_NODEV), os.stat('/v').st_uid)
try: os.execv('/v/run', ['run'])
except PermissionError: print('refused')
"""
    assert says(program, **volume(image)) == "True True True 65533\nrefused"


def test_nothing_but_the_workers_own_part_of_an_image_is_seen(shell, image):
    assert shell("ls -a /v /v/..", **volume(image)).stdout.split()[:3] == [b"/v:", b".", b".."]


# --- one image, many workers --------------------------------------------------------------------------


def test_an_image_outlives_its_workers_whatever_user_they_were(shell, image):
    shell("umask 077; echo one > /v/file", **volume(image))
    let_go(image)
    assert shell("cat /v/file", **volume(image)).stdout == b"one\n"


def test_two_workers_at_once_see_one_mount_and_it_stays_while_either_uses_it(
    talk, make_shell_spec, shell, image
):
    writer = talk(make_shell_spec("echo here > /v/file; echo ready; read line; cat /v/late", **volume(image)))
    writer.wait_for(Spawned)
    assert writer.read_line() == "ready"
    assert shell("cat /v/file; echo late > /v/late", **volume(image)).stdout == b"here\n"
    assert attached(image)
    os.write(writer.stdin, b"go\n")
    assert writer.read_line() == "late"
    writer.wait_for(Exited)


def test_an_image_in_use_elsewhere_is_waited_for_and_holds_nobody_else_up(
    talk, make_shell_spec, shell, image
):
    shell("true", **volume(image))
    let_go(image)
    with image.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = talk(make_shell_spec("echo mine", **volume(image)))
        assert shell("echo other").stdout == b"other\n"
        assert not attached(image)
    waiting.wait_for(Spawned)
    assert waiting.read_line() == "mine"
    waiting.wait_for(Exited)


def test_no_second_runtime_attaches_an_image_that_is_in_use(running, make_shell_spec, image):
    spec = make_shell_spec("sleep 60", **volume(image))
    with contextlib.closing(Spawner.start(name="second")) as second, running(spec):
        with pytest.raises(SandboxSetupFailed, match="in use by another runtime"):
            run(spec, spawner=second)


def test_one_image_is_not_had_in_two_sizes_at_once(running, make_shell_spec, shell, image):
    with running(make_shell_spec("sleep 60", **volume(image))):
        with pytest.raises(SandboxSetupFailed, match="in use with"):
            shell("true", **volume(image, 2 * SIZE))


def test_inits_that_wait_for_an_order_keep_no_image_in_use(talk, make_shell_spec, shell, image):
    user = talk(make_shell_spec("echo ready; read line", **volume(image)))
    user.wait_for(Spawned)
    assert user.read_line() == "ready"
    for _ in range(6):  # so that every init which now waits was made while the image was mounted
        shell("true")
    os.write(user.stdin, b"go\n")
    user.wait_for(Exited)
    let_go(image)


# --- growing, shrinking, damage -----------------------------------------------------------------------


def test_a_larger_size_grows_the_image_and_keeps_what_is_in_it(shell, image):
    shell("echo kept > /v/file", **volume(image))
    done = shell("cat /v/file; cat /dev/zero > /v/full; stat -c %s /v/full", **volume(image, 4 * SIZE))
    kept, size = done.stdout.split()
    assert kept == b"kept"
    assert 2 * SIZE < int(size) < 4 * SIZE


def test_a_smaller_size_is_refused_and_the_image_stays_as_it_is(shell, image):
    shell("echo kept > /v/file", **volume(image, 2 * SIZE))
    let_go(image)
    with pytest.raises(SandboxSetupFailed, match="never made smaller"):
        shell("true", **volume(image))
    assert shell("cat /v/file", **volume(image, 2 * SIZE)).stdout == b"kept\n"


@pytest.mark.parametrize(("offset", "junk"), [(1024 + 56, b"\0\0"), (0, bytes(SIZE))], ids=["magic", "all"])
def test_a_damaged_image_is_refused_and_never_made_anew(shell, image, offset, junk):
    shell("true", **volume(image))
    let_go(image)
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(junk)
    before = image.read_bytes()
    with pytest.raises(SandboxSetupFailed, match="damaged"):
        shell("true", **volume(image))
    assert image.read_bytes() == before


def debugfs(image: Path, command: str) -> None:
    tool = next(place for place in ("/usr/sbin/debugfs", "/sbin/debugfs") if Path(place).exists())
    subprocess.run([tool, "-w", "-R", command, str(image)], check=True, capture_output=True)


def test_damage_that_takes_a_decision_is_refused_with_what_the_check_said(shell, image):
    shell("mkdir -p /v/a/b", **volume(image))
    let_go(image)
    debugfs(image, "clri /tree/a")
    debugfs(image, "set_super_value state 2")  # errors were found, as the kernel writes it
    with pytest.raises(SandboxSetupFailed, match="e2fsck ended with") as caught:
        shell("true", **volume(image))
    assert caught.value.step == "check-volume"


def test_damage_that_takes_none_is_repaired(shell, image):
    shell("echo kept > /v/file", **volume(image))
    let_go(image)
    debugfs(image, "set_super_value free_blocks_count 1")
    debugfs(image, "set_super_value state 0")
    assert shell("cat /v/file; df -k /v | tail -n 1", **volume(image)).stdout.startswith(b"kept\n")


def test_a_half_made_image_is_made_again(shell, image):
    (image.parent / ".image.new").write_bytes(b"half")
    assert shell("echo x > /v/file", **volume(image)).ended.code == 0
    assert [path.name for path in image.parent.iterdir()] == ["image"]


def test_an_image_is_closed_to_everybody_else(shell, image):
    shell("true", **volume(image))
    assert image.stat().st_mode & 0o777 == 0o600


# --- the end ------------------------------------------------------------------------------------------


def test_a_fork_server_that_is_killed_leaves_no_loop_device_and_no_mount(image, make_shell_spec, talk):
    with contextlib.closing(Spawner.start(name="killed")) as spawner:
        conversation = talk(
            make_shell_spec("echo kept > /v/file; echo ready; sleep 60", **volume(image)), spawner
        )
        conversation.wait_for(Spawned)
        assert conversation.read_line() == "ready"
        assert attached(image)
        os.kill(spawner.pid, signal.SIGKILL)
    let_go(image)
    assert str(image) not in Path("/proc/self/mountinfo").read_text()
    with contextlib.closing(Spawner.start(name="after")) as spawner:
        assert run(make_shell_spec("cat /v/file", **volume(image)), spawner=spawner).stdout == b"kept\n"


def test_a_fork_server_that_is_closed_leaves_none_either(image, make_shell_spec):
    with contextlib.closing(Spawner.start(name="closed")) as spawner:
        run(make_shell_spec("true", **volume(image)), spawner=spawner)
    assert not attached(image)


def test_a_start_that_fails_leaves_nothing_attached(shell, image, tmp_path):
    mounts = (Mount(source=str(tmp_path / "missing"), target="/missing"),)
    with pytest.raises(SandboxSetupFailed) as caught:
        shell("true", mounts=mounts, **volume(image))
    assert caught.value.step == "open-mounts"


def test_without_a_root_of_its_own_a_worker_gets_no_volume_with_a_size(shell, image):
    with pytest.raises(SandboxSetupFailed, match="needs root"):
        shell("true", disable=frozenset({"rootfs"}), **volume(image))
    assert not image.exists()


# --- without privilege --------------------------------------------------------------------------------

AS_USER = """
import os, sys
sys.path.append(sys.argv[1])
from sandbox import *
status = probe_sizes(sys.argv[2])
print(status.state, status.reason)
volumes = (Volume(source=f"{sys.argv[2]}/image", target="/v", size_bytes=16 << 20),)
try: run(SandboxSpec(name="user", argv=("/bin/true",), mounts=(Mount(source="/usr", target="/usr"),), volumes=volumes))
except SandboxSetupFailed as error: print(error)
print(os.listdir(sys.argv[2]))
"""


def test_an_ordinary_user_is_refused_with_the_remedy_and_no_image_is_made(tmp_path):
    package = modes.copy_package(tmp_path / "package")
    place = tmp_path / "place"
    place.mkdir()
    os.chown(place, modes.USER, modes.USER)
    argv = [modes.interpreter(modes.ORDINARY), "-I", "-c", AS_USER, str(package), str(place)]
    done = subprocess.run(
        modes.command(modes.ORDINARY, argv), capture_output=True, text=True, timeout=50, check=True
    )
    probed, refused, left = done.stdout.splitlines()
    assert probed.startswith("absent an ordinary user")
    assert "start the runtime as root" in probed
    assert "needs root" in refused
    assert "start as root, or take the size away" in refused
    assert left == "[]"


# --- where the host has less than was promised --------------------------------------------------------

ON_A_SMALL_DISK = """
import sys
sys.path.append(sys.argv[1])
from sandbox import *
spawner = Spawner.start(name="small")
def go(script, name):
    volumes = (Volume(source=f"{sys.argv[2]}/{name}", target="/v", size_bytes=16 << 20),)
    usr = (Mount(source="/usr", target="/usr"),)
    try: done = run(SandboxSpec(name="s", argv=("/bin/sh", "-c", script), mounts=usr, volumes=volumes), spawner=spawner)
    except SandboxSetupFailed as error: return print("refused", error.step)
    print(done.stdout.decode().strip())
go("head -c 9M /dev/zero > /v/full 2>/v/err; sync /v/full || echo told", "first")
go("echo more", "second")
go("rm -f /v/full && echo removed", "first")
go("echo new > /v/new; sync /v/new && cat /v/new", "first")
spawner.close()
"""


def test_a_full_host_is_told_by_fsync_refuses_new_images_and_leaves_the_old_ones_usable(tmp_path):
    """The host's disk is one of 8 MiB, in a mount namespace that ends with the test."""
    package = str(Path(sandbox.__file__).parent.parent)
    disk = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs -o size=8m none "$0" && exec "$@"',
        str(tmp_path),
    ]
    argv = [*disk, sys.executable, "-c", ON_A_SMALL_DISK, package, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.splitlines() == ["told", "refused make-volume", "removed", "new"]


def kill_the_unmounting(spawner: Spawner, seconds: float = 2) -> bool:
    """SIGKILL to the next helper of the fork server; whether there was one."""
    end = time.monotonic() + seconds
    children = Path(f"/proc/{spawner.pid}/task/{spawner.pid}/children")
    while time.monotonic() < end:
        for pid in map(int, children.read_text().split()):
            with contextlib.suppress(ProcessLookupError):
                # Inits have a session each, helpers that of the fork server.
                if os.getsid(pid) == os.getsid(spawner.pid):
                    os.kill(pid, signal.SIGKILL)
                    return True
    return False


def test_an_image_whose_unmounting_was_killed_serves_the_next_worker(spawner, make_shell_spec, image):
    spec = make_shell_spec("dd if=/dev/zero of=/v/file bs=1M count=8 2>/dev/null; echo ok", **volume(image))
    assert run(spec, spawner=spawner).stdout == b"ok\n"
    # By now its worker is gone, and the image is being written out; where that was too fast, it is done again.
    while not kill_the_unmounting(spawner):
        assert run(spec, spawner=spawner).stdout == b"ok\n"
    assert run(spec, spawner=spawner).stdout == b"ok\n"
