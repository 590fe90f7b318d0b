"""What a server asks for is met when everything it stands on is there, and refused when nothing could stand in."""

import pytest

from mcphost.decisions.wants import Want, answered, wants_of
from sandbox import LAYERS, Ability, Diagnosis, Finding, Limits
from sandbox.doctor.place import Place


def diagnosis(*missing: str, abilities: tuple[str, ...] = ()) -> Diagnosis:
    findings = tuple(Finding(each, "absent" if each in missing else "enforced", "") for each in LAYERS)
    found = tuple(Ability(each, "possible", "") for each in abilities)
    return Diagnosis(Place("machine", ""), "6.1", 0, findings, found)


def test_on_a_machine_with_everything_every_want_is_met():
    limits = Limits(memory_bytes=2**28, pids=64, cpu_millis=500)
    assert all(answer.met for answer in answered(wants_of(limits, syscalls="default"), diagnosis()))


@pytest.mark.parametrize(
    ("layer", "words"),
    [("cgroup.memory", "memory"), ("cgroup.pids", "processes"), ("cgroup.cpu", "cpu"), ("rootfs", "files"),
     ("netns", "network"), ("seccomp", "system calls"), ("rlimits", "open files")],
)  # fmt: skip
def test_each_layer_holds_up_its_own_want(layer, words):
    limits = Limits(memory_bytes=2**28, pids=64, cpu_millis=500)
    answers = answered(wants_of(limits, syscalls="default"), diagnosis(layer))
    (lacking,) = [answer for answer in answers if not answer.met]
    assert words in lacking.what
    assert lacking.lacks == (layer,)
    assert not lacking.refused


def test_a_cap_that_nobody_asked_for_is_no_want():
    assert not [want for want in wants_of(Limits(), syscalls="default") if "cgroup" in str(want.layers)]


def test_what_stands_on_a_missing_ability_is_refused():
    wants = (Want("egress to example.org", abilities=("egress",)),)
    (answer,) = answered(wants, diagnosis())
    assert (answer.met, answer.refused, answer.lacks) == (False, True, ("egress",))
    (answer,) = answered(wants, diagnosis(abilities=("egress",)))
    assert (answer.met, answer.refused) == (True, False)


@pytest.mark.parametrize("ability", ["egress", "sized-volumes", "zygote"])
def test_what_stands_on_an_ability_is_asked_for_by_it(ability):
    wants = wants_of(Limits(), syscalls="default", abilities=[ability])
    assert [want.abilities for want in wants if want.abilities] == [(ability,)]
    assert any("no network" in want.what for want in wants) == (ability != "egress")
