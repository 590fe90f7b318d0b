"""What a test can see of a running runtime's workers from outside."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import Served


def alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gauge(served: Served, name: str) -> float:
    """The value of the first metric whose line begins so; 0 if there is none."""
    lines = served.runtime.metrics.render().decode().splitlines()
    return next((float(each.rpartition(" ")[2]) for each in lines if each.startswith(name)), 0.0)


def change(served: Served, **settings: Any) -> Any:
    """The worker set of a server with other settings than a policy can ask for. To be called before it is used."""
    servers: Any = served.runtime.pool.servers
    servers["fix"] = replace(servers["fix"], **settings)
    served.runtime.pool._sets.clear()
    return served.worker_set("fix")


def leased(workers: Any) -> list[tuple[object, object]]:
    """State of each process beside the main one, and whether it is kept for one call."""
    return [(each["state"], each["reserved"]) for each in workers.leases.shown()]
