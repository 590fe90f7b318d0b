"""Calls of two tenants at once, all through a kill, each with when it began and ended and what came of it."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from chaos.product import TENANTS, Product

CALLERS_PER_TENANT = 2
CALL_SECONDS = 30.0
# Between a failed call and the next, so that a dead runtime is not asked in a circle.
PAUSE_SECONDS = 0.005
# What docs/operations.md says a caller is told when a worker or the fork server dies, or the runtime stops.
DOCUMENTED = {"worker-died", "worker-unavailable", "overloaded", "stopping"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One call. `said` is "right", a documented reason, "unconnected" when there was no answer, or what was wrong."""

    tenant: str
    began: float
    ended: float
    said: str


class Load:
    """The callers and what they have seen."""

    def __init__(self, product: Product) -> None:
        self._product = product
        self._over = threading.Event()
        self.seen: list[Outcome] = []

    def call_on(self, tenant: str, caller: int) -> None:
        """Call until the load is over."""
        connection, count = (
            http.client.HTTPConnection("127.0.0.1", self._product.port, timeout=CALL_SECONDS),
            0,
        )
        while not self._over.is_set():
            count += 1
            began = time.monotonic()
            text = f"{tenant}-{caller}-{count}"
            try:
                said = judge(self._product.call(tenant, connection, text), text)
            except (OSError, http.client.HTTPException, json.JSONDecodeError):
                said = "unconnected"
                connection.close()
            self.seen.append(Outcome(tenant, began, time.monotonic(), said))
            if said != "right":
                self._over.wait(PAUSE_SECONDS)
        connection.close()

    def served_since(self, moment: float) -> bool:
        """Whether every tenant has had a right answer to a call begun after `moment`."""
        served = {one.tenant for one in self.seen[-2000:] if one.said == "right" and one.began > moment}
        return served == set(TENANTS)

    def stop(self) -> None:
        self._over.set()


def judge(answer: dict, text: str) -> str:
    """What an answer comes to; an answer that is not ours is the worst there is."""
    if "result" in answer:
        said = answer["result"]["content"][0]["text"]
        return "right" if said == text else f"somebody else's answer: {said[:80]}"
    return str(answer["error"].get("data", {}).get("reason") or answer["error"])


@contextmanager
def loaded(product: Product) -> Iterator[Load]:
    """Callers of both tenants for as long as the block lasts."""
    load = Load(product)
    callers = [
        threading.Thread(target=load.call_on, args=(tenant, caller))
        for tenant in TENANTS
        for caller in range(CALLERS_PER_TENANT)
    ]
    for each in callers:
        each.start()
    try:
        yield load
    finally:
        load.stop()
        for each in callers:
            each.join()
