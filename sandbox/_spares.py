"""The inits kept prepared ahead of need, and when another one is to be made. Decides only; the fork server makes them."""

import math
from collections import deque

from sandbox import _worker
from sandbox._worker import Worker

# Each is two sleeping processes and under 4 MiB; a second start that follows at once finds one too.
MOST = 2
# One that dies younger is not replaced before, so that spares that cannot live are not made in a circle.
LEAST_LIFE_SECONDS = 1.0


class Spares:
    """Owned by the fork server, which also has each of them in its tables. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._ready: deque[Worker] = deque()
        self._wanted_at = 0.0
        self._closed = False

    def __repr__(self) -> str:
        return f"<Spares {len(self._ready)} ready>"

    def wanted_in(self, now: float) -> float | None:
        """Seconds until another is to be made; None while none is wanted."""
        return None if math.isinf(self._wanted_at) else max(0.0, self._wanted_at - now)

    def want(self, now: float) -> None:
        """Another start has come: have as many as there may be."""
        self._wanted_at = min(self._wanted_at, now) if len(self._ready) < MOST else math.inf

    def add(self, worker: Worker, now: float) -> None:
        """One more was made."""
        self._ready.append(worker)
        self._wanted_at = now if len(self._ready) < MOST else math.inf

    def give_up(self) -> None:
        """One could not be made: none is tried for before the next start."""
        self._wanted_at = math.inf

    def take(self, prepared: tuple[str, ...]) -> Worker | None:
        """One prepared just so. One that failed or was killed is passed over; the event that says so will come."""
        while self._ready and self._ready[0].prepared == prepared:
            worker = self._ready.popleft()
            if _worker.is_sound(worker):
                return worker
        return None

    def lose(self, worker: Worker, now: float) -> None:
        """A worker ended; if it was a spare, another is wanted."""
        if worker in self._ready:
            self._ready.remove(worker)
            if not self._closed:
                self._wanted_at = min(self._wanted_at, max(now, worker.made_at + LEAST_LIFE_SECONDS))

    def close(self) -> None:
        """None is wanted any more."""
        self._closed, self._wanted_at = True, math.inf
