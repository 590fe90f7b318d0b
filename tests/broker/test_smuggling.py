"""Whatever a client writes into a message, the server behind gets that one message or none, and the one that was judged.

Every place of a message is tried with everything that does not belong there (`poisons.py`), through the real listener,
for both eras of clients and of servers. The server writes down each line it gets, byte by byte; what it got is compared
with a strict reading of what was sent, made by other code than the product's.
"""

import base64
import json
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import strict
from events import read_events
from harness import MODERN_META, LegacyClient, Served, make_policy, serving
from poisons import FORGED, Row, rows
from wire import Headers, RawHttp, Response

pytestmark = pytest.mark.kernel

RECORDER = Path(__file__).parents[1] / "servers" / "recorder.py"
OURS = {"tools/list", "notifications/initialized", "notifications/cancelled", "logging/setLevel", "ping"}
NAME_KEYS = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


@pytest.fixture(params=["legacy", "modern"])
def worker_era(request: pytest.FixtureRequest) -> str:
    return request.param


class Smuggler:
    """Posts bodies as a client of one era, each under the headers that make the best of it."""

    def __init__(self, served: Served, http: RawHttp, era: str) -> None:
        self.served = served
        self.http = http
        self.era = era
        self.client = served.modern("rec")

    async def open(self) -> "Smuggler":
        if self.era == "legacy":
            self.client = await self.served.legacy("rec")
        return self

    async def post(self, body: bytes, *, more: Headers | None = None, less: str = "") -> Response:
        headers = self.headers(body)
        named = [(name.encode(), value.encode()) for name, value in headers.items() if name != less]
        return await self.http.post(self.client.path, [*named, *(more or [])], body)

    def headers(self, body: bytes) -> dict[str, str]:
        try:
            message = strict.members(strict.read(body))
        except (ValueError, RecursionError):
            message = {}
        params = strict.members(message.get("params"))
        method = message.get("method")
        method = (
            method if isinstance(method, str) and method.isascii() and method.isprintable() else "tools/call"
        )
        name = params.get(NAME_KEYS.get(method, ""))
        headers = self.client.headers(method, None)
        region = strict.members(params.get("arguments")).get("region")
        for header, value in (("Mcp-Name", name), ("Mcp-Param-Region", region)):
            if self.era == "modern" and type(value) is str:
                headers[header] = f"=?base64?{base64.b64encode(value.encode()).decode()}?="
        return headers

    async def recorded(self) -> list[bytes]:
        """What the server got since the last time, without what the runtime asks on its own behalf."""
        lines = (await self.client.call("recorded")).result["lines"]
        return [line for each in lines if not is_ours(line := base64.b64decode(each))]


def is_ours(line: bytes) -> bool:
    message = strict.members(strict.read(line))
    return message.get("method") in OURS and b'"row"' not in line and b"smuggled" not in line


@asynccontextmanager
async def smuggling(client_era: str, worker_era: str) -> Iterator[Smuggler]:
    server = {"command": "python3", "args": [str(RECORDER), "--era", worker_era]}
    async with serving(make_policy({"rec": server})) as served:
        http = RawHttp(served.http.base_url.port)
        try:
            yield await Smuggler(served, http, client_era).open()
        finally:
            await http.aclose()


def was_carried(response: Response) -> bool:
    """Whether the server answered; the response must be one message, however it comes."""
    if response.headers.get(b"content-type") == b"text/event-stream":
        events = read_events(response.body)
        assert all([name for name, _ in event.fields] == ["event", "data"] for event in events), events
        messages = [event.message for event in events]
        assert [each["method"] for each in messages[:-1]] == ["notifications/progress"] * (len(messages) - 1)
        assert len(messages) <= 2
        final = messages[-1]
    elif response.headers.get(b"content-type") == b"application/json":
        final = strict.read(response.body).last()
    else:  # nothing, or the listener's own word about a request that is no HTTP
        return False
    return "result" in final


def differences(sent: Any, got: Any) -> list[str]:
    """Where the params that a server got are not those that were sent, in places that are the client's own affair."""
    asked, given = strict.members(sent.get("params")), strict.members(got.get("params"))
    found = [f"method {got['method']!r}"] if sent.get("method") != got["method"] else []
    own = {"_meta", "inputResponses", "requestState", "task", "cursor", "ref", "arguments"}
    found += [key for key in (asked.keys() | given.keys()) - own if asked.get(key) != given.get(key)]
    metas = [strict.members(each.get("_meta")) for each in (asked, given)]
    told = [
        {key: value for key, value in meta.items() if not key.startswith("io.modelcontextprotocol/")}
        for meta in metas
    ]
    for each in told:
        each.pop("progressToken", None)
    # Cut apart where something in them is judged: then of two members with one name the last is left.
    for key in ("ref", "arguments"):
        before, after = asked.get(key), given.get(key)
        if before != after and (strict.members(before) != strict.members(after) or not strict.members(after)):
            found.append(key)
    return found + (["_meta"] if told[0] != told[1] else [])


def assert_one_message(row: Row, line: bytes) -> None:
    """No reader of lines, however lenient, finds two in it, and it says what was sent."""
    assert len(line.decode().splitlines()) == 1, (row.name, line[:300])
    got = strict.read(line)
    for members in (got, got.last().get("params"), strict.members(got.last()["params"]).get("_meta")):
        names = [name for name, _ in members or ()]
        assert len(names) == len(set(names)), (row.name, line[:300])
    found = differences(strict.members(strict.read(row.body)), got.last())
    assert not found, (row.name, found, row.body[:300], line[:300])


async def test_whatever_stands_in_a_message_the_server_gets_that_message_or_none(
    client_era: str, worker_era: str
) -> None:
    async with smuggling(client_era, worker_era) as smuggler:
        await smuggler.recorded()
        carried: list[Row] = []
        wrong: list[str] = []
        for row in rows(modern=client_era == "modern"):
            response = await smuggler.post(row.body)
            assert response.status, f"no answer to {row.name}"
            did = "carried" if was_carried(response) else "refused"
            carried += [row] if did == "carried" else []
            wrong += [f"{row.name}: {did}"] if row.verdict not in {did, "either"} else []
        assert not wrong
        lines = await smuggler.recorded()
        for row, line in zip(carried, lines, strict=True):
            assert_one_message(row, line)
        assert len(carried) > 150


ECHO = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {"a": 1}}}

HEADERS = {
    "line feed": b"a\nMcp-Name: echo",
    "carriage return": b"a\rb",
    "both": b"a\r\nX-Forged: b",
    "end of the head": b"a\r\n\r\n" + FORGED,
    "folded": b"a\r\n b",
    "NUL": b"a\0b",
    "no ASCII": b"a\xff\xfe",
    "base64 of a message": b"=?base64?" + base64.b64encode(b"echo\n" + FORGED) + b"?=",
    "base64 of no UTF-8": b"=?base64?" + base64.b64encode(b"\xff\n") + b"?=",
    "very long": b"a" * 20_000,
    "nothing": b"",
}
NAMES = (
    "Mcp-Name", "Mcp-Method", "MCP-Protocol-Version", "Mcp-Session-Id", "Mcp-Param-Region", "Authorization", "Origin",
    "Host", "Content-Type", "Accept", "Last-Event-ID", "Traceparent", "Content-Encoding", "X-Unknown",
)  # fmt: skip


async def test_whatever_stands_in_a_header_the_server_gets_the_message_of_the_body_or_none(
    client_era: str, worker_era: str
) -> None:
    async with smuggling(client_era, worker_era) as smuggler:
        await smuggler.recorded()
        message = json.loads(json.dumps(ECHO))
        message["params"]["_meta"] = {"row": "1", **(MODERN_META if client_era == "modern" else {})}
        body = json.dumps(message).encode()
        carried = 0
        for name in NAMES:
            for value in HEADERS.values():
                for less in (name, ""):
                    response = await smuggler.post(body, more=[(name.encode(), value)], less=less)
                    carried += was_carried(response)
        lines = await smuggler.recorded()
        assert len(lines) == carried
        assert carried > 30
        for line in lines:
            assert_one_message(Row("header", body, "either"), line)


async def test_an_argument_that_a_header_mirrors_is_forwarded_once_and_as_it_was_compared(
    worker_era: str,
) -> None:
    async with smuggling("modern", worker_era) as smuggler:
        await smuggler.recorded()
        for spelled in (b'"region"', b'"\\u0072egion"'):
            for first, last in ((b"eu", b"us"), (b"us", b"eu")):
                arguments = b'{"region":"%b",%b:"%b"}' % (first, spelled, last)
                message = json.dumps(ECHO | {"params": ECHO["params"] | {"_meta": MODERN_META}}).encode()
                body = message.replace(b'{"a": 1}', arguments)
                assert not was_carried(
                    await smuggler.post(body, more=[(b"Mcp-Param-Region", first)], less="Mcp-Param-Region")
                )
                assert was_carried(await smuggler.post(body))
                [line] = await smuggler.recorded()
                assert strict.members(strict.read(line).last()["params"])["arguments"] == [
                    ("region", last.decode())
                ]


async def test_two_lengths_or_none_make_no_second_request(worker_era: str) -> None:
    async with smuggling("modern", worker_era) as smuggler:
        await smuggler.recorded()
        message = json.loads(json.dumps(ECHO))
        message["params"]["_meta"] = {"row": "1", **MODERN_META}
        body = json.dumps(message).encode()
        named = [(key.encode(), value.encode()) for key, value in smuggler.headers(body).items()]
        inner = FORGED.replace(
            b'"arguments":{}', b'"arguments":{},"_meta":' + json.dumps(MODERN_META).encode()
        )
        forged = (
            b"POST /servers/rec/mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(inner)
            + inner
        )
        lengths: list[Headers] = [
            [(b"Content-Length", b"%d" % len(body)), (b"Content-Length", b"%d" % (len(body) + len(forged)))],
            [(b"Content-Length", b"%d" % len(body)), (b"Transfer-Encoding", b"chunked")],
            [(b"Transfer-Encoding", b"chunked, identity")],
            [(b"Transfer-Encoding", b"\x0bchunked")],
            [(b"Content-Length", b"+%d" % len(body))],
            [(b"Content-Length", b"-1")],
            [(b"Content-Length", b"0x10")],
            [(b"Content-Length", b"9" * 400)],
            [(b"Content-Length ", b"%d" % len(body))],
        ]
        carried = 0
        for length in lengths:
            host = (b"Host", b"127.0.0.1")
            response = await smuggler.http.send(
                b"POST /servers/rec/mcp", [host, *named, *length], body + forged
            )
            carried += response.status == 200
            await smuggler.http.aclose()
        # The forged one carries no token, so whatever is read as a request of its own is refused.
        lines = await smuggler.recorded()
        assert len(lines) == carried
        assert not any(b"smuggled" in line for line in lines)


async def test_a_second_reading_of_a_doubled_member_cannot_get_past_a_permission(worker_era: str) -> None:
    """The tool that is allowed is written once as the client may mean it and once as another reader would read it."""
    tenants = make_policy({})["tenants"]
    tenants["acme"]["allow"] = ["rec/echo", "rec/recorded"]
    server = {"command": "python3", "args": [str(RECORDER), "--era", worker_era]}
    async with serving(make_policy({"rec": server}, tenants)) as served:
        client: LegacyClient = await served.legacy("rec")
        http = RawHttp(served.http.base_url.port)
        for spelled in (b'"name"', b'"\\u006eame"', b'"n\\u0061me"'):
            for first, last in ((b"secret", b"echo"), (b"echo", b"secret")):
                body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"%b",%b:"%b"}}'
                headers = [(key.encode(), value.encode()) for key, value in client.headers("", None).items()]
                response = await http.post(client.path, headers, body % (first, spelled, last))
                assert was_carried(response) == (last == b"echo"), response
        await http.aclose()
        lines = [base64.b64decode(each) for each in (await client.call("recorded")).result["lines"]]
        calls = [line for line in lines if b"tools/call" in line]
        assert len(calls) == 3
        assert not any(b"secret" in line for line in calls)
