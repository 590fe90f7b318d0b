"""Which URIs a template of a resource covers (RFC 6570), as far as that says which server to ask."""

from typing import Final

MAX_EXPRESSIONS: Final = 32  # more of them in one template is no way to name resources


def covers(template: str, uri: str) -> bool:
    """Whether a template could give this URI: its literal parts occur in order, the first and last at the ends.

    An expression stands for any text, also none, so this may say yes to a URI whose values the server refuses. The
    template itself is covered, too: completion names it as it is listed. One with a broken expression covers itself only.
    """
    if template == uri:
        return True
    literals = _literals(template)
    if literals is None or len(literals) == 1:
        return False
    first, *inner, last = literals
    if len(uri) < len(first) + len(last) or not uri.startswith(first) or not uri.endswith(last):
        return False
    place, end = len(first), len(uri) - len(last)
    for literal in inner:
        found = uri.find(literal, place, end)
        if found < 0:
            return False
        place = found + len(literal)
    return True


def _literals(template: str) -> list[str] | None:
    """The text around the expressions; None if one is not closed or there are too many."""
    first, *pieces = template.split("{")
    if len(pieces) > MAX_EXPRESSIONS:
        return None
    literals = [first]
    for piece in pieces:
        _, closed, literal = piece.partition("}")
        if not closed:
            return None
        literals.append(literal)
    return literals
