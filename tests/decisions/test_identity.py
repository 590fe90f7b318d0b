"""Bearer tokens: their form, their checksum, and who they stand for until when."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcphost.decisions import identity
from mcphost.decisions.identity import Credential, Principal, Tokens, compose_token, digest_of, well_formed
from mcphost.errors import Unauthenticated

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ACME = Principal("acme", "ci")

randomness = st.binary(min_size=identity.RANDOM_BYTES, max_size=identity.RANDOM_BYTES)


def tokens(token: str = "secret", expires_at: float | None = None) -> Tokens:
    other = Credential(digest_of("another"), Principal("other", "x"))
    return Tokens([Credential(digest_of(token), ACME, expires_at), other])


@given(randomness)
def test_a_token_is_a_prefix_a_secret_and_a_checksum_in_base62(random: bytes) -> None:
    token = compose_token(random)
    assert token.startswith("mcph_")
    assert len(token) == 5 + 32 + 6
    assert set(token[5:]) <= set(ALPHABET)
    assert well_formed(token)


def test_different_randomness_makes_different_tokens() -> None:
    assert len({compose_token(bytes([number]) * 32) for number in range(256)}) == 256


@pytest.mark.parametrize("length", [0, 1, 31])
def test_too_little_randomness_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 random bytes"):
        compose_token(bytes(length))


@given(randomness, st.data())
def test_the_checksum_tells_any_single_changed_character(random: bytes, data: st.DataObject) -> None:
    token = compose_token(random)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from(ALPHABET + "_é٣").filter(lambda char: char != token[place]))
    assert not well_formed(token[:place] + other + token[place + 1 :])


@given(randomness, st.integers(5, 41))
def test_the_checksum_tells_two_neighbours_that_changed_places(random: bytes, place: int) -> None:
    token = compose_token(random)
    swapped = token[:place] + token[place + 1] + token[place] + token[place + 2 :]
    assert well_formed(swapped) == (swapped == token)


@given(randomness, st.text(min_size=1, max_size=3))
def test_a_token_with_anything_around_it_is_not_well_formed(random: bytes, more: str) -> None:
    token = compose_token(random)
    assert not well_formed(token + more)
    assert not well_formed(more + token)
    assert not well_formed(token[: -len(more)])


@given(st.text())
def test_any_other_text_is_not_well_formed(text: str) -> None:
    assert not well_formed(text)
    assert not well_formed("mcph_" + text)


def test_letters_outside_ascii_are_never_well_formed_even_with_their_own_checksum() -> None:
    secret = "\u00e9" * identity.SECRET_CHARACTERS
    assert not well_formed(f"mcph_{secret}{identity._checksum(secret)}")


def test_a_digest_is_the_sha256_of_the_text() -> None:
    assert digest_of("ä") == hashlib.sha256("ä".encode()).digest()


# --- the header ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
@pytest.mark.parametrize("blank", [" ", "  ", "     "])
def test_the_scheme_is_read_in_any_case_and_with_any_blanks(scheme: str, blank: str) -> None:
    assert tokens().authenticate(f"{scheme}{blank}secret ", now=0) == ACME


@pytest.mark.parametrize(
    "header",
    [None, "", " ", "secret", "Bearer", "Bearer ", "Bearer    ", "Basic secret", "Bearer\tsecret", " Bearer secret",
     "Bearersecret", "Bearer: secret", "Bearer unknown", "Bearer Secret", "Bearer secret, Bearer another",
     "Bearer secret another", "Bearer \tsecret", 'Bearer "secret"', "Bearer s\x00ecret", "Bearer " + "a" * 4097],
)  # fmt: skip
def test_any_other_header_is_refused_without_saying_why(header: str | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        tokens().authenticate(header, now=0)
    assert str(caught.value) == "a valid bearer token is required"


@pytest.mark.parametrize(("length", "accepted"), [(4096, True), (4097, False)])
def test_a_token_longer_than_its_bound_is_not_even_looked_up(length: int, accepted: bool) -> None:
    token = "a" * length
    known = tokens(token)
    if accepted:
        assert known.authenticate(f"Bearer {token}", now=0) == ACME
    else:
        with pytest.raises(Unauthenticated):
            known.authenticate(f"Bearer {token}", now=0)


@given(st.text(st.characters(max_codepoint=255)))
def test_no_header_that_http_can_carry_does_anything_but_pass_or_refuse(header: str) -> None:
    with pytest.raises(Unauthenticated):
        tokens("not\u0100reachable").authenticate(header, now=0)


@pytest.mark.parametrize(("now", "accepted"), [(99.999, True), (100.0, False), (100.001, False)])
def test_a_token_is_refused_from_the_very_instant_it_expires(now: float, accepted: bool) -> None:
    known = tokens(expires_at=100.0)
    if accepted:
        assert known.authenticate("Bearer secret", now=now) == ACME
    else:
        with pytest.raises(Unauthenticated):
            known.authenticate("Bearer secret", now=now)


def test_a_token_without_a_date_never_expires() -> None:
    assert tokens().authenticate("Bearer secret", now=1e12) == ACME


def test_a_token_of_our_form_with_a_wrong_checksum_is_refused_even_if_its_digest_is_known() -> None:
    good = compose_token(bytes(32))
    broken = good[:-1] + ("A" if good[-1] != "A" else "B")
    assert tokens(good).authenticate(f"Bearer {good}", now=0) == ACME
    with pytest.raises(Unauthenticated):
        tokens(broken).authenticate(f"Bearer {broken}", now=0)


def test_each_token_stands_for_its_own_principal() -> None:
    assert tokens().authenticate("Bearer another", now=0) == Principal("other", "x")


def test_nothing_secret_is_in_the_repr() -> None:
    assert repr(tokens()) == "<Tokens 2>"
