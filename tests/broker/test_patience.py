"""How long a request for many servers waits for each: who kept others waiting once does not do it twice."""

from dataclasses import dataclass
from typing import Any

import pytest

from mcphost.broker.patience import DOWN_SECONDS, PART_SECONDS, Patience


@dataclass(eq=False)
class Workers:
    """All that is looked at of a worker set."""

    state: str


@pytest.mark.parametrize(
    ("state", "seconds"),
    [("ready", PART_SECONDS), ("starting", PART_SECONDS), ("stopped", PART_SECONDS), ("backoff", DOWN_SECONDS),
     ("failed", DOWN_SECONDS)],
)  # fmt: skip
def test_who_is_known_to_be_down_is_waited_for_shortly(state: str, seconds: float) -> None:
    workers: Any = Workers(state)
    assert Patience().seconds(workers) == seconds


def test_who_was_waited_for_in_vain_is_waited_for_shortly_until_it_answers() -> None:
    patience, workers, other = Patience(), Workers("starting"), Workers("starting")
    slow: Any = workers
    patience.missed(slow)
    assert patience.seconds(slow) == DOWN_SECONDS
    assert patience.seconds(other) == PART_SECONDS  # type: ignore[arg-type]
    patience.answered(slow)
    assert patience.seconds(slow) == PART_SECONDS
