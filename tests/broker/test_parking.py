"""Calls that wait for their client while no request of it is open: found again once, bounded, and freed in time."""

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from answering import asked_client, converse_tool
from harness import (
    Answer,
    ModernClient,
    Served,
    fixture_server,
    make_policy,
    serving,
    tenant_entry,
    until,
)
from workers_seen import gauge

pytestmark = pytest.mark.kernel

SECONDS = 20
INSISTENT = Path(__file__).parent.parent / "servers" / "insistent.py"
YES = {"action": "accept", "content": {"answer": "yes"}}


def policy(
    *, tenant: dict[str, Any] | None = None, limits: dict[str, Any] | None = None, **server: Any
) -> dict[str, Any]:
    entry = tenant_entry("acme", **({"limits": tenant} if tenant else {}))
    servers = {
        "fix": fixture_server("--era", "legacy", **server),
        "odd": {"command": "python3", "args": [str(INSISTENT)]},
    }
    return make_policy(servers, {"acme": entry}, runtime={"limits": limits or {}})


def under_way(served: Served) -> int:
    """Places that the tenant's calls hold."""
    return served.runtime._broker._tenants["acme"].gate.under_way


def parked(served: Served) -> int:
    return len(served.runtime._broker._calls._parking)


class Asked:
    """A call that was answered with questions."""

    def __init__(self, client: ModernClient, meta: dict[str, Any], params: dict[str, Any]) -> None:
        self.client = client
        self.meta = meta
        self.params = params
        self.result: dict[str, Any] = {}

    @classmethod
    async def begin(cls, served: Served, server: str, tool: str, **arguments: Any) -> "Asked":
        client, meta = await asked_client(served, "modern", server)
        asked = cls(client, meta, {"name": tool, "arguments": arguments})
        await asked.again()
        return asked

    async def again(self, **more: Any) -> Answer:
        """The request once more, with what `more` says; questions in the answer take the place of those before."""
        answer = await self.client.request("tools/call", {**self.params, **more}, **self.meta)
        if answer.final.get("result", {}).get("resultType") == "input_required":
            self.result = answer.result
        return answer

    async def retry(self, *keys: str, **more: Any) -> Answer:
        """The request again, with answers to these questions: to all of them if none is named."""
        responses = dict.fromkeys(keys or self.result["inputRequests"], YES)
        state = self.result["requestState"]
        return await self.again(**({"inputResponses": responses, "requestState": state} | more))


async def test_a_state_is_good_for_once() -> None:
    async with serving(policy()) as served:
        asked = await Asked.begin(served, "fix", "ask", message="?")
        retry = {"inputResponses": dict.fromkeys(asked.result["inputRequests"], YES)}
        state = asked.result["requestState"]
        assert (await asked.again(**retry, requestState=state)).result["structuredContent"] == YES
        second = await asked.again(**retry, requestState=state)
        assert (second.status, second.error["code"]) == (400, -32602)


async def test_what_was_not_answered_is_asked_again_under_the_same_key() -> None:
    async with serving(policy()) as served:
        asked = await Asked.begin(served, "fix", "ask_all", caller="me")
        first = asked.result
        form, *others = first["inputRequests"]
        assert (await asked.retry(form)).result["resultType"] == "input_required"
        assert asked.result["requestState"] != first["requestState"]
        assert asked.result["inputRequests"] == {key: first["inputRequests"][key] for key in others}

        nothing = await asked.again(requestState=asked.result["requestState"])
        assert set(nothing.result["inputRequests"]) == set(others)
        odd = await asked.retry(inputResponses={others[0]: 5, "made up": YES, form: YES})
        assert set(odd.result["inputRequests"]) == set(others)
        done = await asked.retry()
        assert done.result["structuredContent"]["rounds"][0]["form"] == YES


async def test_answers_that_are_no_object_are_refused_and_cost_nothing() -> None:
    async with serving(policy()) as served:
        asked = await Asked.begin(served, "fix", "ask", message="?")
        for wrong in (5, [], None, "x"):
            answer = await asked.retry(inputResponses=wrong)
            assert (answer.status, answer.error["code"]) == (400, -32602)
        assert (await asked.retry()).result["structuredContent"] == YES


async def test_a_later_round_is_not_asked_for_what_it_does_not_declare() -> None:
    async with serving(policy()) as served:
        asked = await Asked.begin(served, "fix", "ask_all", caller="me", rounds=2)
        asked.meta = (await asked_client(served, "modern", "fix", capabilities={"elicitation": {}}))[1]
        answer = await asked.retry()
        assert (answer.status, answer.error["code"]) == (400, -32021)
        assert answer.error["data"]["requiredCapabilities"].keys() == {"sampling", "roots"}
        await until(lambda: not under_way(served), "the call is over")


async def test_a_parked_call_keeps_its_place_and_its_return_needs_no_other() -> None:
    limits = {"rate": "1000/s", "burst": 1000, "concurrency": 1}
    async with serving(policy(tenant=limits)) as served:
        asked = await Asked.begin(served, "fix", "ask", message="?")
        refused = await asked.again()
        assert (refused.status, refused.error["code"]) == (503, 503)
        assert (await asked.retry()).result["structuredContent"] == YES
        assert under_way(served) == 0
        assert (await asked.again()).result["resultType"] == "input_required"


async def test_a_return_that_comes_too_fast_finds_its_call_later() -> None:
    limits = {"rate": "1/min", "burst": 1, "concurrency": 9}
    async with serving(policy(tenant=limits)) as served:
        asked = await Asked.begin(served, "fix", "ask", message="?")
        refused = await asked.retry()
        assert (refused.status, parked(served)) == (429, 1)
        served.runtime._broker._tenants["acme"].gate._limiter = None  # a minute later
        assert (await asked.retry()).result["structuredContent"] == YES


async def test_nobody_can_have_more_parked_calls_than_the_policy_allows() -> None:
    async with serving(policy(limits={"parked": 2}, leases=4)) as served:
        first = await Asked.begin(served, "fix", "ask", message="1")
        await Asked.begin(served, "fix", "ask", message="2")
        refused = await first.again()
        assert (refused.status, refused.error["data"]["reason"]) == (503, "overloaded")
        assert refused.headers["retry-after"]
        await until(lambda: under_way(served) == 2, "the call that was refused is over")
        assert (await first.retry()).result["structuredContent"] == YES
        assert (await first.again()).result["resultType"] == "input_required"


async def test_a_client_that_does_not_come_back_frees_everything() -> None:
    async with serving(policy(limits={"answerTime": "300ms"}, leases=1)) as served:
        asked = await Asked.begin(served, "fix", "ask", message="?")
        assert (under_way(served), parked(served), gauge(served, "mcphost_parked_calls{")) == (1, 1, 1)
        await until(lambda: not under_way(served) and not parked(served), "the call is given up")
        assert gauge(served, "mcphost_parked_calls{") == 0
        answer = await asked.retry()
        assert (answer.status, answer.error["code"]) == (400, -32602)
        assert (await asked.again()).result["resultType"] == "input_required", "its process is free"


ONE_PROCESS = [{"leases": 1}, {"leases": 1, "scope": "call"}, {"scope": "session"}]


@pytest.mark.parametrize("server", ONE_PROCESS, ids=lambda server: server.get("scope", "tenant"))
async def test_a_call_that_nobody_came_back_to_gives_way_to_one_that_waits(server: dict[str, Any]) -> None:
    async with serving(policy(**server)) as served:
        served.runtime._broker._calls._parking.away_seconds = (
            0.1  # seconds, for a person; here nobody is in a hurry
        )
        abandoned = await Asked.begin(served, "fix", "ask", message="1")
        later = await Asked.begin(served, "fix", "ask", message="2")
        gone = await abandoned.retry()
        assert (gone.status, gone.error["code"]) == (400, -32602)
        assert (await later.retry()).result["structuredContent"] == YES
        assert under_way(served) == 0


async def test_a_client_that_comes_back_without_answers_gives_way_all_the_same() -> None:
    async with serving(policy(leases=1)) as served:
        served.runtime._broker._calls._parking.away_seconds = 0.3  # longer than it stays away each time
        asked = await Asked.begin(served, "fix", "ask", message="1")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(Asked.begin, served, "fix", "ask", message="2"))
            with anyio.fail_after(SECONDS):
                while (answer := await asked.retry(inputResponses={})).status == 200:
                    pass
        assert (answer.status, answer.error["code"]) == (400, -32602)


async def test_a_client_has_its_time_for_an_answer_once_however_often_it_comes_back() -> None:
    async with serving(policy(limits={"answerTime": "1s"})) as served:
        asked = await Asked.begin(served, "fix", "ask", message="?")
        with anyio.fail_after(SECONDS):
            while (answer := await asked.retry(inputResponses={})).status == 200:
                pass
        assert (answer.status, answer.error["code"]) == (400, -32602)
        assert (under_way(served), parked(served)) == (0, 0)


async def test_a_client_that_is_away_for_a_moment_only_is_waited_for() -> None:
    async with serving(policy(leases=1, timeouts={"call": "1s"})) as served:
        asked = await Asked.begin(served, "fix", "ask", message="1")
        refused = await asked.again()
        assert refused.error["data"]["reason"] == "timeout"
        assert (await asked.retry()).result["structuredContent"] == YES


async def test_the_servers_time_does_not_pass_while_the_client_is_waited_for() -> None:
    timeouts = {"call": "1s"}
    async with serving(policy(timeouts=timeouts)) as served:
        asked = await Asked.begin(served, "fix", "ask", message="?")
        slow = await served.modern("fix").call("sleep", seconds=60)
        assert slow.error["data"]["reason"] == "timeout", "as long as a call may take has passed"
        assert (await asked.retry()).result["structuredContent"] == YES


async def test_a_worker_that_dies_meanwhile_is_told_of_when_the_client_comes_back() -> None:
    async with serving(policy()) as served:
        asked = await Asked.begin(served, "fix", "ask", message="?")
        for each in served.worker_set("fix").leases.shown():
            os.kill(each["pid"], signal.SIGKILL)
        await until(lambda: not under_way(served), "the call is over")
        answer = await asked.retry()
        assert answer.error["data"]["reason"] == "worker-died"
        assert under_way(served) == 0


async def test_a_server_that_answers_without_waiting_is_heard_when_the_client_comes_back() -> None:
    async with serving(policy()) as served:
        asked = await Asked.begin(served, "odd", "insist", how="withdraw")
        await until(lambda: not under_way(served), "the server has answered")
        assert parked(served) == 1
        assert (await asked.retry()).text == "without an answer"
        assert parked(served) == 0


async def test_progress_goes_to_the_round_that_is_open_and_to_none_between() -> None:
    async with serving(policy()) as served:
        client, meta = await asked_client(served, "modern", "odd")
        asked = Asked(
            client, meta | {"progressToken": "first"}, {"name": "insist", "arguments": {"how": "report"}}
        )
        first = await asked.again()
        told = [note["params"] for note in first.messages[:-1]]
        assert [(each["progress"], each["progressToken"]) for each in told] == [(1, "first"), (2, "first")]
        asked.meta = meta | {"progressToken": "second"}
        last = await asked.retry()
        told = [note["params"] for note in last.messages[:-1]]
        assert [(each["progress"], each["progressToken"]) for each in told] == [(3, "second")]


async def test_a_server_that_asks_more_than_anybody_answers_is_refused_the_rest() -> None:
    async with serving(policy()) as served:
        client, meta = await asked_client(served, "modern", "odd")
        talk = await converse_tool(client, "insist", lambda *_: YES, meta=meta, how="many")
        assert len(talk.asked) == 32
        assert talk.answer.text == "8 of 40 refused"


async def test_parked_calls_end_with_the_runtime() -> None:
    async with serving(policy()) as served:
        await Asked.begin(served, "fix", "ask", message="?")
        calls = served.runtime._broker._calls
    assert len(calls._parking) == 0
