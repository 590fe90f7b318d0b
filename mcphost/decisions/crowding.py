"""Which of the calls that wait for their clients gives way, where others wait for its process.

A client need not come back to what it was asked, and most that do not will never say so. Its call must not keep a
process from those who are there, nor may they push out whoever is only slow.
"""

from collections import Counter
from collections.abc import Collection, Sequence

from mcphost.decisions.identity import Principal


def gives_way(parked: Sequence[Principal], waiting: Collection[Principal]) -> int | None:
    """The place of the call to give up, or None. `parked` has the owner of each such call, the oldest first.

    It is the oldest of whoever has the most. The only call of a principal gives way to that principal's own, and to
    nobody else's.
    """
    count = Counter(parked)
    allowed = [owner for owner in count if count[owner] > 1 or owner in waiting]
    if not allowed:
        return None
    return parked.index(max(allowed, key=lambda owner: count[owner]))  # the first of equals is the oldest
