"""Handles that clients carry for us: what they hold can be neither read nor changed, and serves one purpose only.

A handle is a nonce and the payload under AES-256-GCM-SIV (RFC 8452), in URL-safe base64 without padding. That cipher
stands a repeated nonce, so random ones may be used without counting handles. The purpose goes in as associated
data: a cursor is no session id, however it is presented. A handle proves only that we made it; whoever opens one
still compares the tenant, the principal and the date inside with the request's own.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16

# What a handle may be long: they come back in headers and bodies. A server's own state travels inside one.
MAX_HANDLE_CHARACTERS: Final = 1024 * 1024

Purpose = Literal["session", "state", "cursor", "task"]


class SealBroken(Exception):
    """The text is no handle of this key and purpose: forged, changed, cut, or sealed for something else."""


def key_of(secret: str) -> bytes:
    """The key that a random text of an operator stands for, `KEY_BYTES` long."""
    return hashlib.sha256(b"mcphost seal key\0" + secret.encode()).digest()


class Sealer:
    """Seals and opens handles under one key."""

    def __init__(self, key: bytes, random_bytes: Callable[[int], bytes]) -> None:
        """`key` is `KEY_BYTES` long; `random_bytes` gives as many bytes as asked for, from a secure source.

        Raises:
            ValueError: the key has another length.
        """
        if len(key) != KEY_BYTES:
            raise ValueError(f"the key must be {KEY_BYTES} bytes long")
        self._cipher = AESGCMSIV(key)
        self._random_bytes = random_bytes

    def __repr__(self) -> str:
        return "<Sealer>"

    def seal(self, purpose: Purpose, payload: bytes) -> str:
        """A handle for a payload: visible ASCII, fit for headers, URLs and JSON."""
        nonce = self._random_bytes(NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, payload, purpose.encode())
        return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def open(self, purpose: Purpose, handle: str) -> bytes:
        """The payload of a handle.

        Raises:
            SealBroken: it is none of ours, or was sealed for another purpose.
        """
        if len(handle) > MAX_HANDLE_CHARACTERS:
            raise SealBroken
        try:
            spelled = handle.encode("ascii")
            sealed = base64.b64decode(spelled + b"=" * (-len(spelled) % 4), altchars=b"-_", validate=True)
            if len(sealed) < NONCE_BYTES + TAG_BYTES:
                raise SealBroken
            if base64.urlsafe_b64encode(sealed).rstrip(b"=") != spelled:
                raise SealBroken  # another spelling of the same bytes: each handle has one only
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], purpose.encode())
        except (binascii.Error, UnicodeError, InvalidTag, ValueError):
            raise SealBroken from None
