"""How long a request for many servers waits for each of them, so that none delays the rest for long twice."""

from typing import Final
from weakref import WeakSet

from mcphost.workers.supervisor import WorkerSet

# For a server that is starting or lists slowly. Most interpreters with their imports are there by then.
PART_SECONDS: Final = 10.0
# For one that is down, or was waited for in vain before: long enough to answer if it can.
DOWN_SECONDS: Final = 1.0


class Patience:
    """Remembers who kept others waiting."""

    def __init__(self) -> None:
        self._late: WeakSet[WorkerSet] = WeakSet()

    def seconds(self, workers: WorkerSet) -> float:
        """How long to wait for these workers now."""
        if workers in self._late or workers.state in {"backoff", "failed"}:
            return DOWN_SECONDS
        return PART_SECONDS

    def missed(self, workers: WorkerSet) -> None:
        """They did not answer in time."""
        self._late.add(workers)

    def answered(self, workers: WorkerSet) -> None:
        """They did."""
        self._late.discard(workers)
