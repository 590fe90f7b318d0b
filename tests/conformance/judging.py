"""All runs of the suite against one running product, some at a time."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conformance.cells import REVISIONS, Cell, Served, endpoints
from conformance.legs import Leg, run
from conformance.product import running

# A run mostly waits, for the suite pauses often; with more for each processor its answers would miss its windows.
LEGS_PER_CPU = 2

ALL = "all"


@dataclass(frozen=True, slots=True)
class Runs:
    """What will come of the runs against each endpoint: one for each revision, and one of every scenario if wanted."""

    endpoints: Mapping[Served, Future[Mapping[str, Leg]]]

    def leg(self, cell: Cell) -> Leg:
        """The run of a cell, once it is over."""
        return self.endpoints[cell.served].result()[cell.revision]

    def everything(self, served: Served) -> Leg:
        """The run of every scenario against an endpoint, once it is over."""
        return self.endpoints[served].result()[ALL]


@contextmanager
def judging(folder: Path, *, everything: bool = False) -> Iterator[Runs]:
    """Start every run. What has not begun at the end never does."""
    with running(folder) as url:

        def judge(served: Served) -> Mapping[str, Leg]:
            """One run after the other: they change lists of the server, and two are not to be asked things at once."""
            place = folder / str(served)
            selections = {revision: ("--requirements", revision) for revision in REVISIONS}
            if everything and served.is_plain:
                selections[ALL] = ("--suite", "all")
            return {
                name: run(url + served.path, place / name, *chosen) for name, chosen in selections.items()
            }

        pool = ThreadPoolExecutor(LEGS_PER_CPU * (os.cpu_count() or 1))
        try:
            longest_first = sorted(endpoints(), key=lambda served: served.speaks)
            yield Runs({served: pool.submit(judge, served) for served in longest_first})
        finally:
            pool.shutdown(cancel_futures=True)
