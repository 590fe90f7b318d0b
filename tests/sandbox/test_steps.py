"""The order of confinement as data, and what is refused before anything is done."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import LAYERS, Features, LayerStatus, Limits, SandboxSpec, SandboxUnsupported, unmet
from sandbox._confine import STEPS
from sandbox.steps import FORKED, decide

LIMITS = Limits(memory_bytes=1 << 26, pids=8, cpu_millis=500)
ALL = Features(tuple(LayerStatus(layer, "enforced", "") for layer in LAYERS))


def features_without(*missing: str) -> Features:
    return Features(
        tuple(
            LayerStatus(layer, "absent", "the kernel said no")
            if layer in missing
            else LayerStatus(layer, "enforced", "")
            for layer in LAYERS
        )
    )


def spec(**changes: object) -> SandboxSpec:
    return SandboxSpec(**({"name": "a", "argv": ("x",), "limits": LIMITS} | changes))


def test_with_everything_there_the_order_is_this():
    plan = decide(spec(), ALL)
    assert plan.prepare == (
        "enter-cgroup",
        "die-first",
        "new-session",
        "die-with-spawner",
        "unshare",
        "loopback-up",
        "await-map",
        "become-worker-user",
        "private-mounts",
        "mount-proc",
        "forbid-user-namespaces",
        "seal-proc",
        "lock-capabilities",
        "forbid-new-privileges",
        "die-with-spawner",
    )
    assert plan.confine == ("load-filter", "assemble-root", "enter-root", "set-hostname")
    assert plan.withdraw == (
        "leave-old-root",
        "set-rlimits",
        "forbid-everything",
        "drop-capabilities",
        "die-with-spawner",
        "hide-memory",
        "restrict-seccomp",
    )
    assert plan.finish == (
        "load-filter",
        "set-rlimits",
        "restrict-landlock",
        "drop-capabilities",
        "die-with-init",
        "enter-directory",
        "standard-streams",
        "show-memory",
        "restrict-seccomp",
    )
    assert plan.absent == ()


SETS = st.frozensets(st.sampled_from(LAYERS))


@given(SETS, SETS)
def test_whatever_is_missing_the_plan_is_consistent(missing, disabled):
    plan = decide(spec(disable=disabled), features_without(*missing))
    steps = [*plan.prepare, *plan.confine, *plan.finish]
    assert {*steps, *plan.withdraw, *FORKED} <= STEPS.keys()
    assert plan.layers.isdisjoint(missing | disabled)
    assert {status.layer for status in plan.absent} == set(LAYERS) - plan.layers
    assert all(status.reason for status in plan.absent)
    # One way or the other the worker stops being us.
    assert ("become-worker-user" in steps) != ("become-worker-user-late" in steps)
    assert ("become-worker-user" in steps) != ("become-worker-user-late" in plan.withdraw)
    assert not ("restrict-seccomp" in steps and "forbid-new-privileges" not in steps)


@given(SETS, SETS, SETS)
def test_a_required_layer_is_in_the_plan_or_the_start_is_refused(missing, disabled, required):
    try:
        plan = decide(spec(disable=disabled, require=required), features_without(*missing))
    except SandboxUnsupported as error:
        refused = {status.layer for status in error.layers}
        assert refused
        assert refused <= required
    else:
        assert required <= plan.layers


def test_a_cap_that_is_required_but_not_asked_for_is_refused():
    with pytest.raises(SandboxUnsupported, match="no cap was asked for"):
        decide(spec(limits=Limits(), require=frozenset({"cgroup.memory"})), ALL)


def test_unmet_names_what_is_missing_with_its_reason():
    found = unmet(features_without("landlock", "netns"), frozenset({"landlock", "seccomp"}))
    assert [(status.layer, status.reason) for status in found] == [("landlock", "the kernel said no")]
    assert unmet(ALL, frozenset(LAYERS)) == ()


def test_a_layer_nobody_probed_is_unmet():
    assert [status.layer for status in unmet(Features(()), frozenset({"userns"}))] == ["userns"]
