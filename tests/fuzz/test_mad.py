"""A short run of the fuzzers of the product itself; `make fuzz` does long ones."""

import pytest

from fuzz.mad_clients import run as run_clients
from fuzz.mad_workers import run as run_workers
from fuzz.watching import Broken, look

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

SECONDS = 3.0


async def test_clients_gone_mad_break_nothing_and_see_nothing_of_each_other() -> None:
    await run_clients(SECONDS, seed=1)


async def test_servers_gone_mad_bring_nothing_to_another_client() -> None:
    await run_workers(SECONDS, seed=1)


def test_another_ones_marker_is_noticed() -> None:
    """Else the tests above could not fail."""
    own, other = "mark-" + "0" * 16, "mark-" + "1" * 16
    look({"a": [own]}, own, "its own")
    for seen in ({"a": [other]}, f"data: {other}".encode(), {"error": {"data": {"reason": "internal"}}}):
        with pytest.raises(Broken):
            look(seen, own, "anything")
