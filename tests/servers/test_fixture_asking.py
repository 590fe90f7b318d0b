"""What the fixture server asks, logs, announces and does later is the same thing in either era."""

import pytest

TASKS = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
EVERYTHING = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
ACCEPTED = {"action": "accept", "content": {"answer": "yes"}}


def tool_params(name: str, arguments: dict | None = None, meta: dict | None = None, **more: object) -> dict:
    return {"name": name, "arguments": arguments or {}, **({"_meta": meta} if meta else {}), **more}


def answer_to(question: dict) -> dict:
    return {
        "elicitation/create": ACCEPTED,
        "sampling/createMessage": {
            "role": "assistant",
            "content": {"type": "text", "text": "!"},
            "model": "m",
        },
        "roots/list": {"roots": [{"uri": "file:///r"}]},
    }[question["method"]]


async def test_questions_of_one_legacy_call_are_asked_at_once_and_answered_in_any_order(wire):
    async with wire("--era", "legacy") as server:
        await server.initialize(EVERYTHING)
        asked = await server.post("tools/call", tool_params("ask_all", {"caller": "me"}))
        logged = await server.receive()
        questions = [await server.receive() for _ in range(3)]
        for question in reversed(questions):
            await server.send({"id": question["id"], "result": answer_to(question)})
        answer = await server.receive()
    assert logged["params"]["data"] == "me/0"
    assert [question["params"].get("message") for question in questions] == ["me/0", None, None]
    assert answer["id"] == asked
    (round_,) = answer["result"]["structuredContent"]["rounds"]
    assert round_["form"] == ACCEPTED
    assert set(round_) == {"form", "thought", "roots"}


async def test_a_modern_call_is_asked_round_by_round_with_states_of_its_own(wire, modern):
    meta = modern(EVERYTHING)
    async with wire("--era", "modern") as server:
        arguments, states, more = {"caller": "me", "rounds": 2}, set(), {}
        for _ in range(2):
            asked = await server.request("tools/call", tool_params("ask_all", arguments, meta, **more))
            result = asked["result"]
            assert result["resultType"] == "input_required"
            states.add(result["requestState"])
            responses = {key: answer_to(question) for key, question in result["inputRequests"].items()}
            more = {"requestState": result["requestState"], "inputResponses": responses}
        answer = await server.request("tools/call", tool_params("ask_all", arguments, meta, **more))
        other = await server.request("tools/call", tool_params("ask", {}, meta, **more))
    assert len(states) == 2
    assert len(answer["result"]["structuredContent"]["rounds"]) == 2
    assert other["error"]["code"] == -32602


@pytest.mark.parametrize("given", [None, {}, {"user_name": 1}, {"other": ACCEPTED}])
async def test_what_is_no_answer_is_asked_for_again(wire, modern, given):
    async with wire("--era", "modern") as server:
        params = tool_params(
            "test_input_required_result_elicitation", {}, modern(EVERYTHING), inputResponses=given
        )
        result = (await server.request("tools/call", params))["result"]
    assert set(result["inputRequests"]) == {"user_name"}
    assert "requestState" not in result


async def test_a_cancelled_call_may_still_ask_and_nobody_hears_its_answer(wire):
    async with wire("--era", "legacy") as server:
        await server.initialize()
        meta = {"progressToken": 1}
        asked = await server.post("tools/call", tool_params("ask_when_cancelled", {"message": "late"}, meta))
        assert (await server.receive())["method"] == "notifications/progress"
        await server.send({"method": "notifications/cancelled", "params": {"requestId": asked}})
        assert (await server.receive())["method"] == "notifications/message"
        question = await server.receive()
        await server.send({"id": question["id"], "result": ACCEPTED})
        kept = await server.call("state_get", {"key": "late:late"})
    assert "accept" in kept["result"]["content"][0]["text"]


async def test_a_legacy_request_that_needs_a_page_visited_fails_until_it_was(wire, modern):
    async with wire("--era", "legacy") as server:
        await server.initialize(EVERYTHING)
        refused = await server.call("need_url", {"id": "seven"})
        again = await server.call("need_url", {"id": "seven"})
    assert refused["error"]["code"] == -32042
    (wanted,) = refused["error"]["data"]["elicitations"]
    assert (wanted["mode"], wanted["elicitationId"]) == ("url", "seven")
    assert again["result"]["content"][0]["text"] == "visited"
    async with wire("--era", "modern") as server:
        asked = await server.call("need_url", {"id": "seven"}, modern(EVERYTHING))
    assert asked["result"]["inputRequests"]["visit"]["params"] == {
        "mode": "url", "message": wanted["message"], "url": wanted["url"]
    }  # fmt: skip


async def test_lines_of_a_log_carry_the_tag_of_their_call(wire, modern):
    async with wire("--era", "modern") as server:
        meta = modern(logLevel="info")
        await server.post("tools/call", tool_params("log_lines", {"tag": "me", "count": 3}, meta))
        lines = [(await server.receive())["params"]["data"] for _ in range(3)]
        answer = await server.receive()
    assert lines == ["me:0", "me:1", "me:2"]
    assert answer["result"]["content"][0]["text"] == "3"


async def test_a_task_waits_for_each_of_its_answers_and_tells_its_listener(wire, modern):
    meta = modern(EVERYTHING | TASKS)
    async with wire("--era", "modern") as server:
        made = (await server.call("multi_input", meta=meta))["result"]
        assert (made["resultType"], made["status"]) == ("task", "working")
        named = {"taskId": made["taskId"], "_meta": meta}
        await server.post(
            "subscriptions/listen", {"notifications": {"taskIds": [made["taskId"]]}, "_meta": meta}
        )
        assert (await server.receive())["params"]["notifications"] == {"taskIds": [made["taskId"]]}
        asked = (await server.request("tasks/get", named))["result"]
        first, second = asked["inputRequests"]
        await server.request("tasks/update", named | {"inputResponses": {first: ACCEPTED}})
        rest = (await server.request("tasks/get", named))["result"]["inputRequests"]
        await server.post("tasks/update", named | {"inputResponses": {second: ACCEPTED}})
        messages = [await server.receive() for _ in range(3)]
        told = [message["params"]["status"] for message in messages if "method" in message]
        done = (await server.request("tasks/get", named))["result"]
        undeclared = await server.request("tasks/get", {"taskId": made["taskId"], "_meta": modern()})
    assert set(rest) == {second}
    assert (told, done["status"]) == (["working", "completed"], "completed")
    assert undeclared["error"]["data"] == {"requiredCapabilities": TASKS}


async def test_tools_that_can_be_tasks_run_at_once_for_a_client_without_them(wire, modern):
    async with wire("--era", "modern") as server:
        inline = await server.call("slow_compute", {"seconds": 0}, modern())
        needed = await server.call("failing_job", meta=modern())
    assert inline["result"]["resultType"] == "complete"
    assert needed["error"]["data"] == {"requiredCapabilities": TASKS}
    async with wire("--era", "legacy") as server:
        await server.initialize()
        assert (await server.call("failing_job"))["result"]["isError"] is True


async def test_a_listener_that_is_ended_is_answered(wire, modern):
    async with wire("--era", "modern") as server:
        wanted = {"notifications": {"promptsListChanged": True}, "_meta": modern()}
        listening = await server.post("subscriptions/listen", wanted)
        await server.receive()
        await server.post("tools/call", tool_params("stop_listening", {}, modern()))
        ended = await server.receive()
    assert ended["id"] == listening
    assert ended["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == listening
