"""Handles: opened only by their key, for their purpose, exactly as they were made."""

import itertools
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcphost.decisions.sealing import KEY_BYTES, MAX_HANDLE_CHARACTERS, SealBroken, Sealer

sealer = Sealer(b"k" * KEY_BYTES, secrets.token_bytes)


@given(st.binary(max_size=200))
def test_a_handle_opens_to_what_was_sealed(payload: bytes) -> None:
    handle = sealer.seal("state", payload)

    assert sealer.open("state", handle) == payload
    assert handle.isascii()
    assert handle.isprintable()
    assert not set(handle) & set(' "\\/+=')


def test_a_handle_opens_for_its_purpose_only() -> None:
    for made, presented in itertools.permutations(("session", "state", "cursor", "task"), 2):
        with pytest.raises(SealBroken):
            sealer.open(presented, sealer.seal(made, b"x"))


def test_a_handle_of_another_key_does_not_open() -> None:
    other = Sealer(b"o" * KEY_BYTES, secrets.token_bytes)

    with pytest.raises(SealBroken):
        sealer.open("state", other.seal("state", b"x"))


def test_no_change_of_a_handle_opens() -> None:
    handle = sealer.seal("state", b"payload")
    for place, character in itertools.product(range(len(handle)), "Aa0-_="):
        changed = handle[:place] + character + handle[place + 1 :]
        if changed != handle:
            with pytest.raises(SealBroken):
                sealer.open("state", changed)


@given(st.text(max_size=80))
def test_any_text_is_refused_in_one_way(text: str) -> None:
    with pytest.raises(SealBroken):
        sealer.open("state", text)


@pytest.mark.parametrize("behind", ["=", "==", "\n", " ", "A", "AAAA"])
def test_a_handle_has_one_spelling(behind: str) -> None:
    with pytest.raises(SealBroken):
        sealer.open("state", sealer.seal("state", b"abc") + behind)


def test_a_handle_without_measure_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(SealBroken):
        sealer.open("state", "A" * (MAX_HANDLE_CHARACTERS + 1))


def test_two_handles_of_one_payload_do_not_show_it() -> None:
    assert sealer.seal("state", b"same") != sealer.seal("state", b"same")


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Sealer(b"short", secrets.token_bytes)
