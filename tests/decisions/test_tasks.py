"""Ids of tasks: they lead whoever they were given to where the task lives, and nobody else anywhere."""

import secrets
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcphost.decisions.identity import Principal
from mcphost.decisions.sealing import KEY_BYTES, Sealer
from mcphost.decisions.tasks import Holder, Place, TaskUnknown, open_task, seal_task

SEALER = Sealer(bytes(KEY_BYTES), secrets.token_bytes)
ME = Holder(Principal("acme", "ci"), "/mcp")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.builds(Place, texts, texts, texts))
def test_an_id_leads_to_the_place_of_its_task_and_fits_into_a_header(place: Place) -> None:
    identifier = seal_task(SEALER, ME, place)
    assert open_task(SEALER, ME, identifier) == place
    assert identifier.isascii()
    assert identifier.isprintable()


@pytest.mark.parametrize(
    "other",
    [replace(ME, principal=Principal("acme", "app")), replace(ME, principal=Principal("globex", "ci")),
     replace(ME, endpoint="/servers/a/mcp")],
)  # fmt: skip
def test_an_id_leads_nobody_else_anywhere(other: Holder) -> None:
    with pytest.raises(TaskUnknown):
        open_task(SEALER, other, seal_task(SEALER, ME, Place("s", "i", "t")))


@given(texts)
def test_what_is_no_id_of_ours_is_unknown(text: str) -> None:
    with pytest.raises(TaskUnknown):
        open_task(SEALER, ME, text)


def test_a_handle_for_another_purpose_is_no_id() -> None:
    for payload in (b"", b"\x93\xa1a\xa1b\xa1c"):
        with pytest.raises(TaskUnknown):
            open_task(SEALER, ME, SEALER.seal("task", payload))
    identifier = seal_task(SEALER, ME, Place("s", "i", "t"))
    with pytest.raises(TaskUnknown):
        open_task(SEALER, ME, SEALER.seal("state", SEALER.open("task", identifier)))
