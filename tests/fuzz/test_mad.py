"""A short run of the fuzzers of the product itself; `make fuzz` does long ones."""

import pytest

from fuzz.mad_clients import run as run_clients
from fuzz.mad_workers import run as run_workers

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

SECONDS = 4.0


async def test_clients_gone_mad_break_nothing_and_see_nothing_of_each_other() -> None:
    await run_clients(SECONDS, seed=1)


async def test_servers_gone_mad_bring_nothing_to_another_client() -> None:
    await run_workers(SECONDS, seed=1)
