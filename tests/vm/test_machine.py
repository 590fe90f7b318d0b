"""Control groups of version 2, in a machine that has them: one start of it, one test for each thing that holds."""

import platform

import pytest

from vm import machine, suite
from vm.__main__ import results

# Emulated in software: about 50 s by itself, and most of a run of all tests has a neighbour.
pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def answer() -> machine.Answer:
    if platform.machine() != "x86_64":
        pytest.skip("needs a kernel package for amd64")
    try:
        return machine.run(["python3", "-m", "vm.suite"])
    except machine.CannotMake as error:
        pytest.skip(f"the machine cannot be made: {error}")


@pytest.mark.parametrize(("mode", "check"), suite.names())
def test_it_holds_under_version_2(answer: machine.Answer, mode: str, check: str) -> None:
    said = results(answer).get((mode, check))
    assert said is not None, "\n".join(answer.lines[-40:])
    assert said["holds"], said["seen"]
