"""Clients that listen: a modern one's stream, and the GET stream of a legacy session."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx

from events import messages
from harness import LegacyClient, ModernClient, until

SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


@dataclass
class Ear:
    """What one stream has brought so far; `ended` once it is over."""

    heard: list[dict[str, Any]] = field(default_factory=list)
    ended: anyio.Event = field(default_factory=anyio.Event)
    status: int = 0

    @property
    def told(self) -> list[str]:
        """What was told of, in order: the kind of each list, the URI of each resource, the id of each task."""
        return [_subject(each) for each in self.heard if each.get("method") in _TOLD]

    async def wait_told(self, *wanted: str) -> None:
        await until(lambda: set(wanted) <= set(self.told), f"told of {wanted}, so far {self.heard}")


_TOLD = {
    "notifications/tools/list_changed": "tools",
    "notifications/prompts/list_changed": "prompts",
    "notifications/resources/list_changed": "resources",
    "notifications/resources/updated": None,
    "notifications/tasks": None,
}


def _subject(message: dict[str, Any]) -> str:
    params = message.get("params", {})
    return _TOLD[message["method"]] or params.get("uri") or params["taskId"]


@asynccontextmanager
async def listen(
    client: ModernClient, notifications: dict[str, Any], listen_id: int | str = "my-own", **meta: Any
) -> AsyncIterator[Ear]:
    """A stream of `subscriptions/listen`; the block begins once it has brought its first message, and ends it."""
    body = {**client.body("subscriptions/listen", {"notifications": notifications}, meta), "id": listen_id}
    request = client.http.build_request(
        "POST", client.path, json=body, headers=client.headers("subscriptions/listen", None)
    )
    async with _read(client, request) as ear:
        await until(lambda: ear.heard or ear.ended.is_set(), "the stream's first message")
        yield ear


@asynccontextmanager
async def hear(client: LegacyClient) -> AsyncIterator[Ear]:
    """The GET stream of a session; the block begins once it is open, and ends it."""
    headers = client.headers("", None) | {"Accept": "text/event-stream"}
    async with _read(client, client.http.build_request("GET", client.path, headers=headers)) as ear:
        await until(lambda: ear.status, "the stream is open")
        yield ear


@asynccontextmanager
async def _read(client: ModernClient, request: httpx.Request) -> AsyncIterator[Ear]:
    ear = Ear()

    async def read() -> None:
        response = await client.http.send(request, stream=True)
        try:
            ear.status = response.status_code
            if response.headers.get("content-type") == "application/json":
                await response.aread()
                ear.heard.append(response.json())
            else:
                async for message in messages(response.aiter_raw()):
                    ear.heard.append(message)
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()
            ear.ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        yield ear
        tasks.cancel_scope.cancel()
