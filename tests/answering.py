"""Clients of both eras that can be asked: each question is answered while the call that it belongs to is under way.

A legacy client reads its POST's stream and posts an answer to each request it finds there (2025-11-25, basic/transports,
"Sending Messages to the Server"); a modern one is given `input_required` and asks again with what was wanted (2026-07-28,
basic/patterns/mrtr). `converse` does either, so that a test says once what is asked and what comes of it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx

from events import messages
from harness import Answer, LegacyClient, ModernClient, Served

CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
LOG_LEVEL = "io.modelcontextprotocol/logLevel"
EVERYTHING = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
MOST_ROUNDS = 20  # a server that asks more often than this is one that never ends

Respond = Callable[[str, dict[str, Any]], dict[str, Any]]


class Refused(Exception):
    """A `Respond` raises it to answer a question with a JSON-RPC error."""

    def __init__(self, code: int = -1, message: str = "the user says no") -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message}


@dataclass
class Conversation:
    """One request with all that came before its answer, in order."""

    answer: Answer
    notifications: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    rounds: int = 1

    @property
    def logged(self) -> list[Any]:
        """What was logged to this request."""
        return [note["params"] for note in self.notifications if note["method"] == "notifications/message"]


async def converse(
    client: ModernClient, method: str, params: dict[str, Any], respond: Respond, **meta: Any
) -> Conversation:
    """Send one request, answer whatever is asked back, and give the whole.

    `meta` goes into `_meta` of each request. `respond` gets a question's method and params and gives the result.
    """
    if isinstance(client, LegacyClient):
        return await _legacy(client, method, params, respond, meta)
    return await _modern(client, method, params, respond, meta)


async def converse_tool(
    client: ModernClient, tool: str, respond: Respond, *, meta: dict[str, Any] | None = None, **arguments: Any
) -> Conversation:
    """The same for a tool's name and arguments."""
    params = {"name": tool, "arguments": arguments}
    return await converse(client, "tools/call", params, respond, **(meta or {}))


async def asked_client(
    served: Served,
    era: str,
    server: str | None = None,
    *,
    tenant: str = "acme",
    capabilities: dict[str, Any] | None = None,
    log_level: str | None = None,
) -> tuple[ModernClient, dict[str, Any]]:
    """A client that offers `capabilities` (everything by default), and the `_meta` that its requests are to carry."""
    offered = EVERYTHING if capabilities is None else capabilities
    if era == "modern":
        meta = {CAPABILITIES: offered} | ({} if log_level is None else {LOG_LEVEL: log_level})
        return served.modern(server, tenant), meta
    client = LegacyClient(served.http, served.modern(server, tenant).path, tenant)
    await client.initialize(**offered)
    if log_level is not None:
        answer = await client.request("logging/setLevel", {"level": log_level})
        assert answer.result == {}, answer
    return client, {}


async def _modern(
    client: ModernClient, method: str, params: dict[str, Any], respond: Respond, meta: dict[str, Any]
) -> Conversation:
    talk = Conversation(await client.request(method, params, **meta))
    while True:
        talk.notifications += talk.answer.messages[:-1]
        result = talk.answer.final.get("result", {}) if talk.answer.messages else {}
        if result.get("resultType") != "input_required":
            return talk
        assert talk.rounds < MOST_ROUNDS, "asked without end"
        talk.rounds += 1
        again: dict[str, Any] = {**params}
        if result.get("inputRequests"):
            again["inputResponses"] = {
                key: _result(respond, each["method"], each.get("params", {}), talk)
                for key, each in result["inputRequests"].items()
            }
        if "requestState" in result:
            again["requestState"] = result["requestState"]
        talk.answer = await client.request(method, again, **meta)


def _result(respond: Respond, method: str, params: dict[str, Any], talk: Conversation) -> dict[str, Any]:
    talk.asked.append((method, params))
    return respond(method, params)


async def _legacy(
    client: LegacyClient, method: str, params: dict[str, Any], respond: Respond, meta: dict[str, Any]
) -> Conversation:
    body = client.body(method, params, meta)
    found: list[dict[str, Any]] = []
    talk = Conversation(Answer(0, httpx.Headers(), [], b""))
    async with (
        client.http.stream("POST", client.path, json=body, headers=client.headers(method, None)) as response,
        anyio.create_task_group() as tasks,
    ):
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            content = await response.aread()
            found = [json.loads(content)] if content else []
        else:
            async for message in messages(response.aiter_raw()):
                if "method" in message and "id" in message:
                    talk.asked.append((message["method"], message.get("params", {})))
                    tasks.start_soon(_post_answer, client, message, respond)
                elif "method" in message:
                    talk.notifications.append(message)
                else:
                    found.append(message)
    assert len(found) <= 1, found
    if found:
        assert found[0].get("id") == body["id"], found
    talk.answer = Answer(response.status_code, response.headers, found, b"")
    return talk


async def _post_answer(client: LegacyClient, question: dict[str, Any], respond: Respond) -> None:
    reply: dict[str, Any] = {"jsonrpc": "2.0", "id": question["id"]}
    try:
        reply["result"] = respond(question["method"], question.get("params", {}))
    except Refused as refused:
        reply["error"] = refused.error
    response = await client.http.post(client.path, json=reply, headers=client.headers("", None))
    assert response.status_code == 202, response.text
