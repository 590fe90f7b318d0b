"""What must hold however the product is treated: nobody sees another's marker, nothing breaks, nothing grows."""

import json
import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import anyio

from fuzz.census import Census, take, wait_rest
from harness import ModernClient, Served, serving

MARKER = re.compile(r"mark-[0-9a-f]{16}")
# The interpreter's own arenas and what the allocator keeps; a leak of a few hundred bytes for each input is far more.
MEMORY_SLACK_BYTES = 64 * 1024 * 1024
TABLE_SLACK = 400
WARM_SECONDS = 20.0  # after so long there are as many processes as there ever are
# Tables that fill up to their bound by themselves: ids that a server was asked to give up, one for each process, and
# answers of a tenant's permissions, for names that clients choose.
FULL_BY_DESIGN = (
    "mcphost.protocol.pending.Pending._abandoned",
    "mcphost.protocol.attribution._Late._ids",
    "mcphost.decisions.permissions.Permissions._answers",
)
FULL_SLACK = 20_000


class Broken(Exception):
    """A promise was broken; the message says by what."""


def look(data: object, marker: str, what: object, known: Collection[str] | None = None) -> None:
    """See that nothing in what a client got carries the marker of another; of those `known`, or any."""
    text = (
        data.decode("utf-8", "replace") if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False)
    )
    found = set(MARKER.findall(text)) - {marker}
    if foreign := found if known is None else found.intersection(known):
        raise Broken(f"{marker} was given {foreign}: {text[:2000]} after {what!r}")
    if '"reason":"internal"' in text.replace(" ", ""):
        raise Broken(f"an error that nobody foresaw: {text[:2000]} after {what!r}")


async def witness(client: ModernClient, marker: str) -> None:
    """A client who does nothing wrong is served as ever."""
    answer = await client.call("echo", text=marker)
    look(answer.messages, marker, "echo")
    if answer.text != marker:
        raise Broken(f"the witness was answered {answer.final}")


class Complaints:
    """What the event loop would only have logged."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def __call__(self, _loop: object, context: dict[str, Any]) -> None:
        self.heard.append(f"{context.get('message')}: {context.get('exception')!r}")


@asynccontextmanager
async def watched(policy: dict[str, Any]) -> AsyncIterator[Served]:
    """The product for a policy; what the loop complains of fails at the end."""
    import asyncio  # noqa: TID251 - the loop's handler of what nobody caught has no other door

    complaints = Complaints()
    asyncio.get_running_loop().set_exception_handler(complaints)
    try:
        async with serving(policy) as served:
            yield served
    finally:
        asyncio.get_running_loop().set_exception_handler(None)
    if complaints.heard:
        raise Broken(f"the loop complained: {complaints.heard[:5]}")


def compare(before: Census, after: Census, *, seconds: float) -> None:
    """See that the product holds no more than it did, all being at rest. A run of few `seconds` still adds processes."""
    slack = 20 if seconds >= WARM_SECONDS else 200  # a spare or two, a connection kept for its next request
    grown = after.grown(before, slack=TABLE_SLACK)
    for name in FULL_BY_DESIGN:
        if after.tables[name] < FULL_SLACK:
            grown.pop(name, None)
    if grown:
        raise Broken(f"tables grew: {grown}")
    for name, was, now in (
        ("descriptors", before.descriptors, after.descriptors),
        ("tasks", before.tasks, after.tasks),
    ):
        if now > was + slack:
            raise Broken(f"{name} grew: {was} before, {now} after")
    if after.resident_bytes > before.resident_bytes + MEMORY_SLACK_BYTES:
        raise Broken(f"memory grew: {before.resident_bytes} before, {after.resident_bytes} after")


class Clock:
    """Says when it is time to stop."""

    def __init__(self, seconds: float) -> None:
        self._end = anyio.current_time() + seconds

    @property
    def is_over(self) -> bool:
        return anyio.current_time() >= self._end


__all__ = ["Broken", "Clock", "compare", "look", "take", "wait_rest", "watched", "witness"]
