"""The machines of the protocol, one function for each as in `targets`: any bytes, and what must hold of what comes out.

Where a machine takes more than one thing, the bytes are cut at NULs or at line feeds.
"""

import json
from collections.abc import Callable
from contextlib import suppress

from msgspec import Raw

from mcphost.decisions.cursors import Audience, CursorBroken, Own, open_cursor, seal_cursor
from mcphost.decisions.handles import HandleRefused, Who, bind
from mcphost.decisions.handles import decode as decode_handle
from mcphost.decisions.identity import Principal
from mcphost.decisions.sealing import SealBroken, Sealer
from mcphost.errors import DownstreamProtocolError, ServerError, UpstreamProtocolError
from mcphost.protocol import bridge, inputs, jsonrpc, listening, paramheaders
from mcphost.protocol.asking import Declared
from mcphost.protocol.attribution import Attribution, Hears
from mcphost.protocol.envelope import Headers
from mcphost.protocol.envelope import read as read_envelope
from mcphost.protocol.gathering import Gathering
from mcphost.protocol.inputs import InputRequest
from mcphost.protocol.jsonrpc import ErrorObject, Fields, Malformed, Message
from mcphost.protocol.naming import Names
from mcphost.protocol.rewriting import expose_uris
from mcphost.protocol.rounds import Rounds
from mcphost.protocol.upstream import Answered, Asked, Logged, Progressed, Upstream

VERSIONS = (None, "2025-11-25", "2026-07-28", "2024-11-05", "2031-01-01")
EVERYTHING = Declared.read(Raw(b'{"elicitation":{"form":{},"url":{}},"sampling":{"tools":{}},"roots":{}}'))
SEALER = Sealer(bytes(range(32)), bytes)
BOUND = bind(Who("acme", "one", "/mcp"), "tools/call", {})
AUDIENCE = Audience(Principal("acme", "one"), "/mcp", "tools/list")


def one_line(line: bytes) -> None:
    """A line of ours is one, to the most lenient reader, and is JSON."""
    assert line.endswith(b"\n")
    assert len(line[:-1].decode().splitlines()) == 1
    json.loads(line)


def raw(data: bytes) -> Raw:
    """Bytes as a message brings them: whole messages are seen to be UTF-8 before anything is cut out of them."""
    try:
        data.decode()
    except UnicodeDecodeError:
        raise Malformed(0, "no UTF-8") from None
    return Raw(data)


def client_message(data: bytes) -> None:
    """A body under headers: judged or refused with a code, and what was judged is what goes out, on one line."""
    head, _, body = data.partition(b"\0")
    version = VERSIONS[head[0] % len(VERSIONS)] if head else None
    try:
        inbound = read_envelope(body, Headers(version, "tools/call", "echo"))
    except DownstreamProtocolError as error:
        if not -32768 <= error.rpc_code <= -32000:
            raise
        return
    if inbound.message.kind in {"request", "notification"}:
        line = jsonrpc.encode_request(7, inbound.method, inbound.params)
        one_line(line)
        assert jsonrpc.fields(jsonrpc.decode(line).body).keys() == inbound.params.keys()


def worker_lines(data: bytes) -> None:
    """What a server writes, line by line, to a connection with three requests under way and one given up."""
    era, _, rest = data.partition(b"\0")
    machine: Upstream[int] = Upstream(era="auto", client_info=Raw(b"{}"), declared=EVERYTHING, logs=True)
    machine.open()
    good = b'{"jsonrpc":"2.0","id":2,"result":{"protocolVersion":"2025-11-25","capabilities":{"logging":{}}}}'
    if era[:1] == b"m":
        good = b'{"jsonrpc":"2.0","id":1,"result":{"supportedVersions":["2026-07-28"],"capabilities":{}}}'
    machine.receive(good)
    machine.confirm()
    hears = (Hears(), Hears(logs=True, questions=True), Hears(questions=era[1:2] == b"q"))
    sent = {machine.reserve(): each for each in hears}
    for identifier, each in sent.items():
        machine.request(identifier, "tools/call", {}, identifier, each)
    given_up = machine.reserve()
    machine.request(given_up, "subscriptions/listen", {}, given_up)
    if era[2:3] == b"c":
        machine.cancel(given_up, "no more")
    waiting = set(sent)
    for line in rest.split(b"\n")[:200]:
        event = machine.receive(line)
        match event:
            case Answered(entry, _):
                assert entry in waiting or entry == given_up
                waiting.discard(entry)
            case Progressed(entry, _):
                assert entry in waiting or entry == given_up
            case Logged(entry, _):
                assert sent[entry].logs
            case Asked(entry, key, _, _):
                assert sent[entry].questions
                assert sum(sent[each].questions for each in waiting) == 1
                one_line(machine.answer(key, ErrorObject(-1, "no")))
                assert machine.answer(key, Raw(b"{}")) == b""
            case _:
                pass
        if (reply := getattr(event, "reply", None)) is not None and reply:
            one_line(reply)
    assert len(machine) <= len(sent) + 1


def attribution(data: bytes) -> None:
    """Requests come, end and are given up in any order: nobody is meant but the only one who can be."""
    machine, flying, late = Attribution(one_client=False), {}, set()
    for step in data[:2000]:
        identifier = step >> 3
        match step & 3:
            case 0 | 1 if identifier not in flying and identifier not in late:
                flying[identifier] = Hears(logs=bool(step & 4), questions=bool(step & 1))
                machine.sent(identifier, flying[identifier])
            case 2 if identifier in flying or identifier in late:
                flying.pop(identifier, None)
                late.discard(identifier)
                machine.answered(identifier)
            case 3 if identifier in flying:
                del flying[identifier]
                late.add(identifier)
                machine.cancelled(identifier)
        asked, told = machine.of_question(), machine.of_log("legacy", len(flying))
        if asked is not None:
            assert [each for each, hears in flying.items() if hears.questions] == [asked]
        if told is not None:
            assert list(flying) == [told]
            assert not late
            assert flying[told].logs


def listen(data: bytes) -> None:
    """A filter and a notification: read or refused, and written so that it reads as the same."""
    filtered, _, noted = data.partition(b"\0")
    with suppress(Malformed, DownstreamProtocolError):
        wanted = listening.read_filter(jsonrpc.fields(raw(filtered)))
        again = listening.read_filter({"notifications": listening.filter_of(wanted)})
        assert again == wanted
        assert listening.supported(wanted, {}) == listening.NO_INTEREST
    with suppress(Malformed):
        message = jsonrpc.decode(noted)
        heard = listening.read_heard(message.method, jsonrpc.fields(message.body))
        if heard is not None:
            for told in (
                listening.tagged(heard.method, heard.params, b'"mine"'),
                listening.untagged(heard.method, heard.params),
            ):
                one_line(told + b"\n")
            assert listening.META_SUBSCRIPTION not in listening.untagged(heard.method, heard.params).decode()


def param_headers(data: bytes) -> None:
    """A tool's schema, a header and arguments: what is let through is mirrored, and says it once."""
    schema, _, rest = data.partition(b"\0")
    header, _, arguments = rest.partition(b"\0")
    try:
        jsonrpc.fields(raw(schema))
        expected = paramheaders.mirrored(raw(schema))
        passed = paramheaders.check(raw(arguments), {"region": header.decode("latin-1")}, expected)
    except (Malformed, paramheaders.InvalidAnnotation, DownstreamProtocolError):
        return
    if expected and passed is not None:
        assert paramheaders.check(passed, {"region": header.decode("latin-1")}, expected) == passed


def rounds(data: bytes) -> None:
    """What a modern server asks of a legacy client, and what the client answers: its state comes back unchanged."""
    required, _, answers = data.partition(b"\0")
    with suppress(Malformed, UpstreamProtocolError, ServerError):
        read = inputs.read("tools/call", jsonrpc.fields(raw(required)))
        machine = Rounds(EVERYTHING, "salt")
        asked = machine.receive(read)
        assert asked.keys() == read.requests.keys()
        given = {key: Message("result", "", b"1", Raw(b"{}")) for key in asked}
        with suppress(Malformed):
            given |= {key: jsonrpc.decode(answers) for key in list(asked)[:1]}
        carried = machine.retry(given)
        assert carried.get(inputs.STATE) == read.state
        one_line(jsonrpc.encode_request(1, "tools/call", carried))


def gathering(data: bytes) -> None:
    """What a legacy server asks of a modern client, and what comes back: each answer for the question it was given to."""
    asked: Gathering[InputRequest] = Gathering()
    *questions, responses = data.split(b"\0")
    for each in questions[:40]:
        with suppress(Malformed):
            jsonrpc.fields(raw(each))
            asked.add(InputRequest("elicitation/create", Raw(each)))
    before = dict(asked.shown())
    with suppress(Malformed):
        fields = jsonrpc.fields(raw(responses))
        taken = asked.take(fields)
        assert len(taken) + len(asked) == len(before)
        assert all(bytes(answer).startswith(b"{") for _, answer in taken)
        assert asked.shown().keys() <= before.keys() - fields.keys() | {
            key for key, value in fields.items() if not bytes(value).startswith(b"{")
        }


def sealed(data: bytes) -> None:
    """Any text as a handle, and any payload inside a good one."""
    text = data.decode("latin-1")
    for purpose in ("session", "state", "cursor", "task"):
        with suppress(SealBroken):
            opened = SEALER.open(purpose, text)
            assert SEALER.seal(purpose, opened) == text  # the nonce of this sealer is always the same
    with suppress(HandleRefused, UnicodeDecodeError):  # what is inside was written by us
        decode_handle(data, BOUND, now=0.0)
    with suppress(CursorBroken):
        open_cursor(SEALER, AUDIENCE, text)
    with suppress(CursorBroken, UnicodeDecodeError):
        open_cursor(SEALER, AUDIENCE, SEALER.seal("cursor", data))
    own = Own("instance", text)
    assert open_cursor(SEALER, AUDIENCE, seal_cursor(SEALER, AUDIENCE, own)) == own


def results(data: bytes) -> None:
    """What a server answers, on its way to a client of either era, from an endpoint of many servers."""
    with suppress(Malformed):
        result = raw(data)
        jsonrpc.fields(result)
        with suppress(UpstreamProtocolError):
            exposed = expose_uris(Names("__"), "one", result)
            jsonrpc.fields(exposed)
            for client in ("legacy", "modern"):
                for worker in ("legacy", "modern"):
                    eras = bridge.Eras(client, worker)
                    with suppress(UpstreamProtocolError):
                        jsonrpc.fields(bridge.to_client("tools/call", exposed, eras, server_info=Raw(b"{}")))


def named(data: bytes) -> None:
    """A name or URI as exposed reads as what it was made of, or is to be looked up."""
    name = data.decode("utf-8", "replace")
    names = Names("__")
    for key in ("name", "uri"):
        read = names.read(key, names.expose("one_two", key, name), ["one", "one_two"])
        assert read is not None
        assert read.server == "one_two"
        assert read.name in {None, name}
        names.read(key, name, ["one", "one_two"])


PROTOCOL: dict[str, Callable[[bytes], None]] = {
    "client-message": client_message,
    "worker-lines": worker_lines,
    "attribution": attribution,
    "listen": listen,
    "param-headers": param_headers,
    "rounds": rounds,
    "gathering": gathering,
    "sealed": sealed,
    "results": results,
    "named": named,
}

__all__ = ["PROTOCOL", "Fields"]
