"""What the product holds, counted from outside: so that a leak is seen in whatever table it sits."""

import gc
import os
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import anyio

OURS = ("mcphost.", "sandbox.")
REST_SECONDS = 60.0
PAUSE_SECONDS = 0.2
STEADY = 4  # counts in a row that must be the same
CONTAINERS = (dict, list, set, deque)  # an OrderedDict and a Counter are dicts


@dataclass(frozen=True)
class Census:
    """Counts at one moment. `tables` holds the items of all containers of one owner's attribute, by its name."""

    descriptors: int
    tasks: int
    resident_bytes: int
    tables: Counter[str] = field(default_factory=Counter)

    def grown(self, before: "Census", *, slack: int) -> dict[str, tuple[int, int]]:
        """The tables that hold more than twice as much as before, and `slack` more."""
        return {
            name: (before.tables[name], size)
            for name, size in self.tables.items()
            if size > 2 * before.tables[name] + slack
        }


def take() -> Census:
    """Count now."""
    gc.collect()
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return Census(
        len(os.listdir("/proc/self/fd")),
        len(anyio.get_running_tasks()),
        pages * os.sysconf("SC_PAGESIZE"),
        tables(),
    )


def tables() -> Counter[str]:
    """Items of every container that an object of the product holds directly, or inside another container."""
    found: Counter[str] = Counter()
    for owner in gc.get_objects():
        with suppress(Exception):  # some objects answer nothing, not even what they are
            kind = type(owner)
            if not kind.__module__.startswith(OURS):
                continue
            for name, value in _attributes(owner):
                found[f"{kind.__module__}.{kind.__qualname__}.{name}"] += _items(value)
    return found


def _attributes(owner: object) -> Iterator[tuple[str, object]]:
    yield from getattr(owner, "__dict__", {}).items()
    for kind in type(owner).__mro__:
        for name in getattr(kind, "__slots__", ()):
            yield name, getattr(owner, name, None)


def _items(value: object, depth: int = 2) -> int:
    if isinstance(value, bytearray):
        return len(value) // 1024
    if not isinstance(value, CONTAINERS) or not depth:
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return len(value) + sum(_items(each, depth - 1) for each in list(inner))


async def wait_rest() -> Census:
    """The census once nothing is under way: descriptors and tasks stay what they are."""
    seen = [take()]
    with anyio.move_on_after(REST_SECONDS):
        while len(seen) < STEADY or len({(each.descriptors, each.tasks) for each in seen[-STEADY:]}) > 1:
            await anyio.sleep(PAUSE_SECONDS)
            seen.append(take())
        return seen[-1]
    raise AssertionError(f"no rest: {seen[-1]}")
