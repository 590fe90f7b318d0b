"""Who may see and use what: globs against a plain model, deny before allow, tokens within their tenants, bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcphost.decisions import permissions
from mcphost.decisions.permissions import NOTHING, Pattern, Permissions, Rule

server_names = st.text("ab", min_size=1, max_size=3)
names = st.text("ab/*?[\n.", max_size=5)
globs = st.text("ab*?", min_size=1, max_size=3)
patterns = st.just("*") | st.builds("{}/{}".format, globs, st.text("ab*?/.", min_size=1, max_size=4))
pattern_lists = st.lists(patterns, max_size=4)


def matches(glob: str, text: str) -> bool:
    """The plain model of a glob: no library, no cleverness."""
    if not glob:
        return not text
    if glob[0] == "*":
        return any(matches(glob[1:], text[skip:]) for skip in range(len(text) + 1))
    return bool(text) and glob[0] in {"?", text[0]} and matches(glob[1:], text[1:])


def covers(pattern: str, server: str, name: str) -> bool:
    server_glob, _, name_glob = pattern.partition("/")
    return matches(server_glob, server) and matches(name_glob or "*", name)


@given(pattern_lists, pattern_lists, server_names, names)
def test_the_answer_is_what_a_plain_model_says(
    allow: list[str], deny: list[str], server: str, name: str
) -> None:
    allowed = any(covers(each, server, name) for each in allow)
    denied = any(covers(each, server, name) for each in deny)
    judge = Permissions(allow, deny)
    assert judge.allows(server, name) == (allowed and not denied)
    assert judge.allows(server, name) == (allowed and not denied)  # the remembered answer is the same


@given(pattern_lists, pattern_lists, server_names, names)
def test_what_is_denied_is_denied_whatever_is_allowed(
    allow: list[str], deny: list[str], server: str, name: str
) -> None:
    if any(covers(each, server, name) for each in deny):
        assert not Permissions([*allow, "*", f"{server}/*"], deny).allows(server, name)


@given(pattern_lists, pattern_lists, server_names, st.lists(names))
def test_of_a_server_that_is_not_seen_nothing_is_allowed(
    allow: list[str], deny: list[str], server: str, tried: list[str]
) -> None:
    judge = Permissions(allow, deny)
    if any(judge.allows(server, name) for name in tried):
        assert judge.sees(server)


@given(pattern_lists, server_names)
def test_without_a_deny_a_server_is_seen_if_a_pattern_speaks_of_it(allow: list[str], server: str) -> None:
    assert Permissions(allow, []).sees(server) == any(
        matches(each.partition("/")[0], server) for each in allow
    )


token_lists = st.none() | pattern_lists


@given(pattern_lists, pattern_lists, token_lists, pattern_lists, server_names, names)
def test_a_token_may_what_its_tenant_and_its_own_patterns_allow(
    allow: list[str], deny: list[str], own: list[str] | None, own_deny: list[str], server: str, name: str
) -> None:
    tenant = Permissions(allow, deny)
    token = Permissions(own, own_deny, within=tenant)
    wanted = own is None or any(covers(each, server, name) for each in own)
    refused = any(covers(each, server, name) for each in own_deny)
    assert token.allows(server, name) == (tenant.allows(server, name) and wanted and not refused)
    if token.allows(server, name):
        assert token.sees(server)
    if token.sees(server):
        assert tenant.sees(server)


@given(pattern_lists, pattern_lists, token_lists, pattern_lists, server_names, names)
def test_a_verdict_has_the_rules_that_decide_and_each_covers_what_was_asked(
    allow: list[str], deny: list[str], own: list[str] | None, own_deny: list[str], server: str, name: str
) -> None:
    written = {(False, "allow"): allow, (False, "deny"): deny, (True, "allow"): own, (True, "deny"): own_deny}
    verdict = Permissions(own, own_deny, within=Permissions(allow, deny)).judge(server, name)
    for rule in verdict.rules:
        patterns = written[rule.of_token, rule.key] or []
        if rule.index is None:
            assert not any(covers(each, server, name) for each in patterns)
            continue
        assert patterns[rule.index] == rule.pattern
        assert covers(rule.pattern, server, name)
    said = [(rule.of_token, rule.key) for rule in verdict.rules]
    if verdict.allowed:
        assert said == [(False, "allow")] + ([] if own is None else [(True, "allow")])
        assert all(rule.index is not None for rule in verdict.rules)
    else:
        assert len(said) == 1
        assert (verdict.rules[0].key == "deny") == (verdict.rules[0].index is not None)


def test_the_tenants_rules_come_before_the_tokens_and_deny_before_allow() -> None:
    tenant = Permissions(["a/*"], ["a/no"])
    token = Permissions(["a/*"], ["a/n?", "a/never"], within=tenant)
    assert token.judge("a", "no").rules == (Rule(False, "deny", 0, "a/no"),)
    assert token.judge("b", "no").rules == (Rule(False, "allow"),)
    assert token.judge("a", "never").rules == (Rule(True, "deny", 1, "a/never"),)
    assert token.judge("a", "yes").rules == (Rule(False, "allow", 0, "a/*"), Rule(True, "allow", 0, "a/*"))


def test_without_an_allow_a_token_may_all_of_its_tenants_and_a_tenant_nothing() -> None:
    assert Permissions(None, [], within=Permissions(["*"], [])).allows("a", "b")
    assert not Permissions([], [], within=Permissions(["*"], [])).allows("a", "b")
    assert not Permissions(None, []).allows("a", "b")
    assert not NOTHING.sees("a")


@given(server_names, names)
def test_where_nothing_is_allowed_everything_is_denied(server: str, name: str) -> None:
    assert not Permissions([], []).allows(server, name)
    assert not Permissions([], ["x/y"]).sees(server)


@pytest.mark.parametrize("deny", ["*", "time/*", "t*/*", "time"])
def test_a_server_that_is_denied_whole_does_not_exist(deny: str) -> None:
    judge = Permissions(["*"], [deny])
    assert not judge.sees("time")
    assert not judge.allows("time", "now")


@pytest.mark.parametrize("deny", ["time/now", "time/n*", "other/*", "time/?*"])
def test_a_server_that_is_denied_in_part_is_seen(deny: str) -> None:
    assert Permissions(["*"], [deny]).sees("time")


@pytest.mark.parametrize(
    ("pattern", "server", "name", "answer"),
    [
        ("*", "any", "any/thing", True),
        ("time/*", "time", "file:///a/b", True),
        ("time/*", "timer", "now", False),
        ("time/*", "Time", "now", False),
        ("time/now", "time", "NOW", False),
        ("time/now", "time", "now\n", False),
        ("time/now", "time", "xnow", False),
        ("time", "time", "now", True),
        ("time/", "time", "now", True),
        ("git*/get_?", "github", "get_x", True),
        ("git*/get_?", "github", "get_", False),
        ("a/b/c", "a", "b/c", True),
        ("a/b/c", "a/b", "c", False),
        ("a/x.y", "a", "xzy", False),
    ],
)
def test_patterns_read_like_this(pattern: str, server: str, name: str, answer: bool) -> None:
    assert Permissions([pattern], []).allows(server, name) is answer
    assert Pattern.parse(pattern).text == pattern


def test_a_pattern_of_many_stars_is_judged_at_once() -> None:
    assert not Permissions(["s/" + "*a" * 40 + "*b"], []).allows("s", "a" * 5000)


def test_the_memory_of_answers_is_bounded_and_wrong_about_nothing_beyond_it() -> None:
    judge = Permissions(["s/a*"], [])
    for number in range(permissions.MAX_REMEMBERED + 50):
        assert judge.allows("s", f"a{number}")
    assert len(judge._answers) == permissions.MAX_REMEMBERED
    assert judge.allows("s", "a_new") is True
    assert judge.allows("s", "b_new") is False


def test_a_long_name_is_judged_and_not_remembered() -> None:
    judge = Permissions(["s/a*"], [])
    bound = permissions.MAX_REMEMBERED_CHARACTERS
    assert judge.allows("s", "a" * (bound + 1))
    assert judge.allows("s", "a" * bound)
    assert [len(name) for _, name in judge._answers] == [bound]


def test_the_repr_shows_the_patterns() -> None:
    assert repr(Permissions(["a/*", "b/c"], ["a/d"])) == "<Permissions allow=[a/*, b/c] deny=[a/d]>"
    token = Permissions(None, ["a/b"], within=Permissions(["*"], []))
    assert repr(token) == "<Permissions allow=all deny=[a/b] within <Permissions allow=[*] deny=[]>>"
