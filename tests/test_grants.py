"""What a policy grants: explained by the very rules that answer clients, and held to the policy's own tests."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcphost.errors import PolicyInvalid
from mcphost.grants import by_token, explain, refuse_failing_tests, whole
from mcphost.policy import Fault, Policy, loads
from mcphost.preflight import make_plan

HEAD = """\
version: 1
mcpServers:
  notes: {command: notes}
  clock: {command: clock}
tenants:
  acme:
    tokens:
      - {id: ci, fromEnv: CI, deny: [notes/delete]}
      - {id: reader, fromEnv: READER, allow: [notes/get, "notes/note:///*"], deny: [notes/note:///2]}
      - {id: idle, fromEnv: IDLE, allow: []}
    allow: [notes/*]
    deny: [notes/drop*]
  bare: {}
"""

WHOS = ["acme", "acme/ci", "acme/reader", "acme/idle", "bare"]
ITEMS = [
    "notes/get", "notes/delete", "notes/drop_all", "notes/note:///1", "notes/note:///2", "notes/*", "clock/now",
]  # fmt: skip


def policy(tests: str = "") -> Policy:
    return loads(HEAD + (f"tests:\n{tests}" if tests else ""), file="p.yaml")


POLICY = policy()


@pytest.mark.parametrize(
    ("who", "item", "said"),
    [
        ("acme", "notes/get", ["allowed: notes/get to acme", "p.yaml:11:13: tenants.acme.allow[0]: notes/* matches"]),
        ("acme", "notes/drop_all",
         ["denied: notes/drop_all to acme", "p.yaml:12:12: tenants.acme.deny[0]: notes/drop* matches"]),
        ("acme", "clock/now", ["denied: clock/now to acme", "p.yaml:11:12: tenants.acme.allow: no pattern matches"]),
        ("bare", "clock/now", ["denied: clock/now to bare", "p.yaml:13:3: tenants.bare.allow: no pattern matches"]),
        ("acme/ci", "notes/delete",
         ["denied: notes/delete to acme/ci", "p.yaml:8:38: tenants.acme.tokens[0].deny[0]: notes/delete matches"]),
        ("acme/ci", "notes/get",
         ["allowed: notes/get to acme/ci", "p.yaml:11:13: tenants.acme.allow[0]: notes/* matches"]),
        ("acme/reader", "notes/get",
         ["allowed: notes/get to acme/reader", "p.yaml:11:13: tenants.acme.allow[0]: notes/* matches",
          "p.yaml:9:47: tenants.acme.tokens[1].allow[0]: notes/get matches"]),
        ("acme/idle", "notes/get",
         ["denied: notes/get to acme/idle", "p.yaml:10:42: tenants.acme.tokens[2].allow: no pattern matches"]),
        ("acme/reader", "notes/drop_all",
         ["denied: notes/drop_all to acme/reader", "p.yaml:12:12: tenants.acme.deny[0]: notes/drop* matches"]),
    ],
)  # fmt: skip
def test_the_answer_names_the_pattern_and_its_place(who: str, item: str, said: list[str]) -> None:
    found = explain(POLICY, who, item)
    assert [line.strip() for line in found.text().splitlines()] == said
    rules = json.loads(json.dumps(found.to_wire()))["rules"]
    assert [f"{each['file']}:{each['line']}:{each['column']}: {each['path']}" for each in rules] == [
        line.rpartition(": ")[0] for line in said[1:]
    ]


@pytest.mark.parametrize(
    ("who", "item", "said"),
    [
        ("acne", "notes/get", "no tenant has this name (allowed: acme, bare; did you mean acme?)"),
        (
            "acme/reade",
            "notes/get",
            "no token of acme has this name (allowed: ci, idle, reader; did you mean reader?)",
        ),
        ("acme/", "notes/get", "no token of acme has this name (allowed: ci, idle, reader)"),
        ("acme/a/b", "notes/get", "no token of acme has this name (allowed: ci, idle, reader)"),
        ("acme", "note/get", "no server has this name (allowed: clock, notes; did you mean notes?)"),
        ("acme", "notes", "the tool, prompt or resource is missing (allowed: notes/NAME)"),
    ],
)
def test_who_or_what_is_not_there_is_told_with_what_is(who: str, item: str, said: str) -> None:
    with pytest.raises(Fault) as caught:
        explain(POLICY, who, item)
    assert caught.value.hinted() == said


texts = st.sampled_from(ITEMS) | st.builds(
    "{}/{}".format, st.sampled_from(["notes", "clock"]), st.text(min_size=1)
)


@given(st.sampled_from(WHOS), texts)
@settings(deadline=None)
def test_what_is_explained_is_what_clients_are_answered(who: str, item: str) -> None:
    tenant, _, token = who.partition("/")
    entry = POLICY.tenants[tenant]
    permissions = by_token(entry)[token] if token else whole(entry)
    server, _, name = item.partition("/")
    assert explain(POLICY, who, item).allowed == permissions.allows(server, name)


@given(st.lists(st.tuples(st.sampled_from(WHOS), st.sampled_from(ITEMS), st.booleans()), max_size=6))
@settings(max_examples=25, deadline=None)
def test_exactly_the_tests_that_fail_are_told_each_at_its_place(cases: list[tuple[str, str, bool]]) -> None:
    lines, wrong = [], []
    for index, (who, item, expected) in enumerate(cases):
        tenant, _, token = who.partition("/")
        test = {"tenant": tenant, "read": item, "expect": "allowed" if expected else "denied"}
        lines.append(f"  - {json.dumps(test | ({'token': token} if token else {}))}\n")
        if explain(POLICY, who, item).allowed != expected:
            wrong.append(f"p.yaml:{15 + index}:5: tests[{index}]: this test fails: ")
    written = policy("".join(lines))
    if not wrong:
        refuse_failing_tests(written)
        return
    with pytest.raises(PolicyInvalid) as caught:
        refuse_failing_tests(written)
    said = str(caught.value).splitlines()
    assert [line[: len(start)] for line, start in zip(said, wrong, strict=True)] == wrong


def test_a_failing_test_says_what_is_and_which_pattern_decides() -> None:
    written = policy("  - {tenant: acme, token: ci, call: notes/delete, expect: allowed}\n")
    with pytest.raises(PolicyInvalid) as caught:
        make_plan(written, {})
    assert str(caught.value) == (
        "p.yaml:15:5: tests[0]: this test fails: notes/delete is denied to acme/ci, "
        "by p.yaml:8:38: tenants.acme.tokens[0].deny[0]: notes/delete matches"
    )
