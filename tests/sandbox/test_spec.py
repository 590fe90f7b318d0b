"""Specifications: what is refused, and that the wire changes nothing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import LAYERS, Limits, Mount, SandboxSpec, SpecInvalid, Tmpfs

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=20)
NAMES = st.from_regex(r"[a-z][a-z0-9]{0,10}", fullmatch=True)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: "/opt/" + "/".join(parts))
SPECS = st.builds(
    SandboxSpec,
    name=NAMES,
    argv=st.lists(TEXT, min_size=1, max_size=4).map(tuple),
    env=st.lists(st.tuples(NAMES, TEXT), max_size=3).map(tuple),
    cwd=PATHS,
    mounts=st.lists(PATHS, max_size=3, unique=True).map(
        lambda paths: tuple(Mount(source=path, target=path) for path in paths)
    ),
    data=st.none() | PATHS,
    limits=st.builds(
        Limits, memory_bytes=st.none() | st.integers(1 << 22, 1 << 40), pids=st.none() | st.integers(1, 1000)
    ),
    require=st.frozensets(st.sampled_from(LAYERS)),
    disable=st.frozensets(st.sampled_from(LAYERS)),
)


@given(SPECS)
def test_a_specification_survives_the_wire(spec):
    assert SandboxSpec.from_wire(json.loads(json.dumps(spec.to_wire()))) == spec


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(SPECS, st.sampled_from(list(SandboxSpec.__dataclass_fields__)), JSON)
def test_any_other_value_in_any_field_is_refused_or_makes_a_valid_specification(spec, field, value):
    wire = {**spec.to_wire(), field: value}
    try:
        SandboxSpec.from_wire(wire)
    except SpecInvalid:
        return


@pytest.mark.parametrize("wire", [None, 3, [], {}, {"name": "a"}])
def test_what_is_no_specification_is_refused(wire):
    with pytest.raises(SpecInvalid):
        SandboxSpec.from_wire(wire)


def spec(**changes: object) -> SandboxSpec:
    return SandboxSpec(**({"name": "a", "argv": ("x",)} | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "Upper"},
        {"name": "-a"},
        {"name": "a" * 49},
        {"argv": ()},
        {"argv": ("",)},
        {"argv": ("a\0b",)},
        {"env": (("A=B", "c"),)},
        {"env": (("A", "c\0d"),)},
        {"cwd": "relative"},
        {"cwd": "/a/../b"},
        {"data": "data"},
        {"network": "host"},
        {"seccomp": "../default"},
        {"require": frozenset({"magic"})},
        {"disable": frozenset({"magic"})},
        {"data": "/d", "mounts": (Mount(source="/a", target="/data"),)},
        {"mounts": (Mount(source="/a", target="/x"), Mount(source="/b", target="/x"))},
    ],
)
def test_a_contradiction_is_refused(changes):
    with pytest.raises(SpecInvalid):
        spec(**changes)


@pytest.mark.parametrize(
    "target", ["/", "/proc", "/proc/self", "/dev", "/dev/null", "/sys/x", "/etc/passwd", "x", "/a/"]
)
def test_nothing_is_mounted_over_what_the_sandbox_makes_itself(target):
    with pytest.raises(SpecInvalid):
        Mount(source="/a", target=target)


@pytest.mark.parametrize(
    "limits", [{"memory_bytes": 0}, {"pids": 0}, {"cpu_millis": 1}, {"files": True}, {"files": 3}]
)
def test_a_limit_that_cannot_work_is_refused(limits):
    with pytest.raises(SpecInvalid):
        Limits(**limits)


def test_environment_values_are_not_shown():
    secret = "canary-51d0"
    value = spec(env=(("TOKEN", secret),))
    assert secret not in repr(value)
    with pytest.raises(SpecInvalid) as caught:
        spec(env=(("TOKEN", secret + "\0"),))
    assert secret not in str(caught.value)


def test_tmp_and_dev_shm_exist_whether_asked_for_or_not():
    assert {tmpfs.target for tmpfs in spec().scratch()} == {"/tmp", "/dev/shm"}
    asked = Tmpfs(target="/tmp", size_bytes=8192)
    assert asked in spec(tmpfs=(asked,)).scratch()
    assert len(spec(tmpfs=(asked,)).scratch()) == 2
