"""What servers ask in the middle of a call reaches its client, and the answers reach the server, between any two eras."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from answering import CAPABILITIES, LOG_LEVEL, Refused, asked_client, converse, converse_tool
from harness import Served, fixture_server, make_policy, serving, tenant_entry, until

pytestmark = pytest.mark.kernel

FORM_ONLY = {"elicitation": {}}


@pytest.fixture(params=["legacy", "modern"])
def worker_era(request: pytest.FixtureRequest) -> str:
    return request.param


def respond(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Answers that name the question."""
    if method == "elicitation/create":
        return {"action": "accept", "content": {"answer": params["message"]}}
    if method == "sampling/createMessage":
        said = params["messages"][0]["content"]["text"]
        return {"role": "assistant", "content": {"type": "text", "text": said}, "model": "m"}
    return {"roots": [{"uri": "file:///root"}]}


def never(method: str, params: dict[str, Any]) -> dict[str, Any]:
    raise AssertionError(f"asked for {method} {params}")


def serving_fixture(worker_era: str, **settings: Any) -> Any:
    return serving(make_policy({"fix": fixture_server("--era", worker_era, **settings)}))


async def test_each_kind_of_question_is_answered_wherever_it_is_asked(
    client_era: str, worker_era: str
) -> None:
    async with serving_fixture(worker_era) as served:
        client, meta = await asked_client(served, client_era, "fix")
        for kind, said in (
            ("elicitation", {"action": "accept", "content": {"answer": "héllo"}}),
            ("url", {"action": "accept", "content": {"answer": "héllo"}}),
            ("sampling", {"role": "assistant", "content": {"type": "text", "text": "héllo"}, "model": "m"}),
            ("roots", {"roots": [{"uri": "file:///root"}]}),
        ):
            talk = await converse_tool(client, "ask", respond, meta=meta, message="héllo", kind=kind)
            assert talk.answer.result["structuredContent"] == said
            assert len(talk.asked) == 1
            asked = talk.asked[0][1]
            assert ("elicitationId" in asked) is (client_era == "legacy" and kind == "url")

        talk = await converse_tool(client, "ask_all", respond, meta=meta, caller="me", rounds=2)
        rounds = talk.answer.result["structuredContent"]["rounds"]
        assert [each["form"]["content"]["answer"] for each in rounds] == ["me/0", "me/1"]
        assert [each["thought"]["content"]["text"] for each in rounds] == ["me/0", "me/1"]
        assert len(talk.asked) == 6
        if client_era == "modern":
            assert talk.rounds == 3, "what is asked at once is shown at once"

        read = await converse(client, "resources/read", {"uri": "fixture://guarded"}, respond, **meta)
        assert read.asked
        assert read.answer.result["contents"]
        prompt = {"name": "test_input_required_result_prompt"}
        got = await converse(client, "prompts/get", prompt, respond, **meta)
        assert got.asked
        assert got.answer.result["messages"]


async def test_a_client_that_declines_is_heard_by_the_server(client_era: str, worker_era: str) -> None:
    async with serving_fixture(worker_era) as served:
        client, meta = await asked_client(served, client_era, "fix")
        talk = await converse_tool(client, "ask", lambda *_: {"action": "decline"}, meta=meta, message="?")
        assert talk.answer.result["structuredContent"] == {"action": "decline"}


async def test_a_legacy_clients_error_goes_to_a_server_that_waits_for_it_and_else_ends_the_call(
    worker_era: str,
) -> None:
    def refuse(*_: object) -> dict[str, Any]:
        raise Refused(-1, "the user says no")

    async with serving_fixture(worker_era) as served:
        client, _ = await asked_client(served, "legacy", "fix")
        talk = await converse_tool(client, "ask", refuse, message="?")
        told = {"code": -1, "message": "the user says no"}
        if worker_era == "legacy":
            assert talk.answer.result["structuredContent"]["error"] == told
        else:
            assert (talk.answer.status, talk.answer.error) == (200, told)


async def test_nobody_is_asked_for_what_was_not_declared(client_era: str, worker_era: str) -> None:
    async with serving_fixture(worker_era) as served:
        client, meta = await asked_client(served, client_era, "fix", capabilities=FORM_ONLY)
        for kind, required in (("sampling", {"sampling": {}}), ("url", {"elicitation": {"url": {}}})):
            talk = await converse_tool(client, "ask", never, meta=meta, message="?", kind=kind, force=True)
            if client_era == "modern":
                assert (talk.answer.status, talk.answer.error["code"]) == (400, -32021)
                assert talk.answer.error["data"] == {"requiredCapabilities": required}
            elif worker_era == "modern":
                assert (talk.answer.status, talk.answer.error["code"]) == (200, -32603)
            else:
                assert talk.answer.result["structuredContent"]["error"]["code"] == -32601
        talk = await converse_tool(client, "ask", respond, meta=meta, message="form")
        assert talk.asked, "the process is of use afterwards"


async def test_a_page_that_a_legacy_server_wants_visited_is_a_question_to_a_modern_client() -> None:
    async with serving_fixture("legacy") as served:
        modern, meta = await asked_client(served, "modern", "fix")
        talk = await converse_tool(modern, "need_url", respond_with_consent, meta=meta, id="a")
        assert [method for method, _ in talk.asked] == ["elicitation/create"]
        assert talk.asked[0][1].keys() == {"mode", "url", "message"}
        assert talk.answer.text == "visited"

        modern, meta = await asked_client(served, "modern", "fix", capabilities=FORM_ONLY)
        refused = (await converse_tool(modern, "need_url", never, meta=meta, id="b")).answer
        assert (refused.status, refused.error["code"]) == (400, -32021)
        assert refused.error["data"] == {"requiredCapabilities": {"elicitation": {"url": {}}}}

        legacy, _ = await asked_client(served, "legacy", "fix")
        told = (await converse_tool(legacy, "need_url", never, id="c")).answer
        assert told.error["code"] == -32042
        assert told.error["data"]["elicitations"][0]["elicitationId"] == "c"


def respond_with_consent(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"action": "accept"}


async def test_a_server_that_never_has_enough_is_left_by_a_legacy_client_after_ten_rounds() -> None:
    async with serving_fixture("modern") as served:
        client, _ = await asked_client(served, "legacy", "fix")
        talk = await converse_tool(client, "ask_all", respond, caller="me", rounds=11)
        assert talk.answer.error["code"] == -32603
        assert "more than 10 times" in talk.answer.error["message"]
        assert len(talk.asked) == 30


async def test_a_modern_server_is_told_of_its_client_what_the_client_said_and_not_more(
    client_era: str,
) -> None:
    async with serving_fixture("modern") as served:
        capabilities = {"elicitation": {"form": {}}, "extensions": {"example.org/x": {}}, "roots": {"own": 1}}
        client, meta = await asked_client(
            served, client_era, "fix", capabilities=capabilities, log_level="notice"
        )
        meta["traceparent"] = "00-01-02-01"
        params = {"name": "last_message", "arguments": {}}
        answer = await client.request("tools/call", params, **meta)
        told = json.loads(answer.text)["params"]["_meta"]
        prefix = "io.modelcontextprotocol/"
        expected = capabilities if client_era == "modern" else {"elicitation": {"form": {}}, "roots": {}}
        assert told[prefix + "clientCapabilities"] == expected
        assert told[prefix + "clientInfo"] == {"name": "tests", "version": "1"}
        assert told[prefix + "logLevel"] == "notice"
        assert told["traceparent"] == "00-01-02-01"


async def test_progress_grows_over_all_rounds_of_a_call() -> None:
    """A modern server begins to count anew with each round; its legacy client knows of one call only."""
    async with serving_fixture("modern") as served:
        client, _ = await asked_client(served, "legacy", "fix")
        talk = await converse_tool(
            client, "ask_in_steps", respond, meta={"progressToken": "t"}, rounds=2, steps=3
        )
        done = [note["params"]["progress"] for note in talk.notifications]
        assert done == sorted(set(done))
        assert talk.answer.result["content"]
        assert len(talk.asked) == 2


async def test_what_completes_arguments_hears_nothing_and_is_not_asked(
    client_era: str, worker_era: str
) -> None:
    async with serving_fixture(worker_era) as served:
        client, meta = await asked_client(served, client_era, "fix", log_level="debug")
        params = {
            "ref": {"type": "ref/prompt", "name": "greet"},
            "argument": {"name": "style", "value": "f"},
        }
        talk = await converse(client, "completion/complete", params, never, **meta)
        assert talk.answer.result["completion"]["values"] == ["formal", "friendly"]


# --- states -----------------------------------------------------------------------------------------------


async def first_round(
    served: Served, **arguments: Any
) -> tuple[Any, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A modern client, its meta, the params of a call that was answered with a question, and that answer's result."""
    client, meta = await asked_client(served, "modern", "fix")
    params = {"name": "ask", "arguments": {"message": "?"} | arguments}
    answer = await client.request("tools/call", params, **meta)
    assert answer.result["resultType"] == "input_required"
    return client, meta, params, answer.result


def answered(params: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    keys = result["inputRequests"]
    responses = {key: {"action": "accept", "content": {"answer": "yes"}} for key in keys}
    return {**params, "inputResponses": responses, "requestState": result["requestState"]}


OTHERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "changed": lambda retry: {**retry, "requestState": retry["requestState"] + "A"},
    "of another kind": lambda retry: {**retry, "requestState": 5},
    "for other arguments": lambda retry: {**retry, "arguments": {"message": "!"}},
    "for another tool": lambda retry: {**retry, "name": "echo", "arguments": {"text": "x"}},
}


async def test_a_state_is_good_for_the_request_it_was_given_to_and_nothing_else(worker_era: str) -> None:
    tenants = {"acme": tenant_entry("acme"), "other": tenant_entry("other")}
    policy = make_policy({"fix": fixture_server("--era", worker_era)}, tenants)
    async with serving(policy) as served:
        client, meta, params, result = await first_round(served)
        retry = answered(params, result)
        for what, change in OTHERS.items():
            refused = await client.request("tools/call", change(retry), **meta)
            assert (refused.status, refused.error["code"]) == (400, -32602), what
        stranger = served.modern("fix", "other")
        assert (await stranger.request("tools/call", retry, **meta)).error["code"] == -32602
        everything = served.modern(None)
        named = {**retry, "name": "fix__ask"}
        assert (await everything.request("tools/call", named, **meta)).error["code"] == -32602
        read = {"uri": "fixture://guarded", "requestState": retry["requestState"]}
        assert (await client.request("resources/read", read, **meta)).error["code"] == -32602

        done = await client.request("tools/call", retry, **meta)
        assert done.result["structuredContent"]["content"] == {"answer": "yes"}


async def test_a_servers_state_is_of_no_use_once_its_process_is_gone() -> None:
    async with serving_fixture("modern") as served:
        client, meta, params, result = await first_round(served)
        worker_set = served.worker_set("fix")
        before = worker_set.worker
        await client.request("tools/call", {"name": "crash", "arguments": {}})
        await until(lambda: worker_set.worker not in {None, before}, "another worker is there")
        answer = await client.request("tools/call", answered(params, result), **meta)
        assert (answer.status, answer.error["code"]) == (400, -32602)


async def test_a_state_that_a_server_did_not_give_is_not_made_up_and_answers_come_without_one() -> None:
    async with serving_fixture("modern") as served:
        client, meta = await asked_client(served, "modern", "fix")
        params = {"name": "test_input_required_result_elicitation", "arguments": {}}
        result = (await client.request("tools/call", params, **meta)).result
        assert "requestState" not in result
        given = {"user_name": {"action": "accept", "content": {"name": "Ada"}}}
        done = await client.request("tools/call", params | {"inputResponses": given}, **meta)
        assert "Ada" in done.text


async def test_answers_without_a_state_mean_nothing_to_a_call_that_waits_for_its_own() -> None:
    async with serving_fixture("legacy") as served:
        client, meta, params, result = await first_round(served)
        retry = answered(params, result)
        del retry["requestState"]
        assert (await client.request("tools/call", retry, **meta)).result["resultType"] == "input_required"


# --- log messages -----------------------------------------------------------------------------------------


async def test_log_messages_reach_a_client_that_asked_for_their_level(
    client_era: str, worker_era: str
) -> None:
    async with serving_fixture(worker_era) as served:
        client, meta = await asked_client(served, client_era, "fix", log_level="warning")
        for level, reaches in (("notice", False), ("warning", True), ("critical", True)):
            talk = await converse_tool(client, "log_lines", never, meta=meta, tag="t", level=level, count=2)
            expected = [{"level": level, "logger": "fixture", "data": f"t:{number}"} for number in range(2)]
            assert talk.logged == (expected if reaches else [])
        quiet, meta = await asked_client(served, client_era, "fix")
        talk = await converse_tool(quiet, "log_lines", never, meta=meta, tag="t", level="emergency")
        assert talk.logged == []


async def test_a_level_that_is_none_is_refused(client_era: str) -> None:
    async with serving_fixture("modern") as served:
        client, meta = await asked_client(served, client_era, "fix")
        if client_era == "modern":
            for level in ("loud", 5, None):
                meta = {CAPABILITIES: {}, LOG_LEVEL: level}
                answer = await client.request("tools/list", **meta)
                assert (answer.status, answer.error["code"]) == (400, -32602)
            answer = await client.request("logging/setLevel", {"level": "info"})
            assert (answer.status, answer.error["code"]) == (404, -32601)
            return
        for params in ({"level": "loud"}, {"level": 5}, {}):
            answer = await client.request("logging/setLevel", params)
            assert (answer.status, answer.error["code"]) == (200, -32602)
        assert (await client.request("logging/setLevel", {"level": "info"})).result == {}
