"""Headers that mirror arguments: which a schema asks for, and when they and the arguments agree."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mcphost.errors import HEADER_MISMATCH, DownstreamProtocolError
from mcphost.protocol import jsonrpc
from mcphost.protocol.headertext import BadHeaderText, decoded
from mcphost.protocol.paramheaders import InvalidAnnotation, Mirrored, check, mirrored

texts = st.text(st.characters(exclude_categories=["Cs"]))
STRING = {"type": "string", "x-mcp-header": "Region"}


def schema(**properties: object) -> Raw:
    return jsonrpc.raw({"type": "object", "properties": properties})


def in_base64(text: str) -> str:
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


# --- the text of a header -----------------------------------------------------------------------------


@given(texts)
def test_a_value_in_base64_is_read_back(text: str) -> None:
    assert decoded(in_base64(text)) == text


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_plain_text_means_itself_unless_it_looks_like_base64(text: str) -> None:
    if not (text.startswith("=?base64?") and text.endswith("?=")):
        assert decoded(text) == text


@pytest.mark.parametrize(
    "text",
    ["=?base64?SGVsbG8?=", "=?base64?SGVs!!!bG8=?=", "=?base64?SGVsbG9=?=", "=?base64?/w==?=", "=?base64?SGVs bG8=?=",
     "é", "a\x00", "a\x7f", "a\nb"],
)  # fmt: skip
def test_text_that_could_be_read_two_ways_spells_nothing(text: str) -> None:
    with pytest.raises(BadHeaderText):
        decoded(text)


# --- what a schema asks for ---------------------------------------------------------------------------


def test_annotations_are_found_on_parameters_however_deep_they_are_nested() -> None:
    nested = {"type": "object", "properties": {"zone": {"type": "integer", "x-mcp-header": "Zone"}}}
    found = mirrored(schema(region=STRING, place=nested, query={"type": "string"}))
    assert found == (Mirrored("region", ("region",)), Mirrored("zone", ("place", "zone")))


@pytest.mark.parametrize(
    "harmless",
    [{"x-mcp-header": {"type": "string"}}, {"a": {"default": {"x-mcp-header": 5}}}, {"a": {"enum": [{"x-mcp-header": ""}]}},
     {"a": True}, {}],
)  # fmt: skip
def test_a_name_or_a_value_that_only_looks_like_an_annotation_is_none(harmless: dict) -> None:
    assert mirrored(schema(**harmless)) == ()


@pytest.mark.parametrize("nothing", [None, Raw(b"{}"), Raw(b"5"), Raw(b'{"properties":5}')])
def test_a_tool_without_annotations_asks_for_nothing(nothing: Raw | None) -> None:
    assert mirrored(nothing) == ()


@pytest.mark.parametrize(
    "properties",
    [
        {"a": {"type": "string", "x-mcp-header": ""}},
        {"a": {"type": "string", "x-mcp-header": "a b"}},
        {"a": {"type": "string", "x-mcp-header": "a\r\n"}},
        {"a": {"type": "string", "x-mcp-header": 5}},
        {"a": {"type": "number", "x-mcp-header": "A"}},
        {"a": {"type": ["string", "null"], "x-mcp-header": "A"}},
        {"a": {"x-mcp-header": "A"}},
        {"a": {"type": "object", "x-mcp-header": "A"}},
        {"a": {"type": "string", "x-mcp-header": "A"}, "b": {"type": "string", "x-mcp-header": "a"}},
        {"a": {"type": "array", "items": STRING}},
        {"a": {"anyOf": [STRING, {"type": "null"}]}},
        {"a": {"$defs": {"x": STRING}}},
        {"a": {"not": {"properties": {"b": STRING}}}},
        {"a": {"patternProperties": {"^a": STRING}}},
    ],
)
def test_an_annotation_against_the_rules_makes_the_tool_invalid(properties: dict) -> None:
    with pytest.raises(InvalidAnnotation):
        mirrored(schema(**properties))


def test_an_annotation_on_the_whole_or_by_an_escaped_key_is_seen() -> None:
    with pytest.raises(InvalidAnnotation):
        mirrored(jsonrpc.raw({"type": "string", "x-mcp-header": "A"}))
    escaped = Raw(b'{"properties":{"a":{"type":"string","\\u0078-mcp-header":"A"}}}')
    assert mirrored(escaped) == (Mirrored("a", ("a",)),)


@given(st.recursive(st.none() | st.booleans() | texts, lambda inner: st.lists(inner) | st.dictionaries(texts | st.sampled_from(["properties", "items", "x-mcp-header", "type"]), inner)))  # fmt: skip
def test_any_schema_gives_annotations_or_is_invalid(value: object) -> None:
    try:
        found = mirrored(jsonrpc.raw(value))
    except InvalidAnnotation:
        return
    assert all(each.path and each.header for each in found)


# --- headers against arguments ------------------------------------------------------------------------

REGION = (Mirrored("region", ("region",)),)


def agree(value: object, header: str | None) -> bool:
    arguments = jsonrpc.raw({} if value is ... else {"region": value})
    try:
        check(arguments, {} if header is None else {"region": header}, REGION)
    except DownstreamProtocolError as error:
        return error.rpc_code != HEADER_MISMATCH
    return True


@given(texts)
def test_a_text_agrees_with_itself_in_base64_and_with_no_other(text: str) -> None:
    assert agree(text, in_base64(text))
    assert not agree(text, in_base64(text + "x"))
    assert not agree(text, None)


@pytest.mark.parametrize(
    ("value", "header"),
    [("eu", "eu"), (42, "42"), (42, "42.0"), (42.0, "42"), (-7, "-7"), (2**60, str(2**60)), (True, "true"),
     (False, "false"), (None, None), (..., None), ("", ""), ("42.0", "42.0")],
)  # fmt: skip
def test_these_agree(value: object, header: str | None) -> None:
    assert agree(value, header)


@pytest.mark.parametrize(
    ("value", "header"),
    [("eu", "EU"), ("eu", "us"), ("eu", None), (None, "eu"), (..., "eu"), (..., ""), (42, "43"), (42, "42.5"), (42, "0x2a"),
     (42, "4_2"), (42.5, "42.5"), (True, "True"), (True, "1"), (1, "true"), ("42", "42.0"), (["eu"], "eu"), (["eu"], None),
     ({"a": 1}, None), ("é", "é"), ("Hello", "=?base64?SGVsbG8?="), ("null", None)],
)  # fmt: skip
def test_these_do_not(value: object, header: str | None) -> None:
    assert not agree(value, header)


def test_a_nested_argument_is_found_and_headers_of_others_are_ignored() -> None:
    zone = (Mirrored("zone", ("place", "zone")),)
    arguments = Raw(b'{"place":{"zone":3,"x":[1]}}')
    assert json.loads(bytes(check(arguments, {"zone": "3", "other": "é"}, zone) or b"")) == {
        "place": {"zone": 3, "x": [1]}
    }
    for inside in (b'{"place":5}', b"{}", b'{"place":{}}'):
        check(Raw(inside), {}, zone)
        with pytest.raises(DownstreamProtocolError):
            check(Raw(inside), {"zone": "3"}, zone)


def test_of_an_argument_that_stands_twice_only_the_compared_value_goes_on() -> None:
    arguments = Raw(b'{"region":"us","place":{"zone":1,"zone":2},"region":"eu"}')
    expected = (*REGION, Mirrored("zone", ("place", "zone")))
    passed = check(arguments, {"region": "eu", "zone": "2"}, expected)
    assert bytes(passed or b"").count(b"region") == 1
    assert bytes(passed or b"").count(b"zone") == 1


def test_a_call_that_no_header_mirrors_is_left_as_it_was() -> None:
    arguments = Raw(b'{ "a":1,"a":2 }')
    assert check(arguments, {"region": "x"}, ()) is arguments
    assert check(None, {}, REGION) is None


@pytest.mark.parametrize("arguments", [b"[]", b"5", b'"x"'])
def test_arguments_that_are_no_object_are_invalid(arguments: bytes) -> None:
    with pytest.raises(DownstreamProtocolError):
        check(Raw(arguments), {}, REGION)
