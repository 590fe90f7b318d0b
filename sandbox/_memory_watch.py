"""Ends the whole of a worker when its memory runs out, where the kernel ends only one process of it.

Version 2 has memory.oom.group for that. Version 1 tells of a shortage by a descriptor, before it has chosen whom to
end, and tells also those groups that lie inside the one that is short. So a notice is a reason to look: at the group's
own count of processes ended for want of memory, now and for a short while.
"""

import os
import select
import time
from contextlib import suppress

from sandbox import _worker
from sandbox._worker import Worker

# The kernel's choice follows its notice within milliseconds; a machine that is itself short of memory may take longer.
_LOOK_SECONDS = 1.0


class MemoryWatch:
    """The workers that are watched, by their descriptors, and those that were told of and are looked at."""

    def __init__(self, poll: select.poll) -> None:
        self._poll = poll
        self._by_notice: dict[int, Worker] = {}
        self._looked_at: dict[int, tuple[Worker, float]] = {}

    @property
    def looking(self) -> bool:
        """Whether `look` wants to be called again soon."""
        return bool(self._looked_at)

    def add(self, worker: Worker) -> None:
        """Watch `worker`, if its groups need it, until it is forgotten."""
        notice = worker.group.oom_notice
        if notice is not None:
            self._by_notice[notice] = worker
            self._poll.register(notice, select.POLLIN)

    def forget(self, worker: Worker) -> None:
        """To be called before the worker's groups are removed, which closes the descriptor."""
        self._looked_at.pop(worker.number, None)
        notice = worker.group.oom_notice
        if notice is not None and notice in self._by_notice:
            del self._by_notice[notice]
            self._poll.unregister(notice)

    def take(self, fd: int) -> None:
        """An event on `fd`, which need not be one of those watched."""
        if worker := self._by_notice.get(fd):
            with suppress(BlockingIOError):
                os.eventfd_read(fd)
            self._looked_at[worker.number] = worker, time.monotonic() + _LOOK_SECONDS

    def look(self) -> None:
        """End those in whose groups the kernel ended a process for want of memory."""
        for worker, until in list(self._looked_at.values()):
            ran_out = worker.group.counters().oom_kills > 0
            if ran_out:
                _worker.kill(worker)
            if ran_out or time.monotonic() > until:
                del self._looked_at[worker.number]
