"""Control groups of version 2, in a machine that has them: one start of it, one test for each thing that holds."""

import pytest

from attacks import catalogue
from sandbox import LAYERS
from vm import machine, suite
from vm.__main__ import attacked, mistakes, results

# Emulated in software: two minutes by itself, and most of a run of all tests has a neighbour.
pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(machine.SECONDS + 30)]


@pytest.mark.parametrize(("mode", "check"), suite.names())
def test_it_holds_under_version_2(answer: machine.Answer, mode: str, check: str) -> None:
    said = results(answer).get((mode, check))
    assert said is not None, "\n".join(answer.lines[-40:])
    assert said["holds"], said["seen"]


def test_every_attack_ends_there_as_it_does_here(answer: machine.Answer) -> None:
    reports = attacked(answer)
    assert mistakes(reports) == []
    left = {name for name, row in reports["v2"]["rows"].items() if row["with"][0] != "blocked"}
    assert left == {attack.name for attack in catalogue.ATTACKS if attack.accepted}


def test_the_attacks_met_every_layer_and_a_fork_server_that_serves_on(answer: machine.Answer) -> None:
    report = attacked(answer)["v2"]
    assert {layer: report["layers"].get(layer) for layer in LAYERS} == dict.fromkeys(LAYERS, "enforced")
    assert report["serves"]
