"""Finding out what this machine can do leaves no trace, and says the same as what workers then report."""

import os
from pathlib import Path

import pytest

from sandbox import LAYERS, Spawner, probe

pytestmark = pytest.mark.kernel


def test_everything_can_be_applied_here_and_nothing_is_left_of_the_trial(list_groups):
    before = Path("/proc/self/mountinfo").read_text(), len(os.listdir("/proc/self/fd"))
    features = probe()
    assert [(status.layer, status.state) for status in features] == [(layer, "enforced") for layer in LAYERS]
    assert (Path("/proc/self/mountinfo").read_text(), len(os.listdir("/proc/self/fd"))) == before
    assert not [group for group in list_groups() if ".trial." in group]


def test_the_fork_server_greets_with_the_same_findings(spawner: Spawner):
    assert [(status.layer, status.state) for status in spawner.features] == [
        (status.layer, status.state) for status in probe()
    ]


def test_a_runtime_that_keeps_its_files_to_itself_still_gives_workers_a_root_they_can_read():
    before = os.umask(0o077)
    try:
        assert probe().has("rootfs")
    finally:
        os.umask(before)
