"""Between eras: what changes in each cell of the table, and that nothing else does."""

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mcphost.errors import MODERN_STATUS, UpstreamProtocolError
from mcphost.protocol import bridge, jsonrpc
from mcphost.protocol.bridge import Eras, Told
from mcphost.protocol.jsonrpc import ErrorObject, Fields
from mcphost.protocol.methods import CACHEABLE, FORWARDED
from mcphost.protocol.versions import Era

PREFIX = "io.modelcontextprotocol/"
US = Raw(b'{"name":"mcphost"}')
THEM = {"name": "server"}

CELLS = [Eras(client, worker) for client in get_args(Era) for worker in get_args(Era)]
LEGACY_ONLY = Eras("legacy", "legacy")
ANY_CELL = pytest.mark.parametrize(
    "eras", CELLS, ids=lambda eras: f"{eras.client} client, {eras.worker} worker"
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
OURS = {"_meta", "inputResponses", "requestState", "task", "resultType", "ttlMs", "cacheScope"}
unknown = st.dictionaries(texts.filter(lambda key: key not in OURS), values, max_size=4)
unknown_meta = st.dictionaries(
    texts.filter(lambda key: not key.startswith(PREFIX) and key != "progressToken"), values, max_size=4
)


def cut(value: dict[str, object]) -> Fields:
    return {key: jsonrpc.raw(each) for key, each in value.items()}


def to_worker(params: dict, meta: dict, eras: Eras, token: int | None = None) -> dict:
    sent = bridge.to_worker(cut(params), cut(meta), eras, token=token, client_info=US)
    return json.loads(jsonrpc.raw_bytes(sent))


def to_client(result: object, eras: Eras, method: str = "tools/call") -> dict:
    raw = Raw(json.dumps(result).encode())
    return json.loads(bytes(bridge.to_client(method, raw, eras, server_info=US)))


# --- params -------------------------------------------------------------------------------------------


@given(unknown, unknown_meta, st.sampled_from(CELLS), st.none() | st.integers(1, 99))
def test_whatever_else_is_in_params_and_their_metadata_survives(
    params: dict, meta: dict, eras: Eras, token: int | None
) -> None:
    sent = to_worker(params | {"_meta": meta}, meta, eras, token)
    kept = {key: value for key, value in sent.pop("_meta", {}).items() if not key.startswith(PREFIX)}
    assert sent == params
    assert kept == (meta if token is None else meta | {"progressToken": token})


@ANY_CELL
def test_what_was_not_negotiated_with_the_worker_is_taken_out(eras: Eras) -> None:
    params = {"name": "x", "inputResponses": {}, "requestState": "s", "task": {"ttl": 1}}
    assert to_worker(params, {}, eras).keys() - {"_meta"} == {"name"}


@ANY_CELL
def test_the_clients_progress_token_never_reaches_a_worker(eras: Eras) -> None:
    meta = {"progressToken": "the client's"}
    assert "progressToken" not in to_worker({}, meta, eras).get("_meta", {})
    assert to_worker({}, meta, eras, token=5)["_meta"]["progressToken"] == 5


MODERN_META = {
    f"{PREFIX}protocolVersion": "2099-01-01",
    f"{PREFIX}clientCapabilities": {"sampling": {}},
    f"{PREFIX}clientInfo": THEM,
    f"{PREFIX}logLevel": "debug",
    f"{PREFIX}later": 1,
    "traceparent": "00-1-2-01",
}


def test_a_modern_worker_is_told_our_revision_and_who_the_modern_client_is() -> None:
    assert to_worker({}, MODERN_META, Eras("modern", "modern")) == {"_meta": {
        f"{PREFIX}protocolVersion": "2026-07-28", f"{PREFIX}clientCapabilities": {}, f"{PREFIX}clientInfo": THEM,
        f"{PREFIX}later": 1, "traceparent": "00-1-2-01",
    }}  # fmt: skip


def test_what_a_legacy_client_writes_under_the_protocols_own_prefix_means_nothing_to_a_modern_worker() -> (
    None
):
    assert to_worker({}, MODERN_META, Eras("legacy", "modern")) == {"_meta": {
        f"{PREFIX}protocolVersion": "2026-07-28", f"{PREFIX}clientCapabilities": {},
        f"{PREFIX}clientInfo": {"name": "mcphost"}, "traceparent": "00-1-2-01",
    }}  # fmt: skip


@pytest.mark.parametrize("client", get_args(Era))
def test_a_modern_worker_is_told_what_we_say_the_client_can_do_and_wants_logged(client: Era) -> None:
    told = Told(Raw(b'{"roots":{}}'), "notice", {"requestState": Raw(b'"s\\u0041"')})
    sent = bridge.to_worker(
        {}, cut(MODERN_META), Eras(client, "modern"), token=None, client_info=US, told=told
    )
    meta = json.loads(bytes(sent["_meta"]))
    assert meta[f"{PREFIX}clientCapabilities"] == {"roots": {}}
    assert meta[f"{PREFIX}logLevel"] == "notice"
    assert bytes(sent["requestState"]) == b'"s\\u0041"'


def test_a_legacy_worker_is_told_nothing_of_rounds_and_levels() -> None:
    told = Told(Raw(b'{"roots":{}}'), "notice", {"requestState": Raw(b'"s"')})
    assert bridge.to_worker({}, {}, Eras("modern", "legacy"), token=None, client_info=US, told=told) == {}


def test_where_a_client_told_nothing_of_itself_a_modern_worker_is_told_of_us() -> None:
    meta = to_worker({}, {}, Eras("legacy", "modern"))["_meta"]
    assert meta[f"{PREFIX}clientInfo"] == {"name": "mcphost"}


@pytest.mark.parametrize("client", get_args(Era))
def test_a_legacy_worker_sees_nothing_of_the_modern_metadata(client: Era) -> None:
    meta = {
        f"{PREFIX}protocolVersion": "2026-07-28",
        f"{PREFIX}clientInfo": {},
        f"{PREFIX}later": 1,
        "own": 2,
    }
    assert to_worker({}, meta, Eras(client, "legacy")) == {"_meta": {"own": 2}}


@pytest.mark.parametrize("client", get_args(Era))
def test_a_legacy_worker_gets_no_empty_metadata(client: Era) -> None:
    assert to_worker({"a": 1}, {f"{PREFIX}clientInfo": {}}, Eras(client, "legacy")) == {"a": 1}


def test_what_the_caller_holds_is_left_as_it_was() -> None:
    params, meta = cut({"name": "x", "task": {}, "_meta": {}}), cut({"progressToken": 1})
    bridge.to_worker(params, meta, Eras("modern", "legacy"), token=7, client_info=US)
    assert (params.keys(), meta.keys()) == ({"name", "task", "_meta"}, {"progressToken"})


# --- results ------------------------------------------------------------------------------------------


@given(unknown, unknown_meta, st.sampled_from(CELLS), st.sampled_from(sorted(FORWARDED)))
def test_whatever_else_is_in_a_result_and_its_metadata_survives(
    result: dict, meta: dict, eras: Eras, method: str
) -> None:
    given_ = to_client(result | {"_meta": meta}, eras, method)
    got_meta = given_.pop("_meta", {})
    got_meta.pop(f"{PREFIX}serverInfo", None)
    assert got_meta == meta
    assert {key: value for key, value in given_.items() if key not in OURS} == result


@given(unknown, texts)
def test_between_two_legacy_parties_a_result_is_the_same_bytes(result: dict, blank: str) -> None:
    raw = json.dumps(result | {"resultType": blank, "ttlMs": 5, "_meta": {}}, indent=2).encode()
    assert bytes(bridge.to_client("tools/list", Raw(raw), LEGACY_ONLY, server_info=US)) == raw


def test_a_legacy_client_is_spared_what_only_modern_ones_know() -> None:
    eras = Eras("legacy", "modern")
    modern = {"resultType": "complete", "ttlMs": 5, "cacheScope": "public", "tools": []}
    assert to_client(modern | {"_meta": {f"{PREFIX}serverInfo": THEM}}, eras) == {"tools": []}
    assert to_client(modern | {"_meta": {f"{PREFIX}serverInfo": THEM, "a": 1}}, eras) == {
        "tools": [], "_meta": {"a": 1},
    }  # fmt: skip
    assert to_client({"tools": []}, eras) == {"tools": []}


@pytest.mark.parametrize("worker", get_args(Era))
def test_a_modern_client_is_told_the_type_and_who_answered(worker: Era) -> None:
    meta = {f"{PREFIX}serverInfo": {"name": "mcphost"}}
    assert to_client({"content": []}, Eras("modern", worker)) == {
        "content": [], "resultType": "complete", "_meta": meta,
    }  # fmt: skip


def test_a_modern_servers_own_name_stays() -> None:
    result = to_client({"_meta": {f"{PREFIX}serverInfo": THEM}}, Eras("modern", "modern"))
    assert result["_meta"] == {f"{PREFIX}serverInfo": THEM}


@pytest.mark.parametrize("worker", get_args(Era))
@pytest.mark.parametrize("method", sorted(FORWARDED))
def test_caching_hints_are_owed_for_some_methods_and_never_let_anything_be_shared(
    method: str, worker: Era
) -> None:
    plain = to_client({}, Eras("modern", worker), method)
    hinted = to_client({"ttlMs": 500, "cacheScope": "public"}, Eras("modern", worker), method)
    if method in CACHEABLE:
        assert (plain["ttlMs"], plain["cacheScope"]) == (0, "private")
        assert (hinted["ttlMs"], hinted["cacheScope"]) == (500, "private")
    else:
        assert not plain.keys() & {"ttlMs", "cacheScope"}


@pytest.mark.parametrize("kind", ["input_required", "task", None, 5])
def test_a_legacy_server_cannot_speak_of_result_types_to_a_modern_client(kind: object) -> None:
    result = to_client({"resultType": kind, "inputRequests": {"a": {}}}, Eras("modern", "legacy"))
    assert result["resultType"] == "complete"


@pytest.mark.parametrize("client", get_args(Era))
@pytest.mark.parametrize("extended", [False, True])
def test_a_result_that_waits_for_input_is_none_where_nobody_was_to_be_asked(
    client: Era, extended: bool
) -> None:
    result = Raw(b'{"resultType":"input_required","inputRequests":{}}')
    with pytest.raises(UpstreamProtocolError):
        bridge.to_client("tools/call", result, Eras(client, "modern"), server_info=US, extended=extended)


def test_a_result_of_an_extension_that_both_have_goes_through_under_its_type() -> None:
    result = Raw(b'{"resultType":"task","taskId":"t"}')
    carried = bridge.to_client("tools/call", result, Eras("modern", "modern"), server_info=US, extended=True)
    assert json.loads(bytes(carried)) == {
        "resultType": "task", "taskId": "t", "_meta": {f"{PREFIX}serverInfo": {"name": "mcphost"}},
    }  # fmt: skip
    with pytest.raises(UpstreamProtocolError):
        bridge.to_client("tools/call", result, Eras("legacy", "modern"), server_info=US, extended=True)


@pytest.mark.parametrize(
    ("client", "server", "shared"),
    [
        ({"extensions": {"a": {}, "b": {}}}, {"extensions": {"b": {}, "c": {}}}, True),
        ({"extensions": {"a": {}}}, {"extensions": {"c": {}}}, False),
        ({}, {"extensions": {"c": {}}}, False),
        ({"extensions": {"a": {}}}, {}, False),
        ({"extensions": 5}, {"extensions": {"c": {}}}, False),
    ],
)
def test_an_extension_is_shared_if_both_name_it(client: dict, server: dict, shared: bool) -> None:
    assert bridge.share_extension(Raw(json.dumps(client).encode()), cut(server)) is shared


@pytest.mark.parametrize("method", ["resources/read", "tools/call"])
def test_what_asks_for_input_is_never_to_be_kept(method: str) -> None:
    members = cut({"requestState": "s", "ttlMs": 60000, "cacheScope": "public"})
    written = bridge.modern_result(method, members, US, "input_required")
    assert written.keys() == {"requestState", "resultType", "_meta"}


def test_a_result_that_asks_in_escaped_letters_asks_all_the_same() -> None:
    asks = Raw(b'{"resultType":"input\\u005frequired","requestState":"s"}')
    assert bridge.asks_for_input(asks, Eras("modern", "modern")) is not None


def test_a_result_that_asks_for_input_is_told_from_one_that_only_mentions_it() -> None:
    modern = Eras("modern", "modern")
    asks = Raw(b'{"resultType":"input_required","requestState":"s"}')
    members = bridge.asks_for_input(asks, modern)
    assert members is not None
    assert bytes(members["requestState"]) == b'"s"'
    assert bridge.asks_for_input(asks, Eras("modern", "legacy")) is None
    assert bridge.asks_for_input(Raw(b'{"content":["input_required"]}'), modern) is None
    with pytest.raises(UpstreamProtocolError):
        bridge.asks_for_input(Raw(b'["input_required"]'), modern)


@pytest.mark.parametrize("client", get_args(Era))
@pytest.mark.parametrize("kind", ["task", "", "Complete", 5, None, ["complete"]])
def test_a_result_of_a_type_that_was_not_negotiated_is_the_servers_fault(client: Era, kind: object) -> None:
    with pytest.raises(UpstreamProtocolError):
        to_client({"resultType": kind}, Eras(client, "modern"))


@ANY_CELL
@pytest.mark.parametrize("result", [None, [], "x", 5, True])
def test_a_result_that_is_no_object_is_the_servers_fault(eras: Eras, result: object) -> None:
    with pytest.raises(UpstreamProtocolError):
        to_client(result, eras)


@pytest.mark.parametrize("eras", [eras for eras in CELLS if eras != LEGACY_ONLY])
@pytest.mark.parametrize("meta", [None, [], "x"])
def test_metadata_that_is_no_object_is_the_servers_fault(eras: Eras, meta: object) -> None:
    with pytest.raises(UpstreamProtocolError):
        to_client({"_meta": meta}, eras)


# --- errors -------------------------------------------------------------------------------------------


@given(
    st.integers(-33000, -31000) | st.integers(),
    st.sampled_from([eras for eras in CELLS if eras.client == "legacy"]),
)
def test_a_legacy_client_gets_every_error_as_it_is(code: int, eras: Eras) -> None:
    error = ErrorObject(code, "text", Raw(b'{"a":1}'))
    assert bridge.error_to_client(error, eras) is error


@given(st.integers(-33000, -31000) | st.integers(), st.sampled_from(get_args(Era)))
def test_a_modern_client_never_gets_a_reserved_code_from_a_server_that_may_not_use_it(
    code: int, worker: Era
) -> None:
    told = bridge.error_to_client(ErrorObject(code, "text", Raw(b"[1]")), Eras("modern", worker))
    assert (told.message, bytes(told.data)) == ("text", b"[1]")
    reserved = -32099 <= code <= -32020
    known = worker == "modern" and code in MODERN_STATUS
    if code == -32002:
        assert told.code == -32602
    elif reserved and not known:
        assert told.code == -32603
    else:
        assert told.code == code


@pytest.mark.parametrize(
    ("code", "from_legacy", "from_modern"),
    [(-32002, -32602, -32602), (-32042, -32603, -32603), (-32021, -32603, -32021), (-32022, -32603, -32022),
     (-32601, -32601, -32601), (-32019, -32019, -32019), (-32020, -32603, -32020), (-32023, -32603, -32603),
     (-32099, -32603, -32603), (-32100, -32100, -32100), (7, 7, 7)],
)  # fmt: skip
def test_the_codes_that_have_a_history(code: int, from_legacy: int, from_modern: int) -> None:
    assert bridge.error_to_client(ErrorObject(code), Eras("modern", "legacy")).code == from_legacy
    assert bridge.error_to_client(ErrorObject(code), Eras("modern", "modern")).code == from_modern


def test_an_unknown_resource_is_named_as_the_client_named_it() -> None:
    uri = Raw(b'"file:///x"')
    for data, told in ((b"", {}), (b"[1]", {}), (b'{"why":1,"uri":"server\'s own"}', {"why": 1})):
        error = bridge.error_to_client(
            ErrorObject(-32002, "no", Raw(data)), Eras("modern", "legacy"), uri=uri
        )
        assert (error.code, json.loads(bytes(error.data))) == (-32602, told | {"uri": "file:///x"})


def test_error_32042_of_a_legacy_server_stands_for_questions_by_url() -> None:
    data = {
        "elicitations": [{"mode": "url", "elicitationId": "1", "url": "https://x.example/1", "message": "m"}]
    }
    asked = bridge.elicitations(ErrorObject(-32042, "more", jsonrpc.raw(data)))
    assert asked is not None
    (question,) = asked.values()
    assert question.method == "elicitation/create"
    assert json.loads(bytes(question.params)) == {"mode": "url", "url": "https://x.example/1", "message": "m"}


@pytest.mark.parametrize("data", [b"", b"5", b"{}", b'{"elicitations":[]}', b'{"elicitations":[1]}'])
def test_error_32042_without_questions_stands_for_none(data: bytes) -> None:
    assert bridge.elicitations(ErrorObject(-32042, "more", Raw(data))) is None


def test_no_other_error_stands_for_questions() -> None:
    data = jsonrpc.raw({"elicitations": [{"url": "https://x.example"}]})
    assert bridge.elicitations(ErrorObject(-32043, "more", data)) is None


def test_what_depends_on_answers_is_stale_at_once_whatever_its_server_grants() -> None:
    result = jsonrpc.raw({"contents": [], "ttlMs": 60_000})
    for may_be_kept, ttl_ms in ((True, 60_000), (False, 0)):
        shown = bridge.to_client(
            "resources/read",
            result,
            bridge.Eras("modern", "modern"),
            server_info=jsonrpc.EMPTY_OBJECT,
            may_be_kept=may_be_kept,
        )
        assert jsonrpc.fields(shown)["ttlMs"] == jsonrpc.raw(ttl_ms)
