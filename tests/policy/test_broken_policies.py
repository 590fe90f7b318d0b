"""Each file in `broken/` is a policy with mistakes; its last lines, marked `#>`, are all that is said of it."""

from pathlib import Path

import pytest

from mcphost.errors import PolicyInvalid
from mcphost.policy import load

BROKEN = Path(__file__).parent / "broken"
POLICIES = sorted(path.name for path in BROKEN.glob("*.yaml"))

# Stands in the broken policies wherever people paste what should not be there.
CANARY = "hunter2"


def expected_of(name: str) -> list[str]:
    lines = (BROKEN / name).read_text().splitlines()
    return [line.removeprefix("#> ") for line in lines if line.startswith("#> ")]


@pytest.mark.parametrize("name", POLICIES)
def test_every_problem_is_told_at_its_place_in_one_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BROKEN)
    with pytest.raises(PolicyInvalid) as caught:
        load(name)
    assert str(caught.value).splitlines() == expected_of(name)


def test_there_are_at_least_twenty() -> None:
    assert len(POLICIES) >= 20


def test_a_credential_written_in_the_policy_is_not_repeated_in_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(BROKEN)
    canaries = [name for name in POLICIES if CANARY in (BROKEN / name).read_text()]
    assert len(canaries) >= 3
    for name in canaries:
        with pytest.raises(PolicyInvalid) as caught:
            load(name)
        assert CANARY not in str(caught.value)
        assert CANARY not in repr(caught.value.problems)
