"""What clients listen for: read from any filter, joined, granted, and told under the client's own id."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mcphost.errors import DownstreamProtocolError
from mcphost.protocol import jsonrpc, listening
from mcphost.protocol.listening import ALL_LISTS, NO_INTEREST, Heard, Interest, of_kinds

SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
uris = st.text("ab/?#:", min_size=1, max_size=8)
names = st.frozensets(uris, max_size=4)
interests = st.builds(Interest, st.booleans(), st.booleans(), st.booleans(), names, names)
heards = (
    st.sampled_from(["tools", "prompts", "resources"]).map(listening.list_changed)
    | uris.map(listening.updated)
    | uris.map(lambda task: Heard("notifications/tasks", {}, task=task))
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)
filters = st.dictionaries(
    st.sampled_from(["toolsListChanged", "promptsListChanged", "resourceSubscriptions", "taskIds", "other"]),
    json_values | st.booleans() | st.lists(texts, max_size=3),
)
ids = st.integers().map(lambda number: b"%d" % number) | texts.map(lambda text: json.dumps(text).encode())


def cut(value: dict) -> jsonrpc.Fields:
    return {key: jsonrpc.raw(each) for key, each in value.items()}


def read(wanted: object) -> Interest:
    return listening.read_filter(cut({"notifications": wanted}))


# --- what is asked for -----------------------------------------------------------------------------------


@given(interests)
def test_an_interest_written_as_a_filter_reads_as_the_same(interest: Interest) -> None:
    assert listening.read_filter({"notifications": listening.filter_of(interest)}) == interest


@given(json_values | filters)
def test_any_filter_is_an_interest_or_one_error_that_blames_the_client(wanted: object) -> None:
    try:
        interest = read(wanted)
    except DownstreamProtocolError as refused:
        wire = refused.to_wire()
        wanted = None
    if wanted is None:
        assert wire.code == -32602
        return
    assert isinstance(wanted, dict)
    assert interest.tools == (wanted.get("toolsListChanged") is True)
    assert interest.uris == set(wanted.get("resourceSubscriptions", ()))
    assert not interest.resources


@pytest.mark.parametrize(
    "wanted",
    [
        None,
        [],
        {"toolsListChanged": 1},
        {"resourceSubscriptions": "file:///a"},
        {"resourceSubscriptions": [1]},
        {"resourceSubscriptions": [f"file:///{number}" for number in range(listening.MAX_NAMED + 1)]},
        {"taskIds": ["x" * (listening.MAX_NAME_CHARACTERS + 1)]},
    ],
)
def test_a_filter_that_is_none_is_refused(wanted: object) -> None:
    with pytest.raises(DownstreamProtocolError):
        read(wanted)


def test_a_listen_without_a_filter_is_refused() -> None:
    with pytest.raises(DownstreamProtocolError, match=r"params\.notifications is required"):
        listening.read_filter({})


@given(interests, interests, heards)
def test_a_union_wants_what_one_of_its_parts_wants(one: Interest, other: Interest, heard: Heard) -> None:
    both = listening.union([one, other])

    assert both.wants(heard) == (one.wants(heard) or other.wants(heard))
    assert both == one | other
    assert both & one == one


def test_nothing_is_wanted_by_nobody() -> None:
    assert not listening.union([])
    assert not NO_INTEREST
    assert ALL_LISTS


# --- what is granted -------------------------------------------------------------------------------------


@given(interests, interests)
def test_a_server_grants_no_more_than_it_was_asked_for(asked: Interest, said: Interest) -> None:
    granted = listening.read_granted({"notifications": listening.filter_of(said)}, asked)

    assert granted == asked & said


@given(interests, json_values)
def test_an_acknowledgement_that_makes_no_sense_grants_nothing_new(asked: Interest, said: object) -> None:
    granted = listening.read_granted(cut({"notifications": said}), asked)

    assert granted | asked == asked


def test_only_what_a_server_declares_is_asked_of_it() -> None:
    wanted = of_kinds(["tools", "prompts", "resources"], frozenset({"u"}), frozenset({"t"}))
    capabilities = cut({"tools": {"listChanged": True}, "prompts": {"listChanged": False}, "resources": {}})

    assert listening.supported(wanted, capabilities) == Interest(tools=True)
    assert listening.supported(wanted, cut({"resources": {"subscribe": True}})).uris == {"u"}
    extension = cut({"extensions": {"io.modelcontextprotocol/tasks": {}}})
    assert listening.supported(wanted, extension) == Interest(tasks=frozenset({"t"}))


@given(st.dictionaries(st.sampled_from(["tools", "resources", "extensions"]), json_values))
def test_any_capabilities_can_be_read(capabilities: dict) -> None:
    wanted = of_kinds(["tools", "resources"], frozenset({"u"}), frozenset({"t"}))

    assert listening.supported(wanted, cut(capabilities)) & wanted == listening.supported(
        wanted, cut(capabilities)
    )


# --- what is heard ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subscribed", "part", "covered"),
    [
        ("file:///a", "file:///a", True),
        ("file:///a", "file:///a/b", True),
        ("file:///a/", "file:///a/b", True),
        ("file:///a", "file:///a#x", True),
        ("file:///a", "file:///ab", False),
        ("file:///a/b", "file:///a", False),
    ],
)
def test_an_update_of_a_part_is_for_who_subscribed_to_the_whole(
    subscribed: str, part: str, covered: bool
) -> None:
    heard = listening.read_heard(listening.UPDATED, cut({"uri": part}))

    assert heard is not None
    assert Interest(uris=frozenset({subscribed})).wants(heard) is covered


def test_the_parents_of_a_deep_resource_are_bounded() -> None:
    assert len(listening.updated("/" * listening.MAX_NAME_CHARACTERS).uris) <= 2 * listening.MAX_LEVELS + 1


@given(
    st.sampled_from([listening.UPDATED, listening.TASK_CHANGED, *listening.LISTS_CHANGED, "notifications/x"]),
    st.dictionaries(st.sampled_from(["uri", "taskId", "_meta", "x"]), json_values),
)
def test_any_notification_is_read_or_passed_over(method: str, params: dict) -> None:
    heard = listening.read_heard(method, cut(params))

    assert heard is None or (heard.method, heard.params) == (method, cut(params))
    if method == "notifications/x":
        assert heard is None


def test_what_names_nothing_or_too_much_is_passed_over() -> None:
    long = "x" * (listening.MAX_NAME_CHARACTERS + 1)

    assert listening.read_heard(listening.UPDATED, cut({"uri": long})) is None
    assert listening.read_heard(listening.TASK_CHANGED, {}) is None


# --- what is told ----------------------------------------------------------------------------------------


@given(st.dictionaries(texts | st.just("_meta"), json_values), ids)
def test_a_notification_is_told_under_the_clients_own_id(params: dict, listen_id: bytes) -> None:
    message = listening.tagged("notifications/x", cut(params), listen_id)

    assert b"\n" not in message
    told = json.loads(message)["params"]
    assert told["_meta"].pop(SUBSCRIPTION) == json.loads(listen_id)
    kept = params.get("_meta")
    assert told.pop("_meta") == (
        {key: value for key, value in kept.items() if key != SUBSCRIPTION} if isinstance(kept, dict) else {}
    )
    assert told == {key: value for key, value in params.items() if key != "_meta"}


def test_a_legacy_client_sees_nothing_of_the_modern_era() -> None:
    params = cut({"uri": "u", "_meta": {SUBSCRIPTION: 7, "own.example/kept": 1}})

    told = json.loads(listening.untagged(listening.UPDATED, params))["params"]

    assert told == {"uri": "u", "_meta": {"own.example/kept": 1}}
    assert json.loads(listening.untagged(listening.UPDATED, cut({"uri": "u", "_meta": {SUBSCRIPTION: 7}})))[
        "params"
    ] == {"uri": "u"}


def test_a_stream_begins_and_ends_under_its_id() -> None:
    begun = json.loads(listening.acknowledgement(b'"l-1"', Interest(tools=True, uris=frozenset({"u"}))))
    ended = json.loads(bytes(listening.completion(b'"l-1"', Raw(b'{"name":"n"}'))))

    assert begun["method"] == "notifications/subscriptions/acknowledged"
    assert begun["params"]["notifications"] == {"toolsListChanged": True, "resourceSubscriptions": ["u"]}
    assert begun["params"]["_meta"][SUBSCRIPTION] == ended["_meta"][SUBSCRIPTION] == "l-1"
    assert ended["resultType"] == "complete"


def test_later_news_of_one_thing_stand_for_the_earlier() -> None:
    assert listening.list_changed("tools").key == listening.list_changed("tools").key
    assert listening.list_changed("tools").key != listening.list_changed("prompts").key
    assert listening.updated("a").key != listening.updated("b").key


@given(st.integers(1, 10_000))
def test_waits_grow_to_a_bound(failures: int) -> None:
    wait = listening.wait_before_retry(failures)

    assert listening.FIRST_WAIT_SECONDS <= wait <= listening.LONGEST_WAIT_SECONDS
    assert listening.wait_before_retry(failures + 1) >= wait
