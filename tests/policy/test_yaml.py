"""YAML as written: nothing is guessed, nothing is run, everything is bounded."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcphost.errors import PolicyInvalid, PolicyUnreadable
from mcphost.policy import load, loads
from mcphost.policy.document import MAX_FILE_BYTES
from mcphost.policy.yamltext import read_yaml


def value_of(scalar: str) -> object:
    return read_yaml(f"key: {scalar}\n", file="p.yaml").tree["key"]


@pytest.mark.parametrize(
    "scalar",
    [
        "no", "No", "yes", "on", "off", "y", "True", "FALSE", "Null", "~",
        "010", "0o10", "0x10", "0b1", "1_000", "+1", "-0", "1.10", "1.0", ".5", "1e3", ".inf", ".nan",
        "12:30", "2027-06-30", "2027-06-30T12:00:00Z", "=", "1234567890123456789",
    ],
)  # fmt: skip
def test_a_scalar_stays_what_was_written(scalar: str) -> None:
    assert value_of(scalar) == scalar


@pytest.mark.parametrize(
    ("scalar", "value"),
    [("true", True), ("false", False), ("null", None), ("", None), ("0", 0), ("42", 42), ("-7", -7)],
)
def test_only_one_spelling_of_each_plain_value_is_typed(scalar: str, value: object) -> None:
    assert value_of(scalar) == value
    assert type(value_of(scalar)) is type(value)


@pytest.mark.parametrize("scalar", ['"true"', "'42'", '"null"', '""'])
def test_a_quoted_scalar_is_text(scalar: str) -> None:
    assert value_of(scalar) == scalar[1:-1]


def test_text_in_env_and_args_is_the_text_in_the_file() -> None:
    text = (
        "version: 1\nmcpServers: {a: {command: x, args: [010, no, 1.10, 8080, true], env: {A: 1.10, B: 0}}}\n"
    )
    server = loads(text, file="p.yaml").servers["a"]
    assert server.args == ("010", "no", "1.10", "8080", "true")
    assert server.env == {"A": "1.10", "B": "0"}


def test_block_scalars_and_json_flow_are_read() -> None:
    text = 'a: |\n  one\n  two\nb: {"c": ["d", 1, true, null]}\n'
    assert read_yaml(text, file="p.yaml").tree == {"a": "one\ntwo\n", "b": {"c": ["d", 1, True, None]}}


def test_places_count_from_one() -> None:
    document = read_yaml("a:\n  b: [x, {c: y}]\n", file="p.yaml")
    assert str(document.places.of(("a", "b", 1, "c"))) == "p.yaml:2:14"
    assert str(document.places.of(("a", "b"), on_key=True)) == "p.yaml:2:3"
    assert str(document.places.of(("a", "missing"))) == "p.yaml:1:1"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"version: 1\nx: \xff\n", ":2:4: the file is not valid UTF-8"),
        (b"version: 1\nx: a\0b\n", ":2:5: the character U+0000 cannot stand in a policy"),
        ("version: 1\n# \u2028\n".encode(), ":2:3: the character U+2028 cannot stand in a policy"),
        ("version: 1".encode("utf-16"), ":1:1: the file is UTF-16; save it as UTF-8"),
        (b"", ":1:1: the file is empty"),
    ],
)
def test_bytes_that_are_no_text_are_refused_at_their_place(data: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_bytes(data)
    with pytest.raises(PolicyInvalid) as caught:
        load(file)
    assert str(caught.value) == f"{file}{said}"


def test_a_byte_order_mark_and_carriage_returns_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_bytes(b"\xef\xbb\xbfversion: 1\r\nmcpServers:\r\n  a: {command: x}\r\n")
    assert load(file).servers["a"].command == "x"
    assert str(load(file).place("mcpServers", "a")) == f"{file}:3:6"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, why in (
        (tmp_path / "none.yaml", "no such file or directory"),
        (tmp_path, "is not a regular file"),
    ):
        with pytest.raises(PolicyUnreadable) as caught:
            load(path)
        assert str(caught.value) == f"{path}: {why}"


def test_a_file_over_the_bound_is_not_parsed(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_bytes(b"version: 1\n" + b"#" * MAX_FILE_BYTES)
    with pytest.raises(PolicyUnreadable, match=f"is larger than {MAX_FILE_BYTES} bytes"):
        load(file)


def test_more_values_than_the_bound_are_refused() -> None:
    with pytest.raises(PolicyInvalid, match="at most 100000 values"):
        read_yaml("a: [" + "1," * 100_001 + "]", file="p.yaml")


@given(st.text())
def test_any_text_is_a_document_or_one_error(text: str) -> None:
    with contextlib.suppress(PolicyInvalid):
        assert isinstance(read_yaml(text, file="p.yaml").tree, dict)


_trees = st.recursive(
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]))
    | st.booleans()
    | st.integers(-(10**9), 10**9),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True), inner)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.just("key"), _trees, min_size=1))
def test_what_json_writes_is_read_back(tree: dict[str, object]) -> None:
    document = read_yaml(json.dumps(tree, ensure_ascii=False), file="p.yaml")
    assert document.tree == tree
    assert not document.problems
