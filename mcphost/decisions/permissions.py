"""What a tenant may see and use: `server/name` globs, the same answer for every method.

A pattern has a server part and a name part, split at the first slash; `*` alone is everything. `*` and `?`
match any characters, slashes included, for the names of resources are URIs. Deny wins over allow, and what
nothing allows is denied.
"""

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# Answers kept per tenant, and the longest name among them: names come from clients, so both need a bound.
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


class Permissions:
    """One tenant's patterns. Immutable but for a bounded memory of answers."""

    def __init__(self, allow: Iterable[str], deny: Iterable[str]) -> None:
        self._allow = tuple(Pattern.parse(text) for text in allow)
        self._deny = tuple(Pattern.parse(text) for text in deny)
        self._answers: dict[tuple[str, str], bool] = {}

    def __repr__(self) -> str:
        allow = ", ".join(pattern.text for pattern in self._allow)
        deny = ", ".join(pattern.text for pattern in self._deny)
        return f"<Permissions allow=[{allow}] deny=[{deny}]>"

    def allows(self, server: str, name: str) -> bool:
        """Whether the tenant may see and use an item (a tool's or prompt's name, a resource's URI)."""
        key = (server, name)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._covered(self._allow, key) and not self._covered(self._deny, key)
            if len(self._answers) < MAX_REMEMBERED and len(name) <= MAX_REMEMBERED_CHARACTERS:
                self._answers[key] = answer
        return answer

    def sees(self, server: str) -> bool:
        """Whether the tenant may use anything of a server at all; if not, it does not exist for the tenant."""
        allowed = any(pattern.server.match(server) for pattern in self._allow)
        denied = any(p.server.match(server) and p.name.pattern == _EVERYTHING for p in self._deny)
        return allowed and not denied

    @staticmethod
    def _covered(patterns: tuple[Pattern, ...], key: tuple[str, str]) -> bool:
        return any(pattern.matches(*key) for pattern in patterns)


def _glob(text: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(text))


_EVERYTHING: Final = _glob("*").pattern
