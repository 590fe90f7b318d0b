"""The text of a header that mirrors a value of the body (2026-07-28, basic/transports, "Value Encoding")."""

import base64
import binascii
import re
from typing import Final

_PREFIX: Final = "=?base64?"
_SUFFIX: Final = "?="
_PLAIN: Final = re.compile(r"[\t\x20-\x7e]*")


class BadHeaderText(Exception):
    """The text holds characters that no header may, or is no base64 where it says that it is."""


def decoded(text: str) -> str:
    """The value that a header's text spells.

    Strict, so that each value has one spelling in base64: what two readers could decode two ways is refused.

    Raises:
        BadHeaderText: the text spells no value.
    """
    encoded = text.removeprefix(_PREFIX)
    if encoded == text or not encoded.endswith(_SUFFIX):
        if not _PLAIN.fullmatch(text):
            raise BadHeaderText("holds characters that must be sent in base64")
        return text
    try:
        spelling = encoded.removesuffix(_SUFFIX).encode("ascii")
        value = base64.b64decode(spelling, validate=True)
        if base64.b64encode(value) == spelling:  # else the last character holds bits that mean nothing
            return value.decode()
    except (binascii.Error, UnicodeError):
        pass
    raise BadHeaderText("is not valid base64")
