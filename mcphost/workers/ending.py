"""How a worker came to its end, for who decides whether there is to be another."""

from dataclasses import dataclass

import anyio

from mcphost.workers.worker import LAST_WORDS_SECONDS, Worker


@dataclass(frozen=True, slots=True)
class End:
    """`failed`: not in order. `blameless`: it went with the fork server."""

    why: str
    failed: bool
    blameless: bool


async def end_lost(worker: Worker, why: str) -> End:
    """See a lost worker's process to its end; one that does not end by itself is killed."""
    with anyio.move_on_after(LAST_WORDS_SECONDS):
        why = f"it {await worker.wait_ended()}"
    ended = await worker.kill("protocol")
    return End(why, failed=ended.failed, blameless=ended.reason == "lost")
