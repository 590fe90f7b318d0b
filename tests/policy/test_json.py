"""JSON of included client files: the same values as the standard library's, with places and no duplicates."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcphost.errors import PolicyInvalid
from mcphost.policy.jsontext import read_json

_names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
_values = st.recursive(
    _names | st.booleans() | st.none() | st.integers(-(10**17), 10**17),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(_names, _values), st.sampled_from([None, 2, "\t"]), st.booleans())
def test_values_are_those_of_the_standard_library(
    tree: dict[str, object], indent: object, escape: bool
) -> None:
    text = json.dumps(tree, indent=indent, ensure_ascii=escape)
    document = read_json(text, file="mcp.json")
    assert document.tree == tree
    assert not document.problems


@given(st.text() | st.text('{}[]",:0123456789.eE+- \n\ttruefalsn\\u').map(lambda text: "{" + text))
def test_any_text_is_a_document_or_one_error(text: str) -> None:
    with contextlib.suppress(PolicyInvalid):
        assert isinstance(read_json(text, file="mcp.json").tree, dict)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1:1: not valid JSON: the file must be a JSON object"),
        ("[]", "1:1: not valid JSON: the file must be a JSON object"),
        ('{"a": 1,}', "1:9: not valid JSON: a string in double quotes is expected here"),
        ('{"a": 1 "b": 2}', "1:9: not valid JSON: `,` is expected here"),
        ('{"a" 1}', "1:6: not valid JSON: `:` is expected here"),
        ('{"a": 01}', "1:8: not valid JSON: `,` is expected here"),
        ("{'a': 1}", "1:2: not valid JSON: a string in double quotes is expected here"),
        ('{"a": NaN}', "1:7: not valid JSON: a value is expected here"),
        ('{"a": "x\ny"}', "1:7: not valid JSON: a string in double quotes is expected here"),
        ('{\n "a": "\\x"\n}', "2:7: the string holds an escape that JSON does not know"),
        ('{"a": "\\u0000"}', "1:7: a NUL character cannot be passed to any program"),
        ('{"a": 1} // end', "1:10: not valid JSON: JSON has no comments"),
        ('{"a": 1} x', "1:10: not valid JSON: nothing may follow the JSON object"),
        ('{"a": [', "1:8: not valid JSON: a value is expected here"),
        ('{"a": ' + "[" * 40, "1:39: not valid JSON: values may be nested at most 32 deep"),
    ],
)
def test_what_is_no_json_is_refused_at_its_place(text: str, said: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        read_json(text, file="mcp.json")
    assert str(caught.value) == f"mcp.json:{said}"


def test_numbers_other_than_integers_stay_as_written() -> None:
    assert read_json('{"a": 1.10, "b": 1e3, "c": -0}', file="mcp.json").tree == {
        "a": "1.10",
        "b": "1e3",
        "c": "-0",
    }


def test_of_two_equal_keys_both_places_are_told() -> None:
    document = read_json('{"a": 1,\n "a": 2}', file="mcp.json")
    assert [str(problem) for problem in document.problems] == [
        "mcp.json:2:2: a: the key is written twice; first at mcp.json:1:2"
    ]


def test_more_values_than_the_bound_are_refused() -> None:
    with pytest.raises(PolicyInvalid, match="at most 100000 values"):
        read_json('{"a": [' + "1," * 100_001, file="mcp.json")
