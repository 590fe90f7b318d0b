"""Templates of resources: which URIs each could give."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcphost.protocol.templates import MAX_EXPRESSIONS, covers

literals = st.text("ab/:", max_size=4)


@given(st.lists(literals, min_size=1, max_size=5), st.data())
def test_whatever_a_template_is_filled_with_is_covered(parts: list[str], data: st.DataObject) -> None:
    values = [data.draw(st.text("ab/:c", max_size=4)) for _ in parts[1:]]
    template = parts[0] + "".join("{x}" + part for part in parts[1:])
    uri = parts[0] + "".join(value + part for value, part in zip(values, parts[1:], strict=True))
    assert covers(template, uri)
    assert covers(template, template)


@pytest.mark.parametrize(
    ("template", "uri"),
    [("a:/{x}", "b:/1"), ("a:/{x}/end", "a:/1"), ("a:/{x}/m/{y}/e", "a:/1/e"), ("a:/{x}:/", "a:/"), ("a:", "a:1"),
     ("{x}ab{y}ab", "ab"), ("a{", "ab"), ("a{x}{", "ab"), ("a", "b")],
)  # fmt: skip
def test_a_uri_of_another_form_is_not_covered(template: str, uri: str) -> None:
    assert not covers(template, uri)


def test_a_template_of_too_many_expressions_covers_itself_only() -> None:
    template = "a{x}" * (MAX_EXPRESSIONS + 1)
    assert covers(template, template)
    assert not covers(template, "a" * (MAX_EXPRESSIONS + 1))
