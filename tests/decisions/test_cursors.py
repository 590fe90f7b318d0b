"""Cursors: they give back what they hold to whom they were made for, for the list they continue, and to nobody else."""

import secrets
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcphost.decisions.cursors import Audience, CursorBroken, Own, open_cursor, seal_cursor
from mcphost.decisions.identity import Principal
from mcphost.decisions.paging import Position
from mcphost.decisions.sealing import KEY_BYTES, Sealer

SEALER = Sealer(bytes(KEY_BYTES), secrets.token_bytes)
ME = Audience(Principal("acme", "ci"), "/mcp", "tools/list")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
positions = st.builds(Position, texts, texts, st.integers(0, 2**40)) | st.builds(Own, texts, texts)


@given(positions)
def test_a_cursor_gives_back_the_position_that_it_was_made_from(position: Position | Own) -> None:
    assert open_cursor(SEALER, ME, seal_cursor(SEALER, ME, position)) == position


@pytest.mark.parametrize(
    "other",
    [replace(ME, principal=Principal("acme", "app")), replace(ME, principal=Principal("globex", "ci")),
     replace(ME, endpoint="/servers/a/mcp"), replace(ME, method="prompts/list")],
)  # fmt: skip
def test_a_cursor_serves_nobody_else_and_no_other_list(other: Audience) -> None:
    with pytest.raises(CursorBroken):
        open_cursor(SEALER, other, seal_cursor(SEALER, ME, Own("i", '"1"')))


@given(texts | st.none())
def test_what_is_no_cursor_of_ours_is_broken(text: str | None) -> None:
    with pytest.raises(CursorBroken):
        open_cursor(SEALER, ME, text)


def test_a_handle_for_another_purpose_is_no_cursor() -> None:
    cursor = seal_cursor(SEALER, ME, Own("i", '"1"'))
    with pytest.raises(CursorBroken):
        open_cursor(SEALER, ME, SEALER.seal("session", SEALER.open("cursor", cursor)))
    with pytest.raises(CursorBroken):
        open_cursor(SEALER, ME, SEALER.seal("cursor", b"[1]"))
