"""Sessions that ended and whose ids could be opened again: remembered, in bounded memory, so that they stay ended."""

from collections import OrderedDict
from typing import Final

# Ended sessions remembered for one tenant. Where more end, the oldest are forgotten by refusing every id that was made
# no later than they were: an ended session never comes back, though one that did not end may have to begin again.
MAX_ENDED: Final = 1024


class Ended:
    """The ended sessions of one tenant, by their nonces. Dates in wall seconds."""

    def __init__(self) -> None:
        self._dates: OrderedDict[str, float] = OrderedDict()
        self._refused_until = float("-inf")

    def __len__(self) -> int:
        return len(self._dates)

    def add(self, nonce: str, issued_at: float) -> None:
        """Remember a session that ended."""
        self._dates[nonce] = issued_at
        while len(self._dates) > MAX_ENDED:
            _, forgotten = self._dates.popitem(last=False)
            self._refused_until = max(self._refused_until, forgotten)

    def holds(self, nonce: str, issued_at: float) -> bool:
        """Whether the session has ended, or is as old as one that did and was forgotten."""
        return nonce in self._dates or issued_at <= self._refused_until
