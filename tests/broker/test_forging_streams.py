"""The same where a server asks, logs, or tells of changes: each of its messages is one event of one stream, or none."""

import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

import strict
from answering import asked_client
from events import Event, EventReader
from harness import FIXTURE, LegacyClient, ModernClient, Served, make_policy, serving, until
from poisons import BAD_TEXT, BAD_VALUE, GOOD_TEXT, GOOD_VALUE

pytestmark = pytest.mark.kernel

QUESTION = (
    b'{"jsonrpc":"2.0","id":"q@","method":"elicitation/create","params":{"message":"a",'
    b'"requestedSchema":{"type":"object","properties":{}},"own":#}}'
)
LOG = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"error","data":#}}'
UPDATED = (
    b'{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"fixture:/@","own":#,'
    b'"_meta":{"io.modelcontextprotocol/subscriptionId":LISTEN}}}'
)
LEGACY_UPDATED = UPDATED.partition(b',"_meta"')[0] + b"}}"


def poisons() -> Iterator[tuple[bytes, bool]]:
    """What is put in, and whether it arrives. A server may end its line where it likes, so those are left out."""
    good = [b'"%b"' % text for text in GOOD_TEXT.values()] + list(GOOD_VALUE.values())
    good += [b"[1\r,\r2]", b"{\r}", b'"\\r\\nid: 7\\r\\n\\r\\ndata: {}"']
    bad = [b'"%b"' % text for text in BAD_TEXT.values()] + [b"[1\r,\rid: 7]", b"[\r:\r]"]
    bad += [value for value in BAD_VALUE.values() if len(value) < 1000]
    for values, arrives in ((good, True), (bad, False)):
        yield from ((value, arrives) for value in values if b"\n" not in value)


def assert_strict(events: list[Event], raw: bytes) -> list[dict[str, Any]]:
    """Nothing stands in a stream but one line of data for each message, to the most lenient reader of lines too."""
    told = [event for event in events if not event.is_comment]
    assert all([name for name, _ in event.fields] == ["event", "data"] for event in told), told
    assert len(raw.decode().splitlines()) == 3 * len(told) + 2 * (len(events) - len(told))
    return [strict.read(event.data.encode()).last() for event in told]


@asynccontextmanager
async def forging(worker_era: str) -> AsyncIterator[Served]:
    server = {"command": "python3", "args": [str(FIXTURE.with_name("forger.py")), "--era", worker_era]}
    async with serving(make_policy({"forger": server})) as served:
        yield served


async def say(client: ModernClient, meta: dict[str, Any], line: bytes, *, waits: bool = False) -> bytes:
    """Have a line said and answer what is asked; the raw response."""
    arguments = {"lines": [base64.b64encode(line).decode()], "waits": waits}
    body = client.body("tools/call", {"name": "say", "arguments": arguments}, meta)
    headers = client.headers("tools/call", "say")
    raw, reader = b"", EventReader()
    async with client.http.stream("POST", client.path, json=body, headers=headers) as response:
        async for piece in response.aiter_raw():
            raw += piece
            for event in reader.feed(piece) if raw.startswith(b"event:") else ():
                if "id" in event.message and "method" in event.message:
                    reply = {"jsonrpc": "2.0", "id": event.message["id"], "result": {"action": "decline"}}
                    await client.http.post(client.path, json=reply, headers=client.headers("", None))
    return raw


def read(raw: bytes) -> list[dict[str, Any]]:
    """The messages of a response, whichever form it has."""
    return [strict.read(raw).last()] if raw.startswith(b"{") else assert_strict(EventReader().feed(raw), raw)


@pytest.mark.parametrize("template", [QUESTION, LOG], ids=["question", "log"])
@pytest.mark.parametrize("worker_era", ["legacy", "modern"])
async def test_whatever_a_server_asks_or_logs_is_one_event_or_none(
    client_era: str, worker_era: str, template: bytes
) -> None:
    async with forging(worker_era) as served:
        level = "debug" if template == LOG else None
        client, meta = await asked_client(served, client_era, "forger", log_level=level)
        arrived = 0
        for number, (value, arrives) in enumerate(poisons()):
            line = template.replace(b"@", b"%d" % number).replace(b"#", value)
            waits = arrives and (client_era, worker_era, template) == ("legacy", "legacy", QUESTION)
            *told, final = read(await say(client, meta, line, waits=waits))
            assert {"result", "error"} & final.keys()
            own = [
                message["params"].last().get("own", message["params"].last().get("data"))
                for message in told
                if message["method"] != "notifications/cancelled"
            ]
            assert own in ([], [strict.read(value)] if arrives else []), (line, told)
            arrived += bool(own)
        # A modern server has no requests of its own, and a modern client is asked by results.
        assert (arrived > 20) == (template == LOG or (client_era, worker_era) == ("legacy", "legacy"))


@asynccontextmanager
async def listening(client: ModernClient, uris: list[str]) -> AsyncIterator[tuple[list[Event], list[bytes]]]:
    """The events of a client's stream of changes, and its bytes, as they come."""
    events: list[Event] = []
    pieces: list[bytes] = []
    if isinstance(client, LegacyClient):
        for uri in uris:
            assert (await client.request("resources/subscribe", {"uri": uri})).result == {}
        request = client.http.stream("GET", client.path, headers=client.headers("", None))
    else:
        wanted = {"notifications": {"resourceSubscriptions": uris}}
        body, headers = (
            client.body("subscriptions/listen", wanted, {}),
            client.headers("subscriptions/listen", None),
        )
        request = client.http.stream("POST", client.path, json=body, headers=headers)
    async with request as response, anyio.create_task_group() as tasks:
        reader = EventReader()

        async def collect() -> None:
            async for piece in response.aiter_raw():
                pieces.append(piece)
                events.extend(reader.feed(piece))

        tasks.start_soon(collect)
        if not isinstance(client, LegacyClient):
            await until(lambda: events, "it is acknowledged")
        yield events, pieces
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("worker_era", ["legacy", "modern"])
async def test_whatever_a_server_tells_of_changes_is_one_event_or_none(
    client_era: str, worker_era: str
) -> None:
    rows = list(poisons())
    uris = [f"fixture:/{number}" for number in range(len(rows))]
    async with forging(worker_era) as served:
        client = await served.client(client_era, "forger")
        async with listening(client, uris) as (events, pieces):
            template = UPDATED if worker_era == "modern" else LEGACY_UPDATED
            for number, (value, _) in enumerate(rows):
                line = template.replace(b"@", b"%d" % number).replace(b"#", value)
                await say(client, {}, line)
            good = {uri: value for uri, (value, arrives) in zip(uris, rows, strict=True) if arrives}
            last = json.dumps(list(good)[-1])
            await until(
                lambda: any(f'"uri":{last}' in each.data for each in events), "the last of them has come"
            )
            told = assert_strict(events, b"".join(pieces))
    updates = [each["params"].last() for each in told if each["method"].endswith("resources/updated")]
    assert {each["uri"]: each["own"] for each in updates} == {
        uri: strict.read(value) for uri, value in good.items()
    }
    assert len(updates) == len(good)
