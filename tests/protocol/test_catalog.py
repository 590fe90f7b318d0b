"""Many servers as one: exposed names have one reading, lists are cut, and URIs inside results are exposed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mcphost.errors import UpstreamProtocolError
from mcphost.protocol import catalog, jsonrpc
from mcphost.protocol.methods import LISTS

# The names that the policy allows for servers.
SERVER_NAME = r"[A-Za-z][A-Za-z0-9-]{0,5}(_[A-Za-z0-9-]{1,5}){0,2}"
servers = st.lists(
    st.from_regex(SERVER_NAME, fullmatch=True), min_size=1, max_size=6, unique_by=lambda name: name.lower()
)
texts = st.text(st.characters(exclude_categories=["Cs"]))
names = texts | st.text("_+a", max_size=6)


def cut(value: dict) -> jsonrpc.Fields:
    return {key: jsonrpc.raw(each) for key, each in value.items()}


def plain(value: object) -> object:
    return json.loads(jsonrpc.raw_bytes(value))


# --- names --------------------------------------------------------------------------------------------


@given(servers, names, st.sampled_from(["name", "uri", "uriTemplate"]), st.data())
def test_an_exposed_name_is_split_into_what_it_was_made_of(
    known: list[str], name: str, key: str, data: st.DataObject
) -> None:
    server = data.draw(st.sampled_from(known))
    assert catalog.split(key, catalog.expose(server, key, name), known) == (server, name)


@given(servers, names, st.sampled_from(["lower", "upper", "swapcase"]))
def test_the_scheme_of_a_uri_may_come_back_in_another_case(known: list[str], uri: str, change: str) -> None:
    prefix = getattr(known[0], change)()
    assert catalog.split("uri", f"{prefix}+{uri}", known) == (known[0], uri)


def test_the_name_of_a_tool_may_not_come_back_in_another_case() -> None:
    assert catalog.split("name", "TIME__now", ["time"]) is None


@given(servers, names, st.sampled_from(["name", "uri"]))
def test_a_name_of_no_server_means_nothing(known: list[str], name: str, key: str) -> None:
    assert catalog.split(key, catalog.expose("9", key, name), known) is None
    assert catalog.split(key, catalog.expose("", key, name), known) is None
    assert catalog.split(key, known[0], known) is None


@pytest.mark.parametrize(
    ("key", "name", "exposed"),
    [("name", "now", "time__now"), ("name", "a__b", "time__a__b"), ("name", "_a", "time___a"), ("name", "", "time__"),
     ("uri", "file:///a", "time+file:///a"), ("uriTemplate", "f+a:///{x}", "time+f+a:///{x}")],
)  # fmt: skip
def test_exposed_names_look_like_this(key: str, name: str, exposed: str) -> None:
    assert catalog.expose("time", key, name) == exposed


# --- what an endpoint is ------------------------------------------------------------------------------


def test_capabilities_are_the_features_that_any_server_has_and_nothing_below_them() -> None:
    one = cut({"tools": {"listChanged": True}, "tasks": {}, "experimental": {}})
    two = cut({"completions": {}, "resources": {"subscribe": True}})
    assert catalog.capabilities([one, two]) == {"tools": {}, "resources": {}, "completions": {}}
    assert catalog.capabilities([]) == {}
    assert list(catalog.capabilities([two, one])) == list(catalog.capabilities([one, two]))


def test_instructions_stand_under_the_names_of_their_servers() -> None:
    assert catalog.instructions([("a", "One."), ("b", None), ("c", ""), ("d", "Two.")]) == (
        "## a\n\nOne.\n\n## d\n\nTwo."
    )
    assert catalog.instructions([("a", None)]) is None
    assert catalog.instructions([]) is None


@given(st.lists(st.integers(0, 20_000), max_size=4))
def test_instructions_are_bounded_together(lengths: list[int]) -> None:
    text = catalog.instructions([(f"s{n}", "x" * length) for n, length in enumerate(lengths)])
    assert text is None or len(text) <= catalog.MAX_INSTRUCTIONS


# --- lists --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", LISTS.values(), ids=LISTS.keys())
def test_only_what_is_allowed_is_shown_and_it_is_shown_whole(method: catalog.ListMethod) -> None:
    items = [{method.key: "a", "x": {"y": [1]}, "$defs": {}}, {method.key: "b"}, {method.key: "c"}]
    asked: list[str] = []
    allowed = lambda name: bool(asked.append(name)) or name != "b"
    shown = catalog.visible([cut(item) for item in items], method, allowed, None)
    assert plain(shown) == [items[0], items[2]]
    assert asked == ["a", "b", "c"]


@pytest.mark.parametrize("method", LISTS.values(), ids=LISTS.keys())
def test_items_of_many_servers_are_renamed_after_they_were_judged_by_their_own_name(
    method: catalog.ListMethod,
) -> None:
    shown = catalog.visible([cut({method.key: "a"})], method, lambda name: name == "a", "srv")
    assert plain(shown) == [{method.key: "srv__a" if method.key == "name" else "srv+a"}]


@pytest.mark.parametrize("name", [None, 5, ["a"], {"a": 1}])
def test_an_item_without_a_usable_name_is_dropped(name: object) -> None:
    items = [cut({"name": name}), cut({"title": "no name"}), {"name": Raw(b'"\\ud800"')}]
    assert catalog.visible(items, LISTS["tools/list"], lambda _: True, None) == []


def test_the_offer_to_run_a_tool_as_a_task_is_dropped() -> None:
    items = [cut({"name": "a", "execution": {"taskSupport": "optional"}})]
    assert plain(catalog.visible(items, LISTS["tools/list"], lambda _: True, None)) == [{"name": "a"}]


def test_of_two_names_in_one_item_the_one_that_is_judged_is_the_one_that_is_shown() -> None:
    _, items = catalog.page(Raw(b'{"tools":[{"name":"good","name":"bad"}]}'), LISTS["tools/list"])
    assert catalog.visible(items, LISTS["tools/list"], lambda name: name == "good", None) == []


@pytest.mark.parametrize("method", LISTS.values(), ids=LISTS.keys())
def test_a_page_is_cut_into_its_members_and_items(method: catalog.ListMethod) -> None:
    result = {method.member: [{"a": 1}, {"b": 2}], "nextCursor": "n", "other": None}
    members, items = catalog.page(jsonrpc.raw(result), method)
    assert plain(members) == result
    assert plain(items) == result[method.member]
    assert catalog.page(Raw(b"{}"), method) == ({}, [])


@pytest.mark.parametrize("result", [b"[]", b"null", b'{"tools":{}}', b'{"tools":[1]}', b'{"tools":null}'])
def test_a_page_that_is_no_list_is_the_servers_fault(result: bytes) -> None:
    with pytest.raises(UpstreamProtocolError, match="malformed list"):
        catalog.page(Raw(result), LISTS["tools/list"])


# --- URIs inside results ------------------------------------------------------------------------------


def rewritten(result: object) -> object:
    return json.loads(bytes(catalog.rewrite_uris("srv", jsonrpc.raw(result))))


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
    shown = json.loads(bytes(catalog.rewrite_uris("srv", result)))
    assert shown["content"][0]["uri"] == "srv+other+file:///x"


@pytest.mark.parametrize("result", [b'{"content": [ ]}', b'{"structuredContent":{"u":1}}', b"5", b"{"])
def test_a_result_without_any_uri_is_the_same_bytes(result: bytes) -> None:
    assert bytes(catalog.rewrite_uris("srv", Raw(result))) == result


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
        catalog.rewrite_uris("srv", Raw(b'["uri"]'))
