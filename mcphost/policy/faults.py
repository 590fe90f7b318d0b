"""What is wrong with one value, before anybody knows where in which file it stands.

Validators raise a `Fault`; whoever knows the place turns it into a `Problem`. A fault never quotes the
value it judges: whether that may be shown is decided by the place (see `places.is_confidential`).
"""

import difflib
from collections.abc import Iterable

from mcphost.errors import Problem


class Fault(ValueError):
    """One broken value: what is wrong, what is allowed, and the nearest thing that would be right.

    `at` is the path from the value under validation down to the part that is meant, and `also` the whole
    path of another part that is concerned. `on_key` says that the key itself is wrong and not its value.
    """

    def __init__(
        self,
        message: str,
        *,
        allowed: str | None = None,
        suggestion: str | None = None,
        at: tuple[str | int, ...] = (),
        also: tuple[str | int, ...] = (),
        on_key: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.allowed = allowed
        self.suggestion = suggestion
        self.at = at
        self.also = also
        self.on_key = on_key

    def hinted(self) -> str:
        """The message with what is allowed and what was probably meant, where there is no place to show with it."""
        return str(Problem("", 0, 0, "", self.message, None, self.allowed, self.suggestion)).removeprefix(
            ": "
        )


class Faults(ValueError):
    """Several faults found by one validator that looks at a whole."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(fault.message for fault in self.faults))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be, or None."""
    folded = {name.casefold().replace("_", "").replace("-", ""): name for name in known}
    wanted = word.casefold().replace("_", "").replace("-", "")
    found = difflib.get_close_matches(wanted, folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def listing(words: Iterable[str]) -> str:
    """`a, b, c`, in the order given; `nothing` for none."""
    return ", ".join(words) or "nothing"


def must_be_known(word: str, known: Iterable[str], what: str, *, at: tuple[str | int, ...] = ()) -> Fault:
    """The fault of a name that should be one of `known`, with all of them and the nearest."""
    names = sorted(known)
    return Fault(
        f"no {what} has this name", allowed=", ".join(names) or None, suggestion=nearest(word, names), at=at
    )


def first_repeated(items: Iterable[str]) -> int | None:
    """The index of the first item that stood there before."""
    seen: set[str] = set()
    for index, item in enumerate(items):
        if item in seen:
            return index
        seen.add(item)
    return None
