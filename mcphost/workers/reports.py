"""What is told of one worker, in the log and in the metrics: its end, its standard error, what was refused to it."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mcphost.decisions.ratelimit import Rate, RateLimiter
from mcphost.telemetry.logs import logger
from mcphost.telemetry.metrics import Metrics
from mcphost.workers.process import Ended

STDERR_LOGGED: Final = Rate(per_second=20.0, burst=100)  # pieces per second that reach our log

DENIALS_LOGGED: Final = Rate(per_second=1 / 60, burst=1)  # lines of one worker; the metric counts every call


@dataclass(frozen=True, slots=True)
class Identity:
    """Which worker it is, for logs and metrics."""

    server: str
    tenant: str


class Reports:
    """The reporter of one worker. Everything here is synchronous."""

    def __init__(self, identity: Identity, metrics: Metrics) -> None:
        self._identity = identity
        self._metrics = metrics
        self._exited = False
        self._stderr_limiter = RateLimiter(STDERR_LOGGED)
        self._denials_limiter = RateLimiter(DENIALS_LOGGED)
        self._denied: Counter[str] = Counter()  # since the last line about it; names of system calls only

    def __repr__(self) -> str:
        return f"<Reports of {self._identity}>"

    def exited(self, pid: int, ended: Ended) -> Ended:
        """Say once how the worker ended and what it used; gives what it was given."""
        if not self._exited:
            self._exited = True
            self._metrics.worker_exited(**self._who, reason=ended.reason, usage=ended.usage)
            how = {"code": ended.code} if ended.signal is None else {"signal": ended.signal}
            logger().info(
                "worker_exited", **self._who, pid=pid, reason=ended.reason, **how, **ended.usage.counted()
            )
        return ended

    def odd(self, what: str) -> None:
        """Count a message that was passed over."""
        self._metrics.oddity(**self._who, what=what)

    def stderr(self, data: bytes) -> None:
        """Log what it printed. Debug only: it is its own, and may hold what its tenant would not want in our log."""
        if not self._stderr_limiter.wait_for(time.monotonic()):  # a callback: anyio knows no loop here
            logger().debug("worker_stderr", **self._who, text=data[:2000].decode(errors="replace"))

    def denied(self, calls: Mapping[str, int]) -> None:
        """Count system calls that were refused to it, and log them now and then."""
        for call, count in calls.items():
            self._metrics.denied_calls(**self._who, call=call, count=count)
        self._denied.update(calls)
        if not self._denials_limiter.wait_for(time.monotonic()):  # as above
            said = ",".join(f"{call}={count}" for call, count in sorted(self._denied.items()))
            logger().warning("worker_denied_calls", **self._who, calls=said)
            self._denied.clear()

    @property
    def _who(self) -> dict[str, str]:
        return {"server": self._identity.server, "tenant": self._identity.tenant}
