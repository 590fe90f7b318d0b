"""Revisions: which are spoken, what a handshake is answered, and which era a header selects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcphost.protocol import versions


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_a_legacy_revision_that_is_let_in_is_echoed(version: str) -> None:
    assert versions.negotiate_legacy(version) == version


@given(st.none() | st.text() | st.sampled_from([versions.MODERN, "2025-03-27", "2099-01-01"]))
def test_whatever_else_is_asked_for_is_answered_with_the_latest_legacy_revision(asked: str | None) -> None:
    if asked not in versions.LEGACY_HEADERS:
        assert versions.negotiate_legacy(asked) == "2025-11-25"


@pytest.mark.parametrize("version", [None, "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_an_absent_header_and_every_legacy_revision_are_legacy(version: str | None) -> None:
    assert versions.era_of_header(version) == "legacy"


@given(st.text() | st.sampled_from(["2026-07-28", "2027-01-01", "2025-11-25 ", ""]))
def test_any_other_header_is_judged_as_modern(version: str) -> None:
    if version not in versions.LEGACY_HEADERS:
        assert versions.era_of_header(version) == "modern"


def test_2025_03_26_is_given_to_who_asks_and_not_offered() -> None:
    assert versions.negotiate_legacy("2025-03-26") == "2025-03-26"
    assert "2025-03-26" not in versions.SUPPORTED


def test_what_is_supported_is_listed_newest_first() -> None:
    assert list(versions.SUPPORTED) == sorted(versions.SUPPORTED, reverse=True)
    assert versions.SUPPORTED[0] == versions.MODERN
    assert "2025-03-26" not in versions.SUPPORTED
