"""Which log messages reach a client that asked for a level."""

import pytest
from msgspec import Raw

from mcphost.protocol import jsonrpc, loglevels
from mcphost.protocol.loglevels import LEVELS


@pytest.mark.parametrize("floor", LEVELS)
def test_what_is_at_or_above_the_level_reaches_the_client_and_nothing_below(floor: str) -> None:
    reached = [each for each in LEVELS if loglevels.reaches({"level": jsonrpc.raw(each)}, floor)]
    assert reached == list(LEVELS[LEVELS.index(floor) :])


def test_nothing_reaches_a_client_that_asked_for_none() -> None:
    assert not any(loglevels.reaches({"level": jsonrpc.raw(each)}, None) for each in LEVELS)


@pytest.mark.parametrize("level", [b'"loud"', b"5", b"null", b"", b'"INFO"'])
def test_a_message_of_no_level_reaches_nobody(level: bytes) -> None:
    assert not loglevels.reaches({"level": Raw(level)}, "debug")
    assert not loglevels.reaches({}, "debug")


def test_only_the_eight_names_are_levels() -> None:
    assert all(loglevels.is_level(each) for each in LEVELS)
    assert not any(loglevels.is_level(each) for each in ("", "Info", "trace", None))
