"""Whatever stands in the file: a policy or a list of problems comes out, and nothing else."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from mcphost.errors import PolicyInvalid
from mcphost.policy import Policy, loads
from mcphost.policy.unsupported import LATER
from mcphost.policy.yamltext import read_yaml

PROD = (Path(__file__).parents[2] / "policies" / "prod.yaml").read_text()


def words_of(kind: object) -> Iterator[str]:
    """Every key that means something somewhere."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield field.alias or name
            yield from words_of(field.annotation)
    for argument in get_args(kind):
        yield from words_of(argument)


WORDS = sorted(
    {*words_of(Policy), *(row.path[-1] for row in LATER), "url", "type", "disabled", "default", "a", "A"}
)
SCALARS = [
    "default", "a", "a/*", "*", "tenant", "shared", "none", "token", "on-failure", "127.0.0.1:1", "/usr", "/tmp", "5s",
    "1Mi", "1/s", "2", "2027-01-01", "denied", "${secret:a}", "$", "A", "", "x" * 70, "ab" * 32, "tools", "userns", 0, 1, -1, 2**60,
    True, False, None,
]  # fmt: skip
trees = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=30,
)
entries = st.dictionaries(
    st.sampled_from(["a", "A", "default", "b-c"]), st.dictionaries(st.sampled_from(WORDS), trees)
)
top = st.fixed_dictionaries(
    {"version": st.just(1)},
    optional=dict.fromkeys(
        ("runtime", "require", "profiles", "mcpServers", "tenants", "routes", "tests"), trees | entries
    ),
)


def outcome(text: str) -> str:
    try:
        loads(text, file="p.yaml")
    except PolicyInvalid as invalid:
        return str(invalid) or "nothing was said"
    return ""


def paths_in(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*path, key)
        yield from paths_in(part, (*path, key))


def check_words(said: str) -> None:
    assert all(line.startswith("p.yaml:1:") for line in said.splitlines())
    assert "not usable (" not in said, "a message of the library came through without words of our own"


GOOD = read_yaml(PROD, file="prod.yaml").tree
PATHS = list(paths_in(GOOD))


@given(top)
@settings(max_examples=50, deadline=None)
def test_any_arrangement_of_keys_is_a_policy_or_problems_with_places(tree: dict[str, object]) -> None:
    check_words(outcome(json.dumps(tree)))


@example(("mcpServers", "notes", "preload", 0), "a/*")
@given(st.sampled_from(PATHS), st.sampled_from(SCALARS) | trees)
@settings(max_examples=200, deadline=None)
def test_any_value_in_place_of_a_good_one_is_told_or_accepted(
    path: tuple[str | int, ...], value: object
) -> None:
    tree = copy.deepcopy(GOOD)
    part = tree
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    check_words(outcome(json.dumps(tree)))


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_one_changed_character_of_a_good_policy_is_survived(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(PROD) - 1))
    instead = data.draw(
        st.sampled_from(["", " ", "\t", "\n", "-", ":", "*", "&", "!", "{", "]", '"', "#", "x", "\0"])
    )
    outcome(PROD[:at] + instead + PROD[at + 1 :])
