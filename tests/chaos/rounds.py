"""One kill and what must hold after it. Every wait is for a condition and bounded; every random choice is seeded.

What a round kills, at a random moment under load:

- `runtime`: everything of it must vanish by itself; the next start must find and leave nothing of it;
- `starting`, `stopping`: the runtime or its fork server, while the runtime starts or stops;
- `spawner`: the fork server; calls are served again, by workers of another one;
- `init`, `worker`: what stands above one tenant's program, or the program; the other tenant notices nothing;
- `several`: two or three of the fork server, inits, workers and spare processes at once.
"""

import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from chaos import system
from chaos.load import DOCUMENTED, Load, loaded
from chaos.product import TENANTS, NotInTime, Product, wait_for

KINDS = ("runtime", "starting", "stopping", "spawner", "init", "worker", "several")
WEIGHTS = (20, 10, 10, 20, 15, 15, 10)
GONE_SECONDS = 15.0
LONGEST_START_SECONDS = 2.5
LONGEST_STOP_SECONDS = 0.4
LONGEST_LOAD_SECONDS = 0.3
_ENDS_RUNTIME = {"runtime", "starting", "stopping"}


@dataclass
class Chaos:
    """A product over one folder, killed again and again."""

    folder: Path
    user: bool
    random: random.Random
    groups: system.OwnGroups
    product: Product | None = None
    baseline: dict[str, int] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    def round(self, kind: str) -> dict[str, object]:
        """Do one; what it was, and under "wrong" everything that did not hold."""
        before, wrong = system.Belongings.now(self.folder), []
        began = time.monotonic()
        try:
            if kind == "starting":
                self._kill_starting()
            else:
                self.settle()
                wrong += self._kill_under_load(kind)
            if kind in _ENDS_RUNTIME:
                wrong += self._nothing_left(before)
            else:
                self._wait_baseline()
        except (NotInTime, OSError) as error:
            wrong.append(f"{type(error).__name__}: {error}")
            self.close()
        return {"kind": kind, "seconds": round(time.monotonic() - began, 2), "wrong": wrong}

    def close(self) -> None:
        """Stop what runs, whatever it takes."""
        if self.product is not None:
            with suppress(NotInTime):
                self.product.stop()
            if self.product.process.poll() is None:
                self.product.kill()
            self.product, self.baseline = None, {}

    def settle(self) -> None:
        """A running product at rest, both tenants served once; its census is the baseline."""
        if self.product is not None:
            return
        self.product = Product.start(self.folder, self.groups, user=self.user)
        wait_for(self.product.is_ready, "ready")
        stale = {name for name in self.groups.names() if f".{self.product.spawner()}." not in name}
        if stale:
            raise NotInTime(f"the start swept no groups away: {sorted(stale)}")
        with loaded(self.product) as load:
            moment = time.monotonic()
            wait_for(lambda: load.served_since(moment), "served")
        self.baseline = self._rest()

    def _rest(self) -> dict[str, int]:
        """The census once it no longer changes: spares are made and connections closed a moment later."""
        assert self.product is not None
        seen = [self.product.census() for _ in range(5)]

        def calm() -> bool:
            seen.append(self.product.census())
            time.sleep(0.03)
            full = seen[-1]["processes"] == self.product.full_house
            return full and all(each == seen[-1] for each in seen[-5:])

        wait_for(calm, "rest")
        return seen[-1]

    def _wait_baseline(self) -> None:
        assert self.product is not None
        last: dict[str, int] = {}

        def same() -> bool:
            last.update(self.product.census())
            return last == self.baseline

        try:
            wait_for(same, "baseline", GONE_SECONDS)
        except NotInTime:
            raise NotInTime(f"not as before: {last}, but {self.baseline} before") from None

    def _kill_starting(self) -> None:
        self.close()
        self.product = Product.start(self.folder, self.groups, user=self.user)
        time.sleep(self.random.uniform(0, LONGEST_START_SECONDS))
        if self.random.random() < 0.3 and (spawner := self.product.spawner()) > 0:
            # It comes back by itself, or the runtime says that it cannot start and ends.
            os.kill(spawner, signal.SIGKILL)
            time.sleep(self.random.uniform(0, 0.1))
        self.product.kill()

    def _kill_under_load(self, kind: str) -> list[str]:
        product = self.product
        assert product is not None
        with loaded(product) as load:
            time.sleep(self.random.uniform(0, LONGEST_LOAD_SECONDS))
            if kind in _ENDS_RUNTIME:
                if kind == "stopping":
                    product.process.send_signal(signal.SIGTERM)
                    time.sleep(self.random.uniform(0, LONGEST_STOP_SECONDS))
                    self._kill_some(self.random.choice([[], [product.spawner()]]))
                moment = time.monotonic()
                product.kill()
                touched = set(TENANTS)
            else:
                victims, touched = self._victims(kind)
                # A call right after the kill may still be answered by what is about to go.
                going = [
                    system.identity(pid) for each in victims for pid in (each, *system.descendants(each))
                ]
                moment = time.monotonic()
                self._kill_some(victims)
                wait_for(lambda: not any(map(system.exists, going)), f"gone: {going}", GONE_SECONDS)
                gone = time.monotonic()
                wait_for(lambda: load.served_since(gone), f"served again after {kind}")
        return self._judge(load, kind, moment, touched)

    def _victims(self, kind: str) -> tuple[list[int], set[str]]:
        """Whom to kill, and whose calls may fail then."""
        product = self.product
        assert product is not None
        wait_for(lambda: len(product.inits()) == len(TENANTS), "workers")
        inits, children = product.inits(), system.tree()
        tenant = self.random.choice(TENANTS)
        worker = children.get(inits[tenant], [inits[tenant]])
        if kind == "spawner":
            return [product.spawner()], set(TENANTS)
        if kind == "init":
            return [inits[tenant]], {tenant}
        if kind == "worker":
            return worker, {tenant}
        everyone = [pid for pid in system.descendants(product.process.pid) if not system.is_zombie(pid)]
        return self.random.sample(everyone, k=min(len(everyone), self.random.choice((2, 3)))), set(TENANTS)

    @staticmethod
    def _kill_some(pids: list[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                if pid > 0:
                    os.kill(pid, signal.SIGKILL)

    def _judge(self, load: Load, kind: str, moment: float, touched: set[str]) -> list[str]:
        """What callers saw that they should not have seen."""
        allowed = DOCUMENTED | ({"unconnected", "right"} if kind in _ENDS_RUNTIME else {"right"})
        wrong = set()
        for one in load.seen:
            self.calls[one.said] = self.calls.get(one.said, 0) + 1
            if one.said not in allowed:
                wrong.add(f"a call of {one.tenant} was told: {one.said}")
            elif one.said != "right" and one.tenant not in touched:
                wrong.add(f"a call of {one.tenant} failed beside a kill of the other's: {one.said}")
            elif one.said != "right" and one.ended < moment and kind != "stopping":
                wrong.add(f"a call of {one.tenant} failed before the kill: {one.said}")
        return sorted(wrong)

    def _nothing_left(self, before: system.Belongings) -> list[str]:
        """After the end of the runtime: no process below us, and nothing that was not there before."""
        self.product, self.baseline = None, {}

        def gone() -> bool:
            orphans = system.descendants(os.getpid())
            system.reap(orphans)
            return not [pid for pid in orphans if not system.is_zombie(pid)]

        try:
            wait_for(gone, "every process gone", GONE_SECONDS)
        except NotInTime:
            return [
                f"processes left: {[(pid, system.fields(pid)) for pid in system.descendants(os.getpid())]}"
            ]
        left = system.Belongings.now(self.folder).left_since(before)
        return [f"{kind} left: {items}" for kind, items in left.items()]
