"""Kills at random moments under load, a few dozen of them; `make chaos` does hundreds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.load import judge
from chaos.rounds import KINDS

TESTS = Path(__file__).resolve().parent.parent

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.geteuid() != 0, reason="kills and looks as root; unprivileged, see `--user`"),
]


@pytest.mark.parametrize(("rounds", "mode"), [(16, []), (8, ["--user"])], ids=["root", "user"])
def test_whatever_is_killed_and_whenever_nothing_is_left_and_calls_are_served_again(rounds, mode):
    command = [sys.executable, "-m", "chaos", "--rounds", str(rounds), "--seed", "7", *mode]
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["wrong"] == [], done.stderr
    assert report["groups left after an orderly stop"] == []
    assert set(report["kinds"]) == set(KINDS)
    # It was under load: there were calls that went well and calls that a kill took along.
    assert report["calls"]["right"] > 100
    assert report["calls"]["worker-died"]


def test_an_answer_to_somebody_else_would_be_noticed():
    answer = {"result": {"content": [{"text": "beta-1-7"}]}}
    assert judge(answer, "beta-1-7") == "right"
    assert judge(answer, "alpha-0-7") == "somebody else's answer: beta-1-7"
