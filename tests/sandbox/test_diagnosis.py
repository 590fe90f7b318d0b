"""For every layer that is missing there is a reason and a remedy, and the remedy is that of the place."""

import errno
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from sandbox import LAYERS, Features, LayerStatus
from sandbox.doctor.diagnosis import Outcomes, judge
from sandbox.doctor.place import Attempts, Facts, Kernel, Kind, Marks, Mounted, Place, Process
from sandbox.doctor.remedies import Obstacle, remedy
from sandbox.layers import CGROUP_LAYERS

ROOT, ORDINARY = Process(uid=0, capabilities=2**41 - 1), Process(uid=1000, capabilities=0)
MARKS = {
    "machine": Marks(),
    "systemd-unit": Marks(started_by_systemd=True, own_groups=("/system.slice/mcphost.service",)),
    "docker": Marks(docker_file=True, root_kind="overlay"),
    "podman": Marks(podman_file=True),
    "container": Marks(root_kind="overlay"),
    "kubernetes": Marks(kubernetes_variable=True),
}
EVERYTHING = Attempts(refused_calls=(), landlock_errno=0, notifier_errno=0, loop_errno=0, has_mkfs=True)

FORKED = LayerStatus("zygote", "enforced", "by doing it")
SIZED = Outcomes(LayerStatus("volume-size", "enforced", "by doing it"), FORKED)


def features(*missing: str, reason: str = "unshare: Operation not permitted") -> Features:
    return Features(
        tuple(
            LayerStatus(layer, "absent", reason) if layer in missing else LayerStatus(layer, "enforced", "")
            for layer in LAYERS
        )
    )


def finding(found: Features, facts: Facts, layer: str):
    return next(each for each in judge(found, facts, SIZED).findings if each.layer == layer)


def fix(place: str, layer: str, facts: Facts, reason: str = "unshare: Operation not permitted") -> str:
    return finding(features(layer, reason=reason), replace(facts, marks=MARKS[place]), layer).fix


FILTERED = Facts(
    process=replace(ORDINARY, seccomp_mode=2), attempts=Attempts(refused_calls=("clone", "unshare", "mount"))
)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("machine", "outside of that filter"),
        ("systemd-unit", "systemctl edit mcphost.service"),
        ("docker", "--security-opt seccomp=deploy/seccomp.json"),
        ("podman", "--security-opt seccomp=deploy/seccomp.json"),
        ("container", "deploy/seccomp.json"),
        ("kubernetes", "localhostProfile"),
    ],
)
def test_a_filter_that_refuses_namespaces_is_lifted_by_the_means_of_the_place(place, words):
    assert words in fix(place, "mountns", FILTERED)


def test_the_reason_names_the_refused_calls_that_the_layer_needs():
    assert finding(features("pidns"), FILTERED, "pidns").reason.endswith("refuses clone")


def test_a_filter_that_lets_the_calls_through_is_not_blamed():
    facts = Facts(process=replace(ORDINARY, seccomp_mode=2), attempts=Attempts(refused_calls=("mount",)))
    assert "filter" not in finding(features("netns"), facts, "netns").fix


@pytest.mark.parametrize(
    ("facts", "layer", "words"),
    [
        (Facts(process=ORDINARY, kernel=Kernel(max_user_namespaces=0)), "userns", "max_user_namespaces"),
        (Facts(process=ORDINARY, kernel=Kernel(unprivileged_userns_clone=0)), "userns", "unprivileged_userns_clone"),
        (Facts(process=ORDINARY, kernel=Kernel(apparmor_restricts_userns=1)), "mountns", "AppArmor"),
        (Facts(process=replace(ORDINARY, apparmor="docker-default (enforce)")), "rootfs", "AppArmor profile"),
        (Facts(process=Process(uid=0, capabilities=0)), "mountns", "less than being nobody"),
        (Facts(process=replace(ROOT, users=1)), "userns", "one user"),
        (Facts(process=ORDINARY, mounted=Mounted(proc_covers=("/proc/sys",))), "rootfs", "/proc"),
        (Facts(kernel=Kernel(release="5.10.0-8")), "rootfs", "Run a newer kernel"),
        (Facts(kernel=Kernel(release="5.12.0")), "landlock", "Run a newer kernel"),
        (Facts(attempts=Attempts(landlock_errno=errno.EOPNOTSUPP)), "landlock", "lsm="),
        (Facts(kernel=Kernel(security_modules=("capability", "yama"))), "landlock", "lsm="),
    ],
)  # fmt: skip
def test_each_fact_leads_to_its_own_remedy(facts, layer, words):
    assert words in fix("machine", layer, facts)
    # Without that fact the layer is as missing, and is still explained somehow, but not by it.
    assert words not in fix("machine", layer, Facts(process=ORDINARY))


@pytest.mark.parametrize(
    ("mounted", "words"),
    [
        (Mounted(groups_version=0), "Mount control groups"),
        (Mounted(groups_version=2, groups_read_only=True), "read-only"),
        (Mounted(groups_version=2), "Delegate=yes"),
        (Mounted(groups_version=1), "Delegate=yes"),
    ],
)
def test_groups_are_missing_for_one_reason_at_a_time(mounted, words):
    assert words in fix("machine", "cgroup.memory", Facts(mounted=mounted))


def test_a_filter_that_kills_is_named_with_the_calls_it_kills_for():
    facts = Facts(process=replace(ROOT, seccomp_mode=2), attempts=Attempts(refused_calls=("mount",)))
    found = finding(features("userns", reason="the trial process was killed by SIGSYS"), facts, "userns")
    assert found.reason.endswith("refuses mount")
    assert "filter" in found.fix


def test_root_is_not_told_about_switches_that_hold_for_ordinary_users():
    kernel = Kernel(unprivileged_userns_clone=0, apparmor_restricts_userns=1)
    assert "unprivileged" not in fix("machine", "userns", Facts(process=ROOT, kernel=kernel))


def test_several_obstacles_are_all_named():
    root = Process(uid=0, capabilities=0, seccomp_mode=2)
    facts = Facts(process=root, attempts=FILTERED.attempts, mounted=Mounted(proc_covers=("/proc/keys",)))
    text = fix("docker", "rootfs", facts)
    assert all(words in text for words in ("seccomp.json", "--user", "systempaths=unconfined"))


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("machine", "remount"),
        ("systemd-unit", "ProtectControlGroups=no"),
        ("docker", "writable-cgroups=true"),
        ("podman", "unmask=/sys/fs/cgroup"),
        ("kubernetes", "cgroup_writable"),
    ],
)
def test_read_only_groups_are_opened_by_the_means_of_the_place(place, words):
    assert words in fix(
        place, "cgroup.memory", Facts(mounted=Mounted(groups_version=2, groups_read_only=True))
    )


def test_a_group_with_other_processes_in_it_cannot_be_divided():
    facts = Facts(mounted=Mounted(groups_version=2))
    reason = "/sys/fs/cgroup/x cannot be divided: Device or resource busy"
    assert "Other processes" in fix("machine", "cgroup.memory", facts, reason)


def test_a_cap_on_processes_without_groups_is_degraded_as_long_as_resource_limits_hold():
    assert finding(features(*CGROUP_LAYERS), Facts(), "cgroup.pids").state == "degraded"
    assert finding(features(*CGROUP_LAYERS, "rlimits"), Facts(), "cgroup.pids").state == "absent"
    assert judge(features(*CGROUP_LAYERS), Facts(), SIZED).unmet(frozenset({"cgroup.pids"}))


def test_what_is_enforced_needs_no_remedy_and_nothing_is_unmet():
    found = judge(features(), Facts(attempts=EVERYTHING), SIZED)
    assert not any(each.fix for each in (*found.findings, *found.abilities))
    assert not found.unmet(frozenset(LAYERS))
    assert {each.state for each in found.abilities} == {"possible"}


@pytest.mark.parametrize("place", list(MARKS))
@pytest.mark.parametrize("layer", LAYERS)
def test_nothing_missing_is_left_without_a_remedy_even_where_no_fact_is_known(place, layer):
    text = fix(place, layer, Facts())
    assert text.endswith(".")
    assert "{" not in text.replace("{type", "")


def test_a_kernel_that_notifies_nobody_counts_no_denials():
    lacking = Facts(attempts=replace(EVERYTHING, notifier_errno=None))
    missing = [each for each in judge(features(), lacking, SIZED).abilities if each.state == "missing"]
    assert [each.ability for each in missing] == ["denial-counting"]
    assert "Run a kernel" in missing[0].fix
    lacking = Facts(attempts=replace(EVERYTHING, notifier_errno=errno.EBUSY))
    (missing,) = [each for each in judge(features(), lacking, SIZED).abilities if each.state == "missing"]
    assert "listens" in missing.fix


@pytest.mark.parametrize(
    ("attempts", "place", "words"),
    [
        (replace(EVERYTHING, has_mkfs=False), "machine", "e2fsprogs"),
        (replace(EVERYTHING, loop_errno=errno.ENOENT), "machine", "modprobe loop"),
        (replace(EVERYTHING, loop_errno=errno.EPERM), "systemd-unit", "DeviceAllow=/dev/loop-control"),
        (replace(EVERYTHING, loop_errno=errno.ENOENT), "docker", "a volume that has a size of its own"),
        (replace(EVERYTHING, loop_errno=errno.ENOENT), "kubernetes", "PersistentVolumeClaim"),
        (Attempts(), "machine", "as root"),
    ],
)
def test_volumes_without_a_size_that_holds_have_a_remedy_for_the_place(attempts, place, words):
    facts = Facts(attempts=attempts, marks=MARKS[place])
    unsized = Outcomes(LayerStatus("volume-size", "absent", "no free loop device"), FORKED)
    (ability,) = [
        each for each in judge(features(), facts, unsized).abilities if each.ability == "sized-volumes"
    ]
    assert (ability.state, ability.reason) == ("missing", "no free loop device")
    assert words in ability.fix


@pytest.mark.parametrize(
    ("found", "facts", "reason", "fix"),
    [
        (features(), Facts(), "setns: not permitted", "by exec"),
        (features(), Facts(marks=MARKS["systemd-unit"]), "setns: not permitted", "CapabilityBoundingSet="),
        (features("pidns"), Facts(), "needs pidns", "This kernel"),
        (
            features(),
            Facts(
                process=replace(ORDINARY, seccomp_mode=2),
                attempts=replace(EVERYTHING, refused_calls=("kcmp",)),
            ),
            "a filter over this process refuses kcmp",
            "outside of that filter",
        ),
    ],
)
def test_a_zygote_that_could_not_be_had_is_explained(found, facts, reason, fix):
    outcomes = replace(SIZED, zygote=LayerStatus("zygote", "absent", "setns: not permitted"))
    (zygote,) = [each for each in judge(found, facts, outcomes).abilities if each.ability == "zygote"]
    assert (zygote.state, zygote.reason) == ("missing", reason)
    assert fix in zygote.fix


def test_what_is_built_on_a_missing_layer_is_missing_with_that_layers_remedy():
    facts = replace(FILTERED, marks=MARKS["docker"])
    found = {each.ability: each for each in judge(features("netns"), facts, SIZED).abilities}
    assert found["egress"].state == "missing"
    assert found["egress"].fix == finding(features("netns"), facts, "netns").fix


@pytest.mark.parametrize("obstacle", get_args(Obstacle))
@pytest.mark.parametrize("kind", get_args(Kind))
def test_there_are_words_for_every_obstacle_in_every_place(obstacle, kind):
    text = remedy(obstacle, Place(kind, "", "x.service"), layer="rootfs", needs="5.12")
    assert text[0].isupper() or text.startswith("sysctl")
    assert "{unit}" not in text + remedy(obstacle, Place(kind, "", "x.service"), layer="", needs="")


def test_every_file_that_a_remedy_points_to_is_shipped():
    root = Path(__file__).parents[2]
    texts = " ".join(
        remedy(obstacle, Place(kind, "", "x.service"), layer="rootfs", needs="5.12")
        for obstacle in get_args(Obstacle)
        for kind in get_args(Kind)
    )
    files = {word.rstrip(".") for word in re.findall(r"deploy/[\w./-]+", texts)}
    assert {"deploy/seccomp.json", "deploy/apparmor-mcphost", "deploy/mcphost.service"} <= files
    assert [file for file in files if not (root / file).exists()] == []
