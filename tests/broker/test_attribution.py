"""Sixteen clients of both eras, of one tenant, on one server at once: every answer and every log line reaches its owner.

Each is interviewed again and again: the server logs, elicits, samples and lists roots, all at once, with the caller's
marker in whatever it says; each client answers with its own. A thousand answers and log lines come home for each era of
the server, or the test fails. With the lease switched off they do not, which shows that it is the lease that does it;
and even then nothing reaches a wrong owner.
"""

import json
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from answering import asked_client, converse_tool
from harness import FIXTURE, ModernClient, Served, make_policy, serving
from workers_seen import change

pytestmark = pytest.mark.kernel

CLIENTS = ("legacy", "modern") * 8
KINDS = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}
ITEMS = 1000
# Each interview is three answers and one log line.
INTERVIEWS = -(-ITEMS // (4 * len(CLIENTS)))


@pytest.fixture(params=["legacy", "dual", "modern"])
def worker_era(request: pytest.FixtureRequest) -> str:
    return request.param


def answer_of(marker: str, method: str) -> dict[str, Any]:
    """What a client says to each question."""
    match KINDS[method]:
        case "elicitation":
            return {"action": "accept", "content": {"answer": marker}}
        case "sampling":
            content = {"type": "text", "text": marker}
            return {"role": "assistant", "content": content, "model": "none", "stopReason": "endTurn"}
        case _:
            return {"roots": [{"uri": f"file:///{marker}", "name": marker}]}


@dataclass
class Ledger:
    """What came home, and what came to somebody else's."""

    home: Counter[str] = field(default_factory=Counter)
    foreign: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def look(self, marker: str, what: str, value: object) -> None:
        """Enter one thing that a client got or that was answered in its name."""
        text = json.dumps(value)
        if others := {word for word in text.replace("/", '"').split('"') if word.startswith("mark-")} - {
            marker
        }:
            self.foreign.append(f"{what} of {others} came to {marker}")
        elif marker in text:
            self.home[what] += 1
        else:
            self.missing.append(f"{what} of {marker}: {text[:300]}")

    @property
    def total(self) -> int:
        return sum(self.home.values())


async def interview(
    client: ModernClient, meta: dict[str, Any], marker: str, ledger: Ledger, together: int = 1
) -> None:
    """One interview of one client, entered into the ledger. Nobody is asked a thing twice."""
    asked: Counter[str] = Counter()

    def respond(method: str, params: dict[str, Any]) -> dict[str, Any]:
        asked[KINDS[method]] += 1
        if f'"{marker}"' not in json.dumps(params):
            ledger.foreign.append(f"{method} {params} was put to {marker}")
        return answer_of(marker, method)

    talk = await converse_tool(client, "interview", respond, meta=meta, marker=marker, together=together)
    told = talk.answer.final.get("result", {}).get("structuredContent", {})
    for kind in KINDS.values():
        ledger.look(marker, kind, told.get(kind, talk.answer.final))
    for params in talk.logged:
        ledger.look(marker, "log", params)
    if not talk.logged:
        ledger.missing.append(f"log of {marker}")
    if any(count > 1 for count in asked.values()):
        ledger.missing.append(f"{marker} was asked twice: {asked}")


async def interviews(served: Served, number: int, times: int, ledger: Ledger) -> None:
    """One client's interviews, one after the other."""
    client, meta = await asked_client(served, CLIENTS[number], "fix", log_level="debug")
    for turn in range(times):
        await interview(client, meta, f"mark-{number}-{turn}", ledger)


def asking_server(worker_era: str, **settings: Any) -> dict[str, Any]:
    """The interviewer as a policy entry; nobody's turn is cut short on a slow machine."""
    arguments = [str(FIXTURE.with_name("interviewer.py")), "--era", worker_era]
    timeouts = {"start": "20s", "call": "50s"}
    return {"command": "python3", "args": arguments, "timeouts": timeouts, "concurrency": 32, **settings}


@asynccontextmanager
async def asking(worker_era: str, **settings: Any):
    async with serving(make_policy({"fix": asking_server(worker_era, **settings)})) as served:
        yield served


async def everybody(served: Served, times: int) -> Ledger:
    """All clients' interviews, at once."""
    ledger = Ledger()
    async with anyio.create_task_group() as tasks:
        for number in range(len(CLIENTS)):
            tasks.start_soon(interviews, served, number, times, ledger)
    return ledger


async def test_every_answer_and_every_log_line_reaches_its_owner(worker_era: str) -> None:
    async with asking(worker_era) as served:
        ledger = await everybody(served, INTERVIEWS)
    assert ledger.foreign == []
    assert ledger.missing == []
    assert ledger.home == dict.fromkeys((*KINDS.values(), "log"), len(CLIENTS) * INTERVIEWS)
    assert ledger.total >= ITEMS


async def test_without_the_lease_they_do_not_and_still_nothing_reaches_a_wrong_owner(worker_era: str) -> None:
    """The server begins with none before all sixteen wait, so every log line but the last could be another's."""
    ledger = Ledger()
    async with asking(worker_era) as served:
        change(served, leases=0)
        clients = [await asked_client(served, era, "fix", log_level="debug") for era in CLIENTS]
        async with anyio.create_task_group() as tasks:
            for number, (client, meta) in enumerate(clients):
                tasks.start_soon(interview, client, meta, f"mark-{number}-0", ledger, len(CLIENTS))
    assert ledger.foreign == []
    assert ledger.home["log"] <= 1
    assert len(ledger.missing) >= len(CLIENTS) - 1
