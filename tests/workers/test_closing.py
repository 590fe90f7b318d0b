"""A connection that is closed in more than one way at once."""

import asyncio  # noqa: TID251 - what the loop complains of has no other door
from typing import Any

import anyio
import pytest

from harness import fixture_server, make_policy, serving

pytestmark = pytest.mark.kernel

Ways = tuple[str, ...]


@pytest.mark.parametrize("ways", [("close_stdin", "close"), ("close", "close"), ("close", "close_stdin")])
async def test_however_often_a_connection_is_closed_the_loop_has_nothing_to_complain_of(ways: Ways) -> None:
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    try:
        async with serving(make_policy({"fix": fixture_server()})) as served:
            await served.modern("fix").call("echo", text="a")
            connection = served.worker_set("fix").worker._connection
            for way in ways:
                getattr(connection, way)()
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
    finally:
        loop.set_exception_handler(None)
    assert complaints == []
