"""All runs of the suite against one running product, some at a time."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conformance.cells import CELLS, Cell, Served, endpoints
from conformance.legs import Leg, run
from conformance.product import running

# A run mostly waits, for the suite pauses often; with more for each processor its answers would miss its windows.
LEGS_PER_CPU = 2


@dataclass(frozen=True, slots=True)
class Runs:
    """What will come of each run: of each cell, and of all scenarios there are against some endpoints."""

    cells: Mapping[Cell, Future[Leg]]
    everything: Mapping[Served, Future[Leg]]


@contextmanager
def judging(folder: Path, *, everything: bool = False) -> Iterator[Runs]:
    """Start every run. What has not begun at the end never does."""
    with running(folder) as url:
        pool = ThreadPoolExecutor(LEGS_PER_CPU * (os.cpu_count() or 1))

        def submit(name: str, served: Served, *selection: str) -> Future[Leg]:
            return pool.submit(run, url + served.path, folder / name, *selection)

        try:
            cells = {cell: submit(str(cell), cell.served, "--requirements", cell.revision) for cell in CELLS}
            simple = [
                served for served in endpoints() if (served.scope, served.endpoint) == ("tenant", "single")
            ]
            everywhere = {
                served: submit(f"{served}-all", served, "--suite", "all") for served in simple if everything
            }
            yield Runs(cells, everywhere)
        finally:
            pool.shutdown(cancel_futures=True)
