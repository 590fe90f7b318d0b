"""What a tenant and its tokens may see and use: `server/name` globs, the same answer for every method.

A pattern has a server part and a name part, split at the first slash; `*` alone is everything. `*` and `?`
match any characters, slashes included, for the names of resources are URIs. Deny wins over allow, and what
nothing allows is denied. A token may do what its tenant may and its own patterns leave: they never widen.
"""

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

# Answers kept per tenant and per token with patterns of its own, and the longest name among them: names come from clients, so both need a bound.
MAX_REMEMBERED: Final = 4096
MAX_REMEMBERED_CHARACTERS: Final = 256


@dataclass(frozen=True, slots=True)
class Pattern:
    """One glob of the policy, as written and as compiled."""

    text: str
    server: re.Pattern[str]
    name: re.Pattern[str]

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Read `*`, `server/name` or `server` (all of it)."""
        server, _, name = text.partition("/")
        return cls(text, _glob(server), _glob(name or "*"))

    def matches(self, server: str, name: str) -> bool:
        """Whether this pattern covers an item of a server."""
        return self.server.match(server) is not None and self.name.match(name) is not None


@dataclass(frozen=True, slots=True)
class Rule:
    """What decided: one pattern of a list, or (`index` None, no `pattern`) that none of the list matches."""

    of_token: bool
    key: Literal["allow", "deny"]
    index: int | None = None
    pattern: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer about one item, and why.

    A denial has the one rule that denies; what is allowed has the tenant's pattern that allows it, and the token's
    where it has an `allow` of its own.
    """

    allowed: bool
    rules: tuple[Rule, ...]


class Permissions:
    """The patterns of one tenant, or of one token within its tenant's. Immutable but for a bounded memory of answers."""

    def __init__(
        self, allow: Iterable[str] | None, deny: Iterable[str], within: "Permissions | None" = None
    ) -> None:
        """`within` is what a token's tenant is granted: these are that, as far as these patterns allow.

        No `allow` (None) means all that the tenant may, and for a tenant nothing.
        """
        self._within = within
        self._allow = None if allow is None and within is not None else _parsed(allow or ())
        self._deny = _parsed(deny)
        self._answers: dict[tuple[str, str], Verdict] = {}

    def __repr__(self) -> str:
        allow = "all" if self._allow is None else f"[{', '.join(pattern.text for pattern in self._allow)}]"
        deny = ", ".join(pattern.text for pattern in self._deny)
        within = f" within {self._within!r}" if self._within is not None else ""
        return f"<Permissions allow={allow} deny=[{deny}]{within}>"

    def allows(self, server: str, name: str) -> bool:
        """Whether an item (a tool's or prompt's name, a resource's URI) may be seen and used."""
        return self.judge(server, name).allowed

    def judge(self, server: str, name: str) -> Verdict:
        """The same with the rules that decide: the tenant's before the token's, `deny` before `allow`."""
        key = (server, name)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._judged(server, name)
            if len(self._answers) < MAX_REMEMBERED and len(name) <= MAX_REMEMBERED_CHARACTERS:
                self._answers[key] = answer
        return answer

    def sees(self, server: str) -> bool:
        """Whether anything of a server may be used at all; if not, it does not exist for whoever asks."""
        if self._within is not None and not self._within.sees(server):
            return False
        allowed = self._allow is None or any(pattern.server.match(server) for pattern in self._allow)
        denied = any(p.server.match(server) and p.name.pattern == _EVERYTHING for p in self._deny)
        return allowed and not denied

    def _judged(self, server: str, name: str) -> Verdict:
        of_token = self._within is not None
        granted: tuple[Rule, ...] = ()
        if self._within is not None:
            outer = self._within.judge(server, name)
            if not outer.allowed:
                return outer
            granted = outer.rules
        index = _first(self._deny, server, name)
        if index is not None:
            return Verdict(False, (Rule(of_token, "deny", index, self._deny[index].text),))
        if self._allow is None:
            return Verdict(True, granted)
        index = _first(self._allow, server, name)
        if index is None:
            return Verdict(False, (Rule(of_token, "allow"),))
        return Verdict(True, (*granted, Rule(of_token, "allow", index, self._allow[index].text)))


def _parsed(patterns: Iterable[str]) -> tuple[Pattern, ...]:
    return tuple(Pattern.parse(text) for text in patterns)


def _first(patterns: tuple[Pattern, ...], server: str, name: str) -> int | None:
    """The index of the first pattern that covers an item."""
    return next((index for index, pattern in enumerate(patterns) if pattern.matches(server, name)), None)


def _glob(text: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(text))


_EVERYTHING: Final = _glob("*").pattern

NOTHING: Final = Permissions((), ())
"""Those of whom the policy does not know."""
