"""The tables of methods agree with each other and with the specification's words."""

from mcphost.protocol.methods import CACHEABLE, COMPLETE, FORWARDED, KNOWN, LISTS, NAMED, TASKS


def test_every_list_names_its_items_by_what_calls_on_them_use() -> None:
    by_feature = {method.feature: method.key for method in NAMED.values()}
    for name, method in LISTS.items():
        assert by_feature[method.feature] == ("uri" if method.key == "uriTemplate" else method.key)
        assert name.startswith(f"{method.feature}/")


def test_what_is_forwarded_is_known_and_what_the_runtime_answers_itself_is_not_forwarded() -> None:
    assert FORWARDED < KNOWN
    assert {*LISTS, *NAMED, *TASKS, COMPLETE} == FORWARDED
    own = {"initialize", "logging/setLevel", "ping", "server/discover", "subscriptions/listen"}
    assert own | {"resources/subscribe", "resources/unsubscribe"} == KNOWN - FORWARDED


def test_calls_are_never_cacheable() -> None:
    assert not CACHEABLE & {"tools/call", "prompts/get", COMPLETE, "initialize"}
    assert {*LISTS, "resources/read", "server/discover"} == CACHEABLE
