"""URIs inside results and items: an endpoint of many servers shows each as its lists do."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mcphost.errors import UpstreamProtocolError
from mcphost.protocol import jsonrpc, rewriting
from mcphost.protocol.naming import BARE, Names

NAMES = Names("__")
texts = st.text(st.characters(exclude_categories=["Cs"]))


def rewritten(result: object) -> object:
    return json.loads(bytes(rewriting.expose_uris(NAMES, "srv", jsonrpc.raw(result))))


def test_the_contents_of_a_resource_are_exposed() -> None:
    contents = [{"uri": "file:///a", "text": "x"}, {"uri": "file:///b", "blob": "eA=="}]
    assert rewritten({"contents": contents}) == {
        "contents": [{"uri": "srv+file:///a", "text": "x"}, {"uri": "srv+file:///b", "blob": "eA=="}]
    }


def test_links_and_embedded_resources_are_exposed_and_text_is_not() -> None:
    blocks = [
        {"type": "text", "text": "see", "uri": "file:///kept"},
        {"type": "resource_link", "uri": "file:///a", "name": "a"},
        {"type": "resource", "resource": {"uri": "file:///b", "text": '"uri"'}, "annotations": {}},
    ]
    result = rewritten({"content": blocks, "isError": False})
    assert result == {"isError": False, "content": [
        blocks[0], {**blocks[1], "uri": "srv+file:///a"},
        {**blocks[2], "resource": {"uri": "srv+file:///b", "text": '"uri"'}},
    ]}  # fmt: skip


def test_the_messages_of_a_prompt_are_exposed() -> None:
    link = {"type": "resource_link", "uri": "u:a"}
    messages = [
        {"role": "user", "content": link},
        {"role": "user", "content": {"type": "text"}},
        {"role": "user"},
    ]
    result = rewritten({"messages": messages, "description": "d"})
    assert result == {
        "description": "d",
        "messages": [{"role": "user", "content": {**link, "uri": "srv+u:a"}}, *messages[1:]],
    }


def test_an_escaped_spelling_hides_no_uri() -> None:
    result = Raw(b'{"content":[{"type":"resource_link","\\u0075r\\u0069":"other+file:///x"}]}')
    shown = json.loads(bytes(rewriting.expose_uris(NAMES, "srv", result)))
    assert shown["content"][0]["uri"] == "srv+other+file:///x"


@pytest.mark.parametrize("result", [b'{"content": [ ]}', b'{"structuredContent":{"u":1}}', b"5", b"{"])
def test_a_result_without_any_uri_is_the_same_bytes(result: bytes) -> None:
    assert bytes(rewriting.expose_uris(NAMES, "srv", Raw(result))) == result


values = st.recursive(
    st.none() | st.integers() | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=6,
)


@given(st.dictionaries(texts, values, max_size=4))
def test_everything_outside_the_known_places_is_left_as_it_was(result: dict) -> None:
    result = {key: value for key, value in result.items() if key not in {"content", "contents", "messages"}}
    result["structuredContent"] = {"uri": "kept:a", "content": [{"type": "resource_link", "uri": "kept:b"}]}
    assert rewritten(result) == result


def test_items_without_a_uri_that_is_a_string_are_left_as_they_were() -> None:
    result = {"content": [{"type": "resource_link", "uri": 5}, {"type": "resource"}], "uri": 1}
    expected = {"content": [result["content"][0], {"type": "resource", "resource": {}}], "uri": 1}
    assert rewritten(result) == expected


@pytest.mark.parametrize(
    "result",
    [{"content": {}}, {"content": [1]}, {"content": [{"type": "resource", "resource": 1}]}, {"contents": "x"},
     {"messages": {}}, {"messages": [{"content": [{}]}]}, {"messages": [{"content": "x"}]}],
)  # fmt: skip
def test_a_result_of_another_form_is_the_servers_fault(result: dict) -> None:
    with pytest.raises(UpstreamProtocolError, match="malformed result"):
        rewritten(result | {"uri": ""})


def test_a_list_that_speaks_of_uris_is_the_servers_fault() -> None:
    with pytest.raises(UpstreamProtocolError):
        rewriting.expose_uris(NAMES, "srv", Raw(b'["uri"]'))


def test_the_endpoint_of_one_server_changes_no_uri() -> None:
    result = Raw(b'{"contents":[{"uri":"file:///a"}]}')
    assert rewriting.expose_uris(BARE, "srv", result) is result


@pytest.mark.parametrize(
    ("data", "told"),
    [(b'{"uri":"file:///a","x":1}', b'{"uri":"srv+file:///a","x":1}'), (b'{"uri":"file:///b"}', None), (b'{"x":1}', None),
     (b"", None), (b'["uri"]', None), (b'{"uri":5}', None)],
)  # fmt: skip
def test_an_error_names_the_resource_as_the_client_did(data: bytes, told: bytes | None) -> None:
    shown = Raw(b'"srv+file:///a"')
    assert rewriting.expose_error(data, "file:///a", shown) == (told or data)
    assert rewriting.expose_error(data, "file:///a", None) == data


# --- the page of a tool's app -------------------------------------------------------------------------


def with_app(meta: object, names: Names = NAMES) -> object:
    tool = {"name": jsonrpc.raw("board"), "_meta": jsonrpc.raw(meta)}
    rewriting.expose_app(names, "srv", tool)
    return json.loads(bytes(tool["_meta"]))


def test_the_page_that_shows_a_tools_results_is_exposed_and_keeps_its_scheme() -> None:
    meta = {"ui": {"resourceUri": "ui://board/main", "visibility": ["model"]}, "x": 1}
    assert with_app(meta) == {"ui": {"resourceUri": "ui://srv+board/main", "visibility": ["model"]}, "x": 1}
    assert with_app({"ui/resourceUri": "ui://board"}) == {"ui/resourceUri": "ui://srv+board"}
    assert with_app(meta, BARE) == meta


@pytest.mark.parametrize("meta", [None, 5, {"ui": 5}, {"ui": {"resourceUri": 5}}, {"ui": {}}, {}])
def test_what_names_no_page_is_left_as_it_was(meta: object) -> None:
    assert with_app(meta) == meta
