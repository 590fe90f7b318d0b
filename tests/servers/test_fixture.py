"""The fixture server keeps to the specification, so that what the runtime's tests see is the runtime's doing."""

import json

import anyio
import mcp_types as types
import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")

# The era of the server, the mode of the client, and the revision they end up with.
PAIRS = [
    ("legacy", "legacy", "2025-11-25"),
    ("legacy", "auto", "2025-11-25"),
    ("silent", "legacy", "2025-11-25"),
    ("dual", "legacy", "2025-11-25"),
    ("dual", "auto", "2026-07-28"),
    ("dual", "2026-07-28", "2026-07-28"),
    ("modern", "auto", "2026-07-28"),
    ("modern", "2026-07-28", "2026-07-28"),
]
BOTH = [pair for pair in PAIRS if pair[:2] in (("legacy", "legacy"), ("modern", "2026-07-28"))]


def text_of(result) -> str:
    return result.content[0].text


@pytest.mark.parametrize(("era", "mode", "version"), PAIRS)
async def test_the_official_client_agrees_on_the_revision_and_calls_a_tool(
    fixture_server, era, mode, version
):
    async with Client(fixture_server("--era", era), mode=mode) as client:
        assert client.protocol_version == version
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert {"echo", "add", "sleep", "whoami"} <= set(names)
        result = await client.call_tool("echo", {"text": "hé\u2028\n"})
        assert text_of(result) == "hé\u2028\n"
        assert result.structured_content == {"text": "hé\u2028\n"}


async def test_the_official_client_gives_up_on_a_modern_server_in_legacy_mode(fixture_server):
    told = pytest.RaisesExc(MCPError, check=lambda error: error.error.data["supported"] == ["2026-07-28"])
    with pytest.RaisesGroup(told, flatten_subgroups=True):
        async with Client(fixture_server("--era", "modern"), mode="legacy"):
            pass


@pytest.mark.parametrize(("era", "mode", "version"), BOTH)
async def test_resources_are_listed_in_pages_and_read_as_text_bytes_and_template(
    fixture_server, era, mode, version
):
    async with Client(fixture_server("--era", era), mode=mode) as client:
        first = await client.list_resources()
        assert len(first.resources) == 2
        pages, cursor = [first], first.next_cursor
        while cursor:
            pages.append(await client.list_resources(cursor=cursor))
            cursor = pages[-1].next_cursor
        uris = [str(entry.uri) for page in pages for entry in page.resources]
        ours, theirs = [uri for uri in uris if uri.startswith("fixture:")], uris[6:]
        assert ours == [*(f"fixture://text/{number}" for number in range(1, 6)), "fixture://binary"]
        assert theirs == ["test://static-text", "test://static-binary", "test://watched-resource"]

        assert (await client.read_resource("fixture://text/3")).contents[0].text == "text 3"
        assert (await client.read_resource("fixture://binary")).contents[0].blob.startswith("AAECAw")
        templates = await client.list_resource_templates()
        assert templates.resource_templates[0].uri_template == "fixture://greeting/{name}"
        assert (await client.read_resource("fixture://greeting/Ada")).contents[0].text == "Hello, Ada"


@pytest.mark.parametrize(("era", "code"), [("legacy", -32002), ("modern", -32602)])
async def test_an_unknown_resource_has_the_code_of_its_era(fixture_server, era, code):
    mode = "legacy" if era == "legacy" else "2026-07-28"
    async with Client(fixture_server("--era", era), mode=mode) as client:
        with pytest.raises(MCPError) as raised:
            await client.read_resource("fixture://text/99")
    assert raised.value.error.code == code
    assert raised.value.error.data == {"uri": "fixture://text/99"}


@pytest.mark.parametrize(("era", "mode", "version"), BOTH)
async def test_prompts_and_completions_are_served(fixture_server, era, mode, version):
    async with Client(fixture_server("--era", era), mode=mode) as client:
        prompts = [prompt.name for prompt in (await client.list_prompts()).prompts]
        assert prompts[:2] == ["simple", "greet"]
        prompt = await client.get_prompt("greet", {"name": "Ada", "style": "terse"})
        assert prompt.messages[0].content.text == "Greet Ada in a terse style."
        with pytest.raises(MCPError):
            await client.get_prompt("greet", {})
        reference = types.PromptReference(name="greet")
        completed = await client.complete(reference, {"name": "style", "value": "f"})
        assert completed.completion.values == ["formal", "friendly"]


@pytest.mark.parametrize(("era", "mode", "version"), BOTH)
async def test_progress_is_reported_before_the_answer(fixture_server, era, mode, version):
    seen = []

    async def note(done, total, message):
        seen.append((done, total, message))

    async with Client(fixture_server("--era", era), mode=mode) as client:
        result = await client.call_tool("progress", {"count": 3}, progress_callback=note)
    assert text_of(result) == "3"
    assert seen == [(1, 3, "1 of 3"), (2, 3, "2 of 3"), (3, 3, "3 of 3")]


@pytest.mark.parametrize(("era", "mode", "version"), BOTH)
async def test_a_question_to_the_client_comes_back_with_its_answer(fixture_server, era, mode, version):
    async def answer(context, params):
        return types.ElicitResult(action="accept", content={"answer": f"to {params.message}"})

    async with Client(fixture_server("--era", era), mode=mode, elicitation_callback=answer) as client:
        result = await client.call_tool("ask", {"message": "who?"})
    assert json.loads(text_of(result)) == {"action": "accept", "content": {"answer": "to who?"}}


async def test_a_modern_server_refuses_to_ask_what_the_client_did_not_offer(wire, modern):
    async with wire("--era", "modern") as server:
        refused = await server.call("ask", meta=modern())
        assert refused["error"]["code"] == -32021
        assert refused["error"]["data"] == {"requiredCapabilities": {"elicitation": {}}}
        forced = await server.call("ask", {"force": True}, meta=modern())
        assert forced["result"]["resultType"] == "input_required"


async def test_a_legacy_server_asks_even_a_client_that_offered_nothing(wire):
    async with wire("--era", "legacy") as server:
        await server.initialize()
        asked = await server.post("tools/call", {"name": "ask", "arguments": {"message": "?"}})
        question = await server.receive()
        assert question["method"] == "elicitation/create"
        await server.send({"id": question["id"], "error": {"code": -32601, "message": "no"}})
        answer = await server.receive()
    assert answer["id"] == asked
    assert answer["result"]["structuredContent"] == {"error": {"code": -32601, "message": "no"}}


async def test_a_state_minted_by_another_process_is_refused(wire, modern):
    async with wire("--era", "modern") as server:
        params = {"name": "ask", "requestState": "made up", "_meta": modern({"elicitation": {}})}
        answer = await server.request("tools/call", params)
    assert answer["error"]["code"] == -32602


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_cancelled_sleep_is_never_answered_and_is_remembered(wire, modern, era):
    meta = modern() if era == "modern" else None
    async with wire("--era", era) as server:
        if era == "legacy":
            await server.initialize()
        asleep = await server.post(
            "tools/call", {"name": "sleep", "arguments": {"seconds": 600}} | ({"_meta": meta} if meta else {})
        )
        assert "result" in await server.call("echo", {"text": "meanwhile"}, meta)
        await server.send({"method": "notifications/cancelled", "params": {"requestId": asleep}})
        remembered = await server.call("cancelled", meta=meta)
    assert remembered["result"]["structuredContent"] == {"ids": [asleep], "stopped": ["sleep"]}


async def test_many_sleeps_at_once_take_no_longer_than_one_and_end_in_their_own_order(wire):
    async with wire("--era", "legacy") as server:
        await server.initialize()
        slow = await server.post("tools/call", {"name": "sleep", "arguments": {"seconds": 0.2}})
        quick = [
            await server.post("tools/call", {"name": "sleep", "arguments": {"seconds": 0}})
            for _ in range(200)
        ]
        answered = [(await server.receive())["id"] for _ in range(201)]
    assert answered == [*quick, slow]


async def test_the_last_message_is_shown_as_it_was_written(wire):
    async with wire("--era", "legacy") as server:
        await server.initialize()
        line = b'{ "jsonrpc":"2.0","id":"\\u0041", "method":"tools/call","params":{"name":"last_message"}}'
        await server.write(line)
        own = await server.receive()
        earlier = await server.call("last_message", {"back": 1})
        found = await server.call("last_message", {"contains": "initialized"})
    assert own["id"] == "A"
    assert own["result"]["content"][0]["text"].encode() == line
    assert earlier["result"]["content"][0]["text"].encode() == line
    assert json.loads(found["result"]["content"][0]["text"])["method"] == "notifications/initialized"


async def test_calls_are_counted_for_each_tool(wire):
    async with wire() as server:
        await server.initialize()
        for _ in range(3):
            await server.call("echo", {"text": ""})
        await server.call("add", {"a": 1})
        counted = await server.call("calls")
    assert counted["result"]["structuredContent"] == {"echo": 3, "calls": 1}


async def test_noise_comes_before_two_answers_to_one_call(wire):
    async with wire() as server:
        await server.initialize()
        asked = await server.post("tools/call", {"name": "noise", "arguments": {"text": "there"}})
        lines = [await server.read() for _ in range(16)]
    answers = [json.loads(line) for line in lines[-2:]]
    assert [answer["id"] for answer in answers] == [asked, asked]
    assert answers[0]["result"]["content"][0]["text"] == "there"
    assert b"" in lines
    assert any(b"\xff" in line for line in lines)


@pytest.mark.parametrize(("when", "answers"), [("before", 0), ("after", 1)])
async def test_a_crash_has_the_exit_code_asked_for(wire, when, answers):
    async with wire() as server:
        await server.initialize()
        await server.post("tools/call", {"name": "crash", "arguments": {"code": 7, "when": when}})
        for _ in range(answers):
            assert "result" in await server.receive()
        with pytest.raises((anyio.IncompleteRead, anyio.EndOfStream)):
            await server.read()
        assert await server.wait_exit() == 7


async def test_errors_of_the_protocol_and_of_a_tool_are_told_apart(wire):
    async with wire() as server:
        await server.initialize()
        refused = await server.call("error", {"code": 17, "message": "seventeen", "data": [1]})
        failed = await server.call("tool_error", {"message": "no luck"})
        unknown = await server.call("no_such_tool")
        wrong = await server.call("add", {"a": "1", "b": 2})
    assert refused["error"] == {"code": 17, "message": "seventeen", "data": [1]}
    assert failed["result"] == {"content": [{"type": "text", "text": "no luck"}], "isError": True}
    assert unknown["error"]["code"] == -32602
    assert wrong["result"]["isError"] is True


async def test_a_legacy_server_answers_discover_with_method_not_found(wire):
    async with wire("--era", "legacy") as server:
        assert (await server.request("server/discover", {}))["error"]["code"] == -32601
        assert "result" in await server.initialize()
        assert (await server.request("ping"))["result"] == {}


async def test_nothing_but_ping_is_served_before_the_client_says_it_is_initialized(wire):
    async with wire("--era", "legacy") as server:
        assert (await server.request("tools/list"))["error"]["code"] == -32600
        await server.initialize()
        told = await server.call("whoami")
    assert told["result"]["structuredContent"]["wire"] == {"refused": 1}


async def test_a_silent_server_says_nothing_before_initialize(wire, modern):
    async with wire("--era", "silent") as server:
        await server.post("server/discover", {"_meta": modern()})
        await server.post("ping")
        # The next line read is the answer to initialize, so nothing was said to the two before.
        assert "result" in await server.initialize()


async def test_a_dual_server_is_pinned_to_the_era_it_is_first_spoken_to_in(wire, modern):
    async with wire("--era", "dual") as server:
        found = await server.request("server/discover", {"_meta": modern()})
        assert "2026-07-28" in found["result"]["supportedVersions"]
        refused = await server.request("initialize", {"protocolVersion": "2025-11-25"})
        assert refused["error"]["code"] == -32022
        assert "2026-07-28" in refused["error"]["data"]["supported"]
    async with wire("--era", "dual") as server:
        await server.initialize()
        refused = await server.request("server/discover", {"_meta": modern()})
        assert refused["error"]["code"] == -32600


async def test_a_modern_request_without_its_metadata_or_in_another_revision_is_refused(wire, modern):
    async with wire("--era", "modern") as server:
        assert (await server.request("tools/list", {}))["error"]["code"] == -32602
        refused = await server.request("tools/list", {"_meta": modern(version="2030-01-01")})
        assert refused["error"]["code"] == -32022
        assert refused["error"]["data"] == {"supported": ["2026-07-28"], "requested": "2030-01-01"}
        for gone in ("ping", "logging/setLevel", "resources/subscribe"):
            assert (await server.request(gone, {"_meta": modern()}))["error"]["code"] == -32601


async def test_every_modern_result_says_its_type_and_its_server_and_lists_say_how_long_they_last(
    wire, modern
):
    async with wire("--era", "modern") as server:
        for method in (
            "server/discover",
            "tools/list",
            "prompts/list",
            "resources/list",
            "resources/templates/list",
        ):
            result = (await server.request(method, {"_meta": modern()}))["result"]
            assert result["resultType"] == "complete"
            assert (result["ttlMs"], result["cacheScope"]) == (0, "private")
            assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "fixture"
        called = await server.call("echo", {"text": ""}, modern())
        assert "ttlMs" not in called["result"]


async def test_a_modern_log_message_is_sent_only_to_a_request_that_asked_for_its_level(wire, modern):
    async with wire("--era", "modern") as server:
        assert (await server.call("log", {"level": "error"}, modern()))["result"]["content"][0]["text"] == "0"
        asked = tool_call("log", {"level": "error"}, modern(logLevel="warning"))
        await server.post("tools/call", asked)
        message = await server.receive()
        assert message["method"] == "notifications/message"
        assert message["params"] == {"level": "error", "logger": "fixture", "data": "logged"}
        assert (await server.receive())["result"]["content"][0]["text"] == "1"


def tool_call(name: str, arguments: dict, meta: dict) -> dict:
    return {"name": name, "arguments": arguments, "_meta": meta}


async def test_a_legacy_log_message_follows_the_level_set(wire):
    async with wire("--era", "legacy") as server:
        await server.initialize()
        assert (await server.request("logging/setLevel", {"level": "error"}))["result"] == {}
        assert (await server.call("log", {"level": "warning"}))["result"]["content"][0]["text"] == "0"
        assert (await server.request("logging/setLevel", {"level": "loud"}))["error"]["code"] == -32602


async def test_a_modern_listener_is_told_of_what_it_asked_for_under_its_own_id(wire, modern):
    async with wire("--era", "modern") as server:
        wanted = {
            "toolsListChanged": True,
            "weatherChanged": True,
            "resourceSubscriptions": ["fixture://text/1"],
        }
        listening = await server.post("subscriptions/listen", {"notifications": wanted, "_meta": modern()})
        acknowledged = await server.receive()
        honoured = {"toolsListChanged": True, "resourceSubscriptions": ["fixture://text/1"]}
        assert acknowledged["params"]["notifications"] == honoured
        await server.post("tools/call", tool_call("toggle_tool", {"name": "extra"}, modern()))
        changed, _ = await server.receive(), await server.receive()
        await server.post("tools/call", tool_call("touch_resource", {"uri": "fixture://text/1"}, modern()))
        updated, _ = await server.receive(), await server.receive()
        await server.send({"method": "notifications/cancelled", "params": {"requestId": listening}})
        quiet = await server.call("toggle_tool", {"name": "extra"}, modern())
    for message in (acknowledged, changed, updated):
        assert message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == listening
    assert changed["method"] == "notifications/tools/list_changed"
    assert updated["params"]["uri"] == "fixture://text/1"
    assert quiet["result"]["content"][0]["text"] == "[]"


async def test_a_legacy_subscriber_is_told_until_it_unsubscribes(wire):
    async with wire("--era", "legacy") as server:
        await server.initialize()
        await server.request("resources/subscribe", {"uri": "fixture://text/1"})
        await server.post("tools/call", {"name": "touch_resource", "arguments": {"uri": "fixture://text/1"}})
        assert (await server.receive())["method"] == "notifications/resources/updated"
        await server.receive()
        await server.request("resources/unsubscribe", {"uri": "fixture://text/1"})
        assert "result" in await server.call("touch_resource", {"uri": "fixture://text/1"})


async def test_state_stays_in_the_process(wire):
    async with wire() as server, wire() as other:
        await server.initialize()
        await other.initialize()
        await server.call("state_set", {"key": "k", "value": "v"})
        assert (await server.call("state_get", {"key": "k"}))["result"]["structuredContent"]["value"] == "v"
        assert (await other.call("state_get", {"key": "k"}))["result"]["isError"] is True


async def test_files_are_written_and_read(wire, tmp_path):
    path = str(tmp_path / "note")
    async with wire() as server:
        await server.initialize()
        assert "isError" not in (await server.call("write_file", {"path": path, "text": "kept"}))["result"]
        assert (await server.call("read_file", {"path": path}))["result"]["content"][0]["text"] == "kept"
        assert (await server.call("read_file", {"path": path + "s"}))["result"]["isError"] is True


async def test_a_big_result_has_the_size_asked_for(wire):
    async with wire() as server:
        await server.initialize()
        result = (await server.call("big", {"bytes": 8 << 20}))["result"]
    assert len(result["content"][0]["text"]) == 8 << 20


async def test_options_for_starting_badly_do_what_they_say(wire):
    async with wire("--fail-start") as server:
        assert await server.wait_exit() == 3
    async with wire("--exit-after", "2") as server:
        await server.initialize()
        await server.call("echo", {"text": ""})
        await server.call("echo", {"text": ""})
        assert await server.wait_exit() == 0
    async with wire("--no-tools") as server:
        assert "tools" not in (await server.initialize())["result"]["capabilities"]
        assert (await server.request("tools/list"))["error"]["code"] == -32601


async def test_what_is_not_a_message_is_refused_and_counted(wire):
    async with wire("--era", "legacy") as server:
        await server.initialize()
        await server.write(b"{")
        assert (await server.receive())["error"]["code"] == -32700
        await server.write(b"[]")
        assert (await server.receive())["error"]["code"] == -32600
        told = await server.call("whoami")
    assert told["result"]["structuredContent"]["wire"] == {"unparsable": 1, "invalid": 1}


async def test_the_server_ends_when_its_input_ends(wire):
    async with wire() as server:
        await server.process.stdin.aclose()
        assert await server.wait_exit() == 0
