"""Who is calling: bearer tokens, known only by their digest.

A token is a prefix, 32 base62 characters of randomness (190 bits) and a checksum of six. The prefix lets
secret scanners find a leaked one; the checksum tells a mistyped token from an unknown one without a look-up.
"""

import hashlib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from mcphost.errors import Unauthenticated

PREFIX: Final = "mcph_"
SECRET_CHARACTERS: Final = 32
CHECKSUM_CHARACTERS: Final = 6  # 62 ** 6 > 2 ** 32: a whole CRC-32 fits
RANDOM_BYTES: Final = 32
MAX_TOKEN_CHARACTERS: Final = 4096

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request speaks for."""

    tenant: str
    token_id: str


@dataclass(frozen=True, slots=True)
class Credential:
    """What is known of one token; `expires_at` in wall seconds since the epoch, None for never."""

    digest: bytes
    principal: Principal
    expires_at: float | None = None


def compose_token(randomness: bytes) -> str:
    """A new token from `RANDOM_BYTES` random bytes.

    Raises:
        ValueError: fewer bytes were given.
    """
    if len(randomness) < RANDOM_BYTES:
        raise ValueError(f"{RANDOM_BYTES} random bytes are needed")
    secret = _base62(int.from_bytes(randomness, "big"), SECRET_CHARACTERS)
    return f"{PREFIX}{secret}{_checksum(secret)}"


def well_formed(token: str) -> bool:
    """Whether a token is one of ours by its form and checksum."""
    body = token.removeprefix(PREFIX)
    if body == token or len(body) != SECRET_CHARACTERS + CHECKSUM_CHARACTERS:
        return False
    secret = body[:SECRET_CHARACTERS]
    return body.isascii() and _checksum(secret) == body[SECRET_CHARACTERS:]


def digest_of(token: str) -> bytes:
    """The SHA-256 digest under which a token is known, 32 bytes.

    One pass is enough: a token of ours holds 190 random bits, so there is nothing to guess slowly.
    """
    return hashlib.sha256(token.encode()).digest()


class Tokens:
    """Every credential of the policy, found by digest: a look-up reveals nothing of other tokens by its time."""

    def __init__(self, credentials: Iterable[Credential]) -> None:
        self._by_digest: Mapping[bytes, Credential] = {each.digest: each for each in credentials}

    def __repr__(self) -> str:
        return f"<Tokens {len(self._by_digest)}>"

    def authenticate(self, authorization: str | None, *, now: float) -> Principal:
        """The principal of an `Authorization` header; see `credential`."""
        return self.credential(authorization, now=now).principal

    def credential(self, authorization: str | None, *, now: float) -> Credential:
        """What is known of the token in an `Authorization` header (RFC 6750, section 2.1). `now` in wall seconds.

        Raises:
            Unauthenticated: no bearer token, an unknown one, or one past its date; never says which.
        """
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip(" ")
        if scheme.lower() != "bearer" or not 0 < len(token) <= MAX_TOKEN_CHARACTERS:
            raise Unauthenticated
        if token.startswith(PREFIX) and not well_formed(token):
            raise Unauthenticated
        credential = self._by_digest.get(digest_of(token))
        if credential is None or (credential.expires_at is not None and credential.expires_at <= now):
            raise Unauthenticated
        return credential


def _checksum(secret: str) -> str:
    return _base62(zlib.crc32(secret.encode()), CHECKSUM_CHARACTERS)


def _base62(number: int, characters: int) -> str:
    digits = []
    for _ in range(characters):
        number, index = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[index])
    return "".join(reversed(digits))
