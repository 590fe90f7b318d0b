"""Envelopes: any bytes give one message or one refusal, and nothing that a client wrote becomes a second line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mcphost.errors import INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR, WireError
from mcphost.protocol import jsonrpc
from mcphost.protocol.jsonrpc import ErrorObject, Malformed, Message

texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=6,
)
objects = st.dictionaries(texts, values, max_size=3)
blanks = st.text("\n\r\t ", max_size=3)

DEEP = b"[" * 100_000 + b"]" * 100_000


def message(**members: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **members}).encode()


def code_of(data: bytes) -> int:
    with pytest.raises(Malformed) as caught:
        jsonrpc.decode(data)
    return caught.value.code


def outcome(data: bytes) -> int | None:
    """The code with which these bytes are refused, None if they are a message."""
    try:
        return None if isinstance(jsonrpc.decode(data), Message) else 0
    except Malformed as error:
        return error.code


# --- decoding -----------------------------------------------------------------------------------------


@given(st.binary() | values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_give_a_message_or_a_refusal(data: bytes) -> None:
    assert outcome(data) in {None, PARSE_ERROR, INVALID_REQUEST}


@given(st.data())
def test_a_message_with_any_one_byte_changed_gives_a_message_or_a_refusal(data: st.DataObject) -> None:
    whole = bytearray(message(id="ä1", method="tools/call", params={"name": 'a"\\', "n": [1.5e3, None]}))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] = data.draw(st.integers(0, 255))
    assert outcome(bytes(whole)) in {None, PARSE_ERROR, INVALID_REQUEST}


@pytest.mark.parametrize(
    ("members", "kind", "identifier", "body"),
    [
        ({"id": 1, "method": "m"}, "request", b"1", b""),
        ({"id": "a", "method": "m", "params": {"x": 1}}, "request", b'"a"', b'{"x": 1}'),
        ({"method": "m", "params": {}}, "notification", b"", b"{}"),
        ({"id": 1, "result": {}}, "result", b"1", b"{}"),
        ({"id": 1, "result": None}, "result", b"1", b"null"),
        ({"id": 1, "error": {"code": 1}}, "error", b"1", b'{"code": 1}'),
        ({"id": None, "error": {}}, "error", b"null", b"{}"),
        ({"error": {}}, "error", b"", b"{}"),
        ({"id": 1, "method": None, "result": {}}, "result", b"1", b"{}"),
        ({"id": 1, "method": ""}, "request", b"1", b""),
    ],
)
def test_the_members_that_are_there_make_the_kind(
    members: dict[str, object], kind: str, identifier: bytes, body: bytes
) -> None:
    read = jsonrpc.decode(message(**members))
    assert (read.kind, read.id, bytes(read.body)) == (kind, identifier, body)
    assert read.method == (members.get("method") or "")


@pytest.mark.parametrize(
    "data",
    [
        b"", b" ", b"{", b"nul", b"\xef\xbb\xbf{}", b"{} {}", b'{"jsonrpc":"2.0","method":"m"}x',
        b'{"jsonrpc":"2.0","method":"m","params":[1,]}', b'{"jsonrpc":"2.0","method":"m","x":NaN}',
        b'{"jsonrpc":"2.0","method":"m","id":01}', b"{'jsonrpc':'2.0'}",
    ],
)  # fmt: skip
def test_what_is_no_json_is_a_parse_error(data: bytes) -> None:
    assert code_of(data) == PARSE_ERROR


@pytest.mark.parametrize(
    "data",
    [
        b"[]", b"1", b'"x"', b"null", b"{}", b'[{"jsonrpc":"2.0","id":1,"method":"m"}]',
        b'{"id":1,"method":"m"}', b'{"jsonrpc":"1.0","id":1,"method":"m"}', b'{"jsonrpc":2.0,"method":"m"}',
        message(id=1), message(id=1, method=5), message(method=None),
        message(id=1, result={}, error={}), message(id=1, method="m", result={}),
        message(id=1, method="m", error=None),
    ],
)  # fmt: skip
def test_json_that_is_no_message_is_an_invalid_request(data: bytes) -> None:
    assert code_of(data) == INVALID_REQUEST


def test_a_batch_is_refused_as_no_message() -> None:
    assert code_of(b"[" + message(id=1, method="ping") + b"]") == INVALID_REQUEST


def test_nesting_without_end_is_refused_wherever_it_stands() -> None:
    assert code_of(DEEP) in {PARSE_ERROR, INVALID_REQUEST}
    assert code_of(b'{"jsonrpc":"2.0","method":"m","params":%b}' % DEEP) == PARSE_ERROR
    assert code_of(b'{"jsonrpc":"2.0","method":"m","other":%b}' % DEEP) == PARSE_ERROR
    with pytest.raises(Malformed):
        jsonrpc.fields(Raw(b'{"a":%b}' % DEEP))
    with pytest.raises(Malformed):
        jsonrpc.objects(Raw(b'[{"a":%b}]' % DEEP), "items")
    assert jsonrpc.text(Raw(DEEP)) is None
    assert jsonrpc.strings(Raw(DEEP)) == []
    assert jsonrpc.error_object(Raw(b'{"code":1,"data":%b}' % DEEP)).code == -32603


# --- ids ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "identifier", [b"0", b"-1", b"-0", b"123456789012345678901234567890", b'""', b'"a"', '"ä€"'.encode(), b'"\\u00e4"']
)  # fmt: skip
def test_strings_and_integers_are_ids_and_come_back_as_they_were_spelled(identifier: bytes) -> None:
    assert jsonrpc.decode(b'{"jsonrpc":"2.0","method":"m","id": %b }' % identifier).id == identifier
    assert (
        jsonrpc.encode_answer(identifier, Raw(b"{}")) == b'{"jsonrpc":"2.0","id":%b,"result":{}}' % identifier
    )


@pytest.mark.parametrize(
    "identifier", [b"null", b"true", b"1.0", b"1.5", b"1e3", b"1E3", b"[]", b"[1]", b"{}", b'{"a":1}']
)
def test_nothing_else_is_the_id_of_a_request(identifier: bytes) -> None:
    assert code_of(b'{"jsonrpc":"2.0","method":"m","id":%b}' % identifier) == INVALID_REQUEST


@given(st.integers(1000, 1050), st.booleans())
def test_an_id_longer_than_its_bound_is_refused(length: int, as_text: bool) -> None:
    identifier = b'"%b"' % (b"a" * (length - 2)) if as_text else b"9" * length
    data = b'{"jsonrpc":"2.0","method":"m","id":%b}' % identifier
    if length <= jsonrpc.MAX_ID_BYTES:
        assert jsonrpc.decode(data).id == identifier
    else:
        assert code_of(data) == INVALID_REQUEST


# --- the three traps ----------------------------------------------------------------------------------


@given(objects, blanks)
def test_no_spelling_of_any_params_makes_a_second_line(params: dict[str, object], blank: str) -> None:
    spelled = json.dumps(params, indent=f"\n{blank}\r", separators=(f"{blank},\r", f"{blank}:\n"))
    data = f'{{"jsonrpc":"2.0",{blank}"id":1,"method":"m","params":{blank}{spelled}{blank}}}'.encode()
    line = jsonrpc.encode_request(7, "m", jsonrpc.fields(jsonrpc.decode(data).body))
    assert line.endswith(b"\n")
    assert not set(b"\r\n") & set(line[:-1])
    assert json.loads(line) == {"jsonrpc": "2.0", "id": 7, "method": "m", "params": params}


@given(texts)
def test_no_method_or_notification_makes_a_second_line(method: str) -> None:
    line = jsonrpc.encode_notification(method, {"a": Raw(b"[1,\r\n2]")})
    assert line.count(b"\n") == 1
    assert b"\r" not in line
    assert json.loads(line) == {"jsonrpc": "2.0", "method": method, "params": {"a": [1, 2]}}


@pytest.mark.parametrize("byte", [bytes([number]) for number in range(32)])
def test_a_control_character_inside_any_string_is_refused(byte: bytes) -> None:
    text = b'"a%bb"' % byte
    for member in (b'"id":%b', b'"params":{"x":%b}', b'"params":{%b:1}', b'"other":[%b]', b'"jsonrpc":%b'):
        assert code_of(b'{"jsonrpc":"2.0","method":"m",%b}' % (member % text)) == PARSE_ERROR
    assert code_of(b'{"jsonrpc":"2.0","method":%b}' % text) == PARSE_ERROR


@pytest.mark.parametrize(
    "bad", [b"\xff", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80"]
)
def test_invalid_utf8_is_refused_wherever_it_stands(bad: bytes) -> None:
    for member in (b'"id":"%b"', b'"params":{"x":"%b"}', b'"params":{"%b":1}', b'"other":"%b"'):
        assert code_of(b'{"jsonrpc":"2.0","method":"m",%b}' % (member % bad)) == PARSE_ERROR


@pytest.mark.parametrize(
    "bad", [b"\\ud800", b"\\udc00", b"\\ud800\\u0041", b"\\ud83d\\ud83d\\ude00", b"\\q", b"\\u12"]
)
def test_a_lone_surrogate_or_a_false_escape_is_refused_wherever_it_stands(bad: bytes) -> None:
    for member in (b'"id":"%b"', b'"params":{"x":"%b"}', b'"params":{"%b":1}', b'"other":"%b"'):
        assert code_of(b'{"jsonrpc":"2.0","method":"m",%b}' % (member % bad)) == PARSE_ERROR
    assert jsonrpc.text(Raw(b'"%b"' % bad)) is None


def test_of_duplicate_keys_the_one_that_is_judged_is_the_one_that_is_forwarded() -> None:
    data = b'{"jsonrpc":"2.0","method":"a","method":"b","params":{},"params":{"name":"x","na\\u006de":"y"}}'
    read = jsonrpc.decode(data)
    params = jsonrpc.fields(read.body)
    assert (read.method, jsonrpc.text(params["name"])) == ("b", "y")
    pairs = json.loads(jsonrpc.encode_request(1, read.method, params), object_pairs_hook=list)
    assert dict(pairs)["params"] == [("name", "y")]


# --- cutting apart ------------------------------------------------------------------------------------


@given(objects)
def test_members_come_back_together_as_they_were(value: dict[str, object]) -> None:
    cut = jsonrpc.fields(jsonrpc.raw(value))
    assert cut.keys() == value.keys()
    assert json.loads(jsonrpc.raw_bytes(cut)) == value


def test_absent_params_read_as_an_empty_object() -> None:
    assert jsonrpc.fields(Raw()) == {}


@pytest.mark.parametrize("data", [b"null", b"[]", b'"x"', b"1", b'{"\\ud800":1}'])
def test_what_is_no_object_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(Malformed, match=r"params\._meta must be an object") as caught:
        jsonrpc.fields(Raw(data), "params._meta")
    assert caught.value.code == INVALID_PARAMS


@given(values)
def test_text_is_given_for_strings_and_none_for_all_else(value: object) -> None:
    assert jsonrpc.text(jsonrpc.raw(value)) == (value if isinstance(value, str) else None)


def test_nothing_holds_no_text_no_strings_and_no_objects() -> None:
    assert jsonrpc.text(None) is None
    assert jsonrpc.strings(None) == []
    assert jsonrpc.objects(None, "tools") == []


@pytest.mark.parametrize(
    ("data", "found"), [(b'["a","b"]', ["a", "b"]), (b"[]", []), (b'["a",1]', []), (b"{}", []), (b"null", [])]
)
def test_strings_are_all_of_a_list_or_none(data: bytes, found: list[str]) -> None:
    assert jsonrpc.strings(Raw(data)) == found


@pytest.mark.parametrize("data", [b"null", b"{}", b"[1]", b'[{"a":1},null]'])
def test_what_is_no_list_of_objects_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed, match="tools must be a list of objects"):
        jsonrpc.objects(Raw(data), "tools")


# --- errors and encoding ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b'{"code":-32601,"message":"no"}', {"code": -32601, "message": "no"}),
        (b'{"code":1,"message":"x","data":{"a": [1]}}', {"code": 1, "message": "x", "data": {"a": [1]}}),
        (b'{"code":1,"message":"x","data":null}', {"code": 1, "message": "x", "data": None}),
        (b'{"code":1}', {"code": 1, "message": ""}),
        (b'{"code":99999999999999999999,"message":"x"}', {"code": 99999999999999999999, "message": "x"}),
    ],
)
def test_an_error_object_survives(data: bytes, error: dict[str, object]) -> None:
    answer = json.loads(jsonrpc.encode_error(b"1", jsonrpc.error_object(Raw(data))))
    assert answer == {"jsonrpc": "2.0", "id": 1, "error": error}


@pytest.mark.parametrize(
    "data",
    [b"null", b"[]", b"{}", b'{"code":"1"}', b'{"code":1.5}', b'{"code":1e400}', b'{"code":1,"message":null}',
     b'{"code":' + b"9" * 5000 + b"}", b'{"code":1,"message":"\\ud800"}'],
)  # fmt: skip
def test_an_error_that_is_none_becomes_an_internal_error(data: bytes) -> None:
    assert jsonrpc.error_object(Raw(data)).code == -32603


@given(values)
def test_any_value_is_read_as_an_error_of_some_kind(value: object) -> None:
    assert isinstance(jsonrpc.error_object(jsonrpc.raw(value)), ErrorObject)


def test_an_error_without_a_readable_id_has_no_id_and_a_result_has_null() -> None:
    assert jsonrpc.encode_error(b"", WireError(400, -32700, "no")) == (
        b'{"jsonrpc":"2.0","error":{"code":-32700,"message":"no"}}'
    )
    assert json.loads(jsonrpc.encode_answer(b"", Raw(b"{}")))["id"] is None


def test_the_data_of_our_own_errors_is_sent() -> None:
    wire = WireError(429, 429, "later", {"reason": "rate-limited"})
    assert json.loads(jsonrpc.encode_error(b'"a"', wire))["error"]["data"] == {"reason": "rate-limited"}


def test_params_that_are_none_are_left_out_and_empty_ones_are_sent() -> None:
    assert jsonrpc.encode_notification("m", None) == b'{"jsonrpc":"2.0","method":"m"}\n'
    assert jsonrpc.encode_request(3, "m", {}) == b'{"jsonrpc":"2.0","id":3,"method":"m","params":{}}\n'


@given(st.integers(0, 2**62), texts, objects)
def test_what_we_encode_we_decode(identifier: int, method: str, params: dict[str, object]) -> None:
    raw = {key: jsonrpc.raw(value) for key, value in params.items()}
    read = jsonrpc.decode(jsonrpc.encode_request(identifier, method, raw))
    assert (read.kind, read.method, int(read.id)) == ("request", method, identifier)
    assert json.loads(bytes(read.body)) == params


@given(values)
def test_results_are_carried_byte_for_byte(value: object) -> None:
    result = json.dumps(value).encode()
    read = jsonrpc.decode(jsonrpc.encode_answer(b"1", Raw(result)))
    assert (read.kind, bytes(read.body)) == ("result", result)


@given(
    st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_one_line_is_one_to_every_reader_of_lines_and_says_the_same(value: object) -> None:
    spread = json.dumps(value, ensure_ascii=False, indent=1).replace("\n", "\r\n").encode()
    line = jsonrpc.one_line(spread)
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line) == value


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        (b"1", 1.0),
        (b"-2.5e1", -25.0),
        (b'"1"', None),
        (b"true", None),
        (b"1e999", None),
        (b"", None),
        (b"[", None),
    ],
)
def test_a_number_is_read_from_what_is_one(raw: bytes, number: float | None) -> None:
    assert jsonrpc.number(Raw(raw)) == number
    assert jsonrpc.number(None) is None
