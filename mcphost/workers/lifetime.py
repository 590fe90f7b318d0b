"""A task group that belongs to a block of somebody else's code."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc


@asynccontextmanager
async def background_tasks() -> AsyncIterator[anyio.abc.TaskGroup]:
    """Tasks that run for as long as the block does and are cancelled at its end.

    An error of the block comes out as itself: a bare task group would wrap it in an ExceptionGroup, and whoever
    embeds the runtime would have to unwrap what never came from a task. Errors of the tasks are grouped.
    """
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        try:
            yield tasks
        except Exception as error:  # noqa: BLE001 - raised again below, once every task has ended
            failure = error
        finally:
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
