"""Many servers as one: what an endpoint is, and lists that are cut to what is allowed, put together and merged."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mcphost.errors import UpstreamProtocolError
from mcphost.protocol import catalog, jsonrpc
from mcphost.protocol.methods import LISTS
from mcphost.protocol.naming import BARE, Names

NAMES = Names("__")
TOOLS = LISTS["tools/list"]


def cut(value: dict) -> jsonrpc.Fields:
    return {key: jsonrpc.raw(each) for key, each in value.items()}


def plain(value: object) -> object:
    return json.loads(jsonrpc.raw_bytes(value))


# --- what an endpoint is ------------------------------------------------------------------------------


def test_capabilities_are_the_features_that_any_server_has_and_what_it_tells_of_them() -> None:
    one = cut({"tools": {"listChanged": True, "own": 1}, "prompts": {"listChanged": False}, "tasks": {}})
    two = cut(
        {"completions": {"listChanged": True}, "resources": {"subscribe": True}, "tools": {}, "prompts": 1}
    )
    assert catalog.capabilities([one, two]) == {
        "tools": {"listChanged": True},
        "resources": {"subscribe": True},
        "prompts": {},
        "completions": {},
    }
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
    shown = catalog.visible([cut(item) for item in items], method, allowed)
    assert plain([item for _, item in shown]) == [items[0], items[2]]
    assert asked == ["a", "b", "c"]


@pytest.mark.parametrize("method", LISTS.values(), ids=LISTS.keys())
def test_items_of_many_servers_are_renamed(method: catalog.ListMethod) -> None:
    part = catalog.exposed("srv", [("a", cut({method.key: "a"}))], method, NAMES)
    label = "srv__a" if method.key == "name" else "srv+a"
    assert (part.names, plain(part.items)) == ((label,), [{method.key: label}])


def test_of_two_items_of_one_name_the_first_is_shown() -> None:
    twice = [("a", cut({"name": "a", "n": 1})), ("a", cut({"name": "a", "n": 2}))]
    assert plain(catalog.exposed("srv", twice, LISTS["tools/list"], BARE).items) == [{"name": "a", "n": 1}]


def test_without_prefixes_the_first_server_that_has_a_name_keeps_it() -> None:
    parts = [
        catalog.exposed(server, [(name, cut({"name": name, "of": server})) for name in names], TOOLS, BARE)
        for server, names in (("one", "ab"), ("two", "bc"), ("three", "abc"))
    ]
    kept, lost = catalog.merge(parts)
    assert [(part.server, part.names) for part in kept] == [
        ("one", ("a", "b")),
        ("two", ("c",)),
        ("three", ()),
    ]
    assert plain([item for part in kept for item in part.items])[1] == {"name": "b", "of": "one"}
    assert lost == [("two", "b"), ("three", "a"), ("three", "b"), ("three", "c")]


@given(st.lists(st.lists(st.text(max_size=2), max_size=4), max_size=4))
def test_parts_of_one_generation_list_the_same_names_in_the_same_order(lists: list[list[str]]) -> None:
    parts = [catalog.Part("s", [], tuple(names)) for names in lists]
    for one in parts:
        for other in parts:
            assert (one.generation == other.generation) == (one.names == other.names)


@pytest.mark.parametrize("name", [None, 5, ["a"], {"a": 1}])
def test_an_item_without_a_usable_name_is_dropped(name: object) -> None:
    items = [cut({"name": name}), cut({"title": "no name"}), {"name": Raw(b'"\\ud800"')}]
    assert catalog.visible(items, LISTS["tools/list"], lambda _: True) == []


def test_the_offer_to_run_a_tool_as_a_task_is_dropped() -> None:
    items = [cut({"name": "a", "execution": {"taskSupport": "optional"}})]
    [(_, item)] = catalog.visible(items, LISTS["tools/list"], lambda _: True)
    assert plain(item) == {"name": "a"}


def test_of_two_names_in_one_item_the_one_that_is_judged_is_the_one_that_is_shown() -> None:
    _, items = catalog.page(Raw(b'{"tools":[{"name":"good","name":"bad"}]}'), LISTS["tools/list"])
    assert catalog.visible(items, LISTS["tools/list"], lambda name: name == "good") == []


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


# --- pages put together -------------------------------------------------------------------------------


def page_of(*names: str, **members: object) -> Raw:
    return jsonrpc.raw({"tools": [{"name": name} for name in names], **members})


def test_pages_are_one_list_that_may_be_kept_as_long_as_its_shortest_lived_page() -> None:
    gathered = catalog.Gathered(TOOLS)
    assert gathered.take(page_of("a", "b", nextCursor="", ttlMs=5000)) == Raw(b'""')
    assert gathered.take(page_of("c", ttlMs=3000, nextCursor=None)) is None
    assert plain(gathered.items) == [{"name": "a"}, {"name": "b"}, {"name": "c"}]
    assert gathered.ttl_ms == 3000


@pytest.mark.parametrize("ttl", [None, -1, 1.5, "5", True, 10**15])
def test_a_page_that_grants_no_sensible_time_may_not_be_kept(ttl: object) -> None:
    gathered = catalog.Gathered(TOOLS)
    gathered.take(page_of(ttlMs=9000, nextCursor="n"))
    gathered.take(page_of(ttlMs=ttl))
    assert gathered.ttl_ms == 0


def test_pages_that_lead_back_to_an_earlier_one_are_the_servers_fault() -> None:
    gathered = catalog.Gathered(TOOLS)
    gathered.take(page_of(nextCursor="1"))
    gathered.take(page_of(nextCursor="2"))
    with pytest.raises(UpstreamProtocolError, match="circle"):
        gathered.take(page_of(nextCursor="1"))


def test_pages_without_end_are_the_servers_fault() -> None:
    gathered = catalog.Gathered(TOOLS)
    for number in range(99):
        gathered.take(page_of(nextCursor=str(number)))
    with pytest.raises(UpstreamProtocolError, match="did not end after 100 pages"):
        gathered.take(page_of(nextCursor="99"))


def test_a_list_beyond_the_bound_is_the_servers_fault_whatever_its_pages() -> None:
    gathered = catalog.Gathered(TOOLS)
    for number in range(8):
        gathered.take(page_of("x" * 500_000, nextCursor=str(number)))
    with pytest.raises(UpstreamProtocolError, match="larger than"):
        gathered.take(page_of("x" * 500_000))
