"""Whatever a server writes, its client gets that one message or none: no second event, no event id, no comment.

On stdio a line feed ends a server's message, so what it has left to forge with is the carriage return, which ends a
line of an event stream too, and what Unicode calls line ends, which some clients take for one.
"""

import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import strict
from events import EventReader, read_events
from harness import Served, make_policy, serving
from poisons import BAD_TEXT, BAD_VALUE, GOOD_SPACE, GOOD_TEXT, GOOD_VALUE
from wire import RawHttp, Response

pytestmark = pytest.mark.kernel

FORGER = Path(__file__).parents[1] / "servers" / "forger.py"

RESULT = b'{"jsonrpc":"2.0","id":ID,"result":{"resultType":"complete","content":[{"type":"text","text":"a"}],"own":@}}'
ERROR = b'{"jsonrpc":"2.0","id":ID,"error":{"code":1,"message":"a","data":@}}'
PROGRESS = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":TOKEN,"progress":1,"own":@}}'
SPREAD = (
    b'~{~"jsonrpc"~:~"2.0"~,~"id"~:~ID~,~"result"~:~{~"resultType"~:~"complete"~,~"content"~:~[~{~"type"~:~"text"~,~'
    b'"text"~:~"id: 7"~}~]~}~}~'
)
ANSWERS = {
    "a result": RESULT,
    "a result's content": RESULT.replace(b'{"type":"text","text":"a"}', b'{"type":"text","text":@}').replace(
        b',"own":@', b""
    ),
    "a result's key": RESULT.replace(b'"own":@', b"#:1"),
    "a result's metadata": RESULT.replace(b'"own":@', b'"_meta":{"own":@}'),
    "an error's data": ERROR,
    "an error's message": ERROR.replace(b'"a"', b"#").replace(b',"data":@', b""),
}
NOTES = {
    "progress": PROGRESS,
    "progress's key": PROGRESS.replace(b'"own":@', b"#:1"),
    "a progress message": PROGRESS.replace(b'"own"', b'"message"'),
}
CARRIED = {
    "an event's fields": b'"\\r\\nid: 7\\r\\nretry: 1\\r\\n\\r\\ndata: {}\\r\\n\\r\\n"',
    "the end of an event between tokens": b"[1\r\r]",
}
FORGED = {
    "an event's fields between tokens": b"[1\r,\rid: 7]",
    "a comment between tokens": b"[1\r:\r]",
}


@dataclass(frozen=True)
class Row:
    """One line of a server. `answers` where the line is the call's answer, if it is taken at all."""

    name: str
    line: bytes
    answers: bool
    good: bool


def rows() -> Iterator[Row]:
    good = {name: b'"%b"' % text for name, text in GOOD_TEXT.items()} | GOOD_VALUE | CARRIED
    small = {name: value for name, value in BAD_VALUE.items() if len(value) < 1000}
    bad = {name: b'"%b"' % text for name, text in BAD_TEXT.items()} | small | FORGED
    # A server may end its message where it likes; these would be whole ones.
    bad = {name: value for name, value in bad.items() if "second message" not in name}
    for place, template in (ANSWERS | NOTES).items():
        for name, value in good.items():
            if b"#" not in template or value.startswith(b'"'):
                line = template.replace(b"@", value).replace(b"#", value)
                yield Row(f"{name} as {place}", line, place in ANSWERS, good=b"\n" not in line)
        if place in {"a result", "progress"}:  # few enough for a worker not to be ended for them
            for name, value in bad.items():
                line = template.replace(b"@", value)
                yield Row(f"{name} as {place}", line, place in ANSWERS, good=False)
    for name, space in GOOD_SPACE.items():
        if b"\n" not in space:
            yield Row(f"{name} between tokens", SPREAD.replace(b"~", space), answers=True, good=True)


@dataclass
class Caller:
    """Has the server say lines, and reads what comes of it as strictly as can be."""

    served: Served
    http: RawHttp
    client: Any

    async def say(self, row: Row, *, token: bool) -> Response:
        arguments = {
            "lines": [base64.b64encode(row.line).decode()],
            "silent": row.good and row.answers,
        }
        meta = {"progressToken": "t"} if token else {}
        body = self.client.body("tools/call", {"name": "say", "arguments": arguments}, meta)
        named = self.client.headers("tools/call", "say").items()
        headers = [(key.encode(), value.encode()) for key, value in named]
        data = strict.json.dumps(body).encode()
        return await self.http.post(self.client.path, headers, data)


@asynccontextmanager
async def forging(client_era: str, worker_era: str) -> AsyncIterator[Caller]:
    server = {"command": "python3", "args": [str(FORGER), "--era", worker_era]}
    async with serving(make_policy({"forger": server})) as served:
        http = RawHttp(served.http.base_url.port)
        try:
            yield Caller(served, http, await served.client(client_era, "forger"))
        finally:
            await http.aclose()


def messages(response: Response) -> list[strict.Members]:
    """Everything in a response; each event is one line of data, and nothing else stands in the stream."""
    if response.headers[b"content-type"] == b"application/json":
        return [strict.read(response.body)]
    events = read_events(response.body)
    assert len(response.body.decode().splitlines()) == 3 * len(events), response.body
    assert all([name for name, _ in event.fields] == ["event", "data"] for event in events), response.body
    return [strict.read(event.data.encode()) for event in events]


def assert_told(row: Row, told: list[strict.Members]) -> None:
    *notes, final = [each.last() for each in told]
    assert {"result", "error"} & final.keys(), row
    assert all(note["method"] == "notifications/progress" for note in notes), row
    if not row.good:
        assert not notes, (row, notes)
        assert b'"done"' in strict.json.dumps(final).encode(), (row, final)
        return
    sent = strict.read(row.line.replace(b"ID", b"1").replace(b"TOKEN", b'"t"')).last()
    if not row.answers:
        [note] = notes
        assert note["params"] == sent["params"], (row, note)
    elif "error" in sent:
        assert final["error"] == sent["error"], (row, final)
    else:
        given, wanted = strict.members(final["result"]), strict.members(sent["result"])
        for key in wanted.keys() - {"resultType", "_meta"}:
            assert given[key] == wanted[key], (row, final)
        for key, value in strict.members(wanted.get("_meta")).items():
            assert strict.members(given["_meta"])[key] == value, (row, final)


@pytest.mark.parametrize("worker_era", ["legacy", "modern"])
async def test_whatever_a_server_writes_the_client_gets_that_message_or_none(
    client_era: str, worker_era: str
) -> None:
    async with forging(client_era, worker_era) as caller:
        seen = 0
        for row in rows():
            for token in (False, True) if row.answers else (True,):
                response = await caller.say(row, token=token)
                assert_told(row, messages(response))
                seen += 1
        assert seen > 300


def test_the_reader_of_events_sees_what_would_be_forged() -> None:
    """Else the test above could not fail: each end of a line counts, however the stream is cut."""
    stream = b"data: a\rid: 7\n:\r\nretry\r\r\ndata: b\n\n"
    for size in range(1, len(stream)):
        reader = EventReader()
        events = [
            event for at in range(0, len(stream), size) for event in reader.feed(stream[at : at + size])
        ]
        assert [event.fields for event in events] == [
            [("data", "a"), ("id", "7"), ("", ""), ("retry", "")],
            [("data", "b")],
        ]
