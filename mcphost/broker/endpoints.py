"""Which servers an endpoint stands for, and working on several of them at once."""

from collections.abc import Callable, Coroutine

import anyio

from mcphost.broker.request import Request
from mcphost.workers.pool import Pool


def servers_of(pool: Pool, request: Request) -> list[str]:
    """The servers behind the request's endpoint that its tenant sees, in the policy's order."""
    if request.caller.server is not None:
        return [request.caller.server]
    return [name for name in pool.servers if request.tenant.permissions.sees(name)]


async def together(work: Callable[[str], Coroutine[object, object, None]], names: list[str]) -> None:
    """Run `work` for every name at once and wait for all; one name needs no task."""
    if len(names) == 1:
        await work(names[0])
        return
    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(work, name)
