"""When a worker that ended is started again, and when no more.

A start that always fails is no crash: starts are counted, and past the limit the server is `failed`, which
stays visible, rather than started for ever (systemd.unit(5), StartLimitBurst).
"""

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

RestartOn = Literal["on-failure", "always", "never"]

# 2 ** 32 doublings of any first wait are past every maximum; the exponent is cut before it overflows.
_MAX_EXPONENT: Final = 32


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """At most `limit` restarts within `window` seconds; waits from `initial`, doubling, up to `ceiling` seconds."""

    on: RestartOn
    limit: int
    window: float
    initial: float
    ceiling: float


@dataclass(frozen=True, slots=True)
class Again:
    """Start again after so many seconds."""

    wait: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Start no more; `why` is shown to the operator."""

    why: str


@dataclass(frozen=True, slots=True)
class Rest:
    """The worker ended in order; start another when a call wants one."""


class RestartBudget:
    """Counts the failures of one worker set. Not for concurrent threads."""

    def __init__(self, policy: RestartPolicy) -> None:
        self._policy = policy
        self._failures: deque[float] = deque()

    def __repr__(self) -> str:
        return f"<RestartBudget {len(self._failures)} of {self._policy.limit} used>"

    def ended(self, *, now: float, failed: bool, why: str, jitter: float) -> Again | GiveUp | Rest:
        """A worker ended at monotonic `now`, or never got ready.

        `failed`: it ended by a signal, a status other than 0, or before it was ready. `jitter` in [0, 1)
        spreads the waits over the upper half of each step, so that what died together starts apart.
        """
        if not failed and self._policy.on != "always":
            return Rest()
        if self._policy.on == "never":
            return GiveUp(f"{why}; its restart policy is `never`")
        self._forget(now)
        self._failures.append(now)
        if len(self._failures) > self._policy.limit:
            return GiveUp(f"{why}; it ended {len(self._failures)} times within {self._policy.window:g} s")
        step = self._policy.initial * 2 ** min(len(self._failures) - 1, _MAX_EXPONENT)
        return Again(min(step, self._policy.ceiling) * (0.5 + jitter / 2))

    def _forget(self, now: float) -> None:
        while self._failures and self._failures[0] <= now - self._policy.window:
            self._failures.popleft()
