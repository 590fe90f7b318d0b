"""A short run of every fuzz target; `make fuzz` does long ones, by coverage."""

import random

import pytest

from fuzz.mutants import mutants
from fuzz.seeds import seeds
from fuzz.targets import TARGETS

INPUTS = 1500


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_read_or_refused_as_documented(name):
    chance = random.Random(name)
    for data in seeds()[name]:
        TARGETS[name](data)
    for _, data in zip(range(INPUTS), mutants(seeds()[name], chance), strict=False):
        TARGETS[name](data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("event", b'{"failed":{"request":1,"step":"a","errno":99999999999999999999,"detail":""}}'),
        (
            "profile",
            b'{"name":"a","denied":"EPERM","unknown":"ENOSYS","allow":[],"conditions":[{"call":"socket","why":"","otherwise":"EPERM","when":[[{"argument":0,"bits":32,"test":[]}]]}]}',
        ),
    ],
)
def test_what_was_found_before_stays_found(name, data):
    TARGETS[name](data)
