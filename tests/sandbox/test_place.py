"""Where a process runs is told by what agrees, and no single missing fact changes more than its own explanation."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.doctor.place import (
    FIRST_PID_NAMESPACE,
    Marks,
    groups_mounted,
    proc_covers,
    recognise,
    root_kind,
)

UNIT = ("/system.slice/mcphost.service",)
SESSION = ("/user.slice/user-1000.slice/user@1000.service/app.slice/terminal.scope",)
OTHER_NAMESPACE = FIRST_PID_NAMESPACE - 1000


@pytest.mark.parametrize(
    ("marks", "kind"),
    [
        (Marks(), "machine"),
        (Marks(root_kind="ext4"), "machine"),
        (Marks(docker_file=True, pid_namespace=OTHER_NAMESPACE), "docker"),
        (Marks(docker_file=True, root_kind="overlay", pid_namespace=FIRST_PID_NAMESPACE), "docker"),
        (Marks(podman_file=True), "podman"),
        (Marks(first_groups=("/machine.slice/libpod-1234.scope",)), "podman"),
        (Marks(root_kind="overlay"), "container"),
        (Marks(first_groups=("/lxc.payload.x",)), "container"),
        (Marks(kubernetes_variable=True, docker_file=True, root_kind="overlay"), "kubernetes"),
        (Marks(first_groups=("/kubepods/besteffort/pod12/ab",)), "kubernetes"),
        (Marks(started_by_systemd=True, own_groups=UNIT), "systemd-unit"),
        (Marks(started_by_systemd=True, own_groups=(f"{UNIT[0]}/sandbox-leaf",)), "systemd-unit"),
        (Marks(started_by_systemd=True, own_groups=UNIT, root_kind="overlay", docker_file=True), "docker"),
    ],
)
def test_a_place_is_recognised_by_its_marks(marks, kind):
    assert recognise(marks).kind == kind


def test_the_file_of_an_engine_on_a_machine_made_from_an_image_is_no_container():
    marks = Marks(docker_file=True, root_kind="ext4", pid_namespace=FIRST_PID_NAMESPACE)
    assert recognise(marks).kind == "machine"


def test_a_program_of_a_desktop_session_is_no_unit():
    assert recognise(Marks(started_by_systemd=True, own_groups=SESSION)).kind == "machine"


def test_a_unit_is_named():
    assert recognise(Marks(started_by_systemd=True, own_groups=UNIT)).unit == "mcphost.service"


@pytest.mark.parametrize("name", [each.name for each in fields(Marks)])
def test_a_pod_with_any_one_mark_missing_is_still_some_container(name):
    marks = {
        "docker_file": True, "podman_file": False, "kubernetes_variable": True, "root_kind": "overlay",
        "pid_namespace": OTHER_NAMESPACE, "first_groups": ("/kubepods/pod1/c2",), "own_groups": ("/",),
        "started_by_systemd": False,
    }  # fmt: skip
    del marks[name]
    assert recognise(Marks(**marks)).kind == "kubernetes"


MOUNTINFO = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
23 22 0:40 / /proc/sys/fs/binfmt_misc rw,relatime shared:3 - autofs systemd-1 rw
24 22 0:21 /sys /proc/sys ro,relatime - proc proc rw
25 22 0:5 /null /proc/kcore rw,nosuid - devtmpfs devtmpfs rw
27 1 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/a,upperdir=/b
30 27 0:22 / /sys rw - sysfs sysfs rw
31 30 0:28 / /sys/fs/cgroup ro,nosuid,nodev,noexec - cgroup2 cgroup rw
not a line of this kind
"""


def test_mounts_are_read_as_the_kernel_lists_them():
    assert root_kind(MOUNTINFO) == "overlay"
    assert proc_covers(MOUNTINFO) == ("/proc/kcore", "/proc/sys")
    assert groups_mounted(MOUNTINFO) == (2, True)
    assert groups_mounted(MOUNTINFO.replace("cgroup ro", "cgroup rw")) == (2, False)
    covered = MOUNTINFO + "40 31 0:60 / /sys/fs/cgroup rw - tmpfs none rw"
    assert groups_mounted(covered) == (0, False)
    assert (root_kind(""), proc_covers(""), groups_mounted("")) == (None, (), (0, False))


NUMBERS, POINTS = st.sampled_from("123"), st.sampled_from(["/", "/proc", "/proc/sys", "/sys/fs/cgroup"])
LINES = st.builds(
    "{} {} 0:1 / {} rw - {} none rw".format, NUMBERS, NUMBERS, POINTS, st.sampled_from(["proc", "cgroup"])
)


@given(st.one_of(st.text(), st.lists(st.one_of(LINES, st.text())).map("\n".join)))
def test_any_text_for_a_list_of_mounts_gives_an_answer(text):
    """Circles of mounts upon each other among them, which no kernel lists."""
    root_kind(text)
    proc_covers(text)
    groups_mounted(text)
