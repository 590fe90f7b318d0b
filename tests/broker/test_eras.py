"""Every client era against every worker era, for each feature that is carried."""

import json

import pytest

from harness import fixture_server, make_policy, serving

pytestmark = pytest.mark.kernel

MODERN_ONLY = {"resultType", "ttlMs", "cacheScope"}
SERVER_INFO = "io.modelcontextprotocol/serverInfo"


@pytest.fixture(params=["legacy", "dual", "modern", "silent"])
def worker_era(request: pytest.FixtureRequest) -> str:
    return request.param


def assert_face(result: dict, client_era: str, *, cacheable: bool) -> None:
    """A result carries what its client's era owes, and nothing of the other era."""
    if client_era == "legacy":
        assert not MODERN_ONLY & result.keys()
        assert SERVER_INFO not in result.get("_meta", {})
        return
    assert result["resultType"] == "complete"
    assert result["_meta"][SERVER_INFO]["name"]
    if cacheable:
        assert result["ttlMs"] >= 0
        assert result["cacheScope"] == "private"


async def test_every_feature_works_between_any_two_eras(client_era: str, worker_era: str) -> None:
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        client = await served.client(client_era, "fix")

        tools = (await client.request("tools/list")).result
        assert_face(tools, client_era, cacheable=True)
        assert {"echo", "add"} <= {tool["name"] for tool in tools["tools"]}
        assert next(tool for tool in tools["tools"] if tool["name"] == "add")["inputSchema"]["$defs"]

        echoed = (await client.call("echo", text="héllo\n")).result
        assert_face(echoed, client_era, cacheable=False)
        assert echoed["structuredContent"] == {"text": "héllo\n"}
        assert (await client.call("tool_error")).result["isError"] is True

        listed = (await client.request("resources/list")).result
        assert_face(listed, client_era, cacheable=True)
        assert listed["nextCursor"]
        more = (await client.request("resources/list", {"cursor": listed["nextCursor"]})).result
        assert {each["uri"] for each in listed["resources"]}.isdisjoint(
            each["uri"] for each in more["resources"]
        )
        read = (await client.request("resources/read", {"uri": "fixture://text/1"})).result
        assert_face(read, client_era, cacheable=True)
        assert read["contents"][0]["text"] == "text 1"
        templates = (await client.request("resources/templates/list")).result
        assert templates["resourceTemplates"][0]["uriTemplate"] == "fixture://greeting/{name}"

        prompts = (await client.request("prompts/list")).result
        assert {"simple", "greet"} <= {prompt["name"] for prompt in prompts["prompts"]}
        got = (await client.request("prompts/get", {"name": "greet", "arguments": {"name": "Ada"}})).result
        assert "Ada" in json.dumps(got["messages"])
        completed = await client.request(
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "style", "value": "f"}},
        )
        assert completed.result["completion"]["values"] == ["formal", "friendly"]


async def test_progress_arrives_under_the_clients_own_token(client_era: str, worker_era: str) -> None:
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        client = await served.client(client_era, "fix")
        token = "tøken\\1"
        answer = await client.request(
            "tools/call", {"name": "progress", "arguments": {"count": 3}}, progressToken=token
        )
        assert answer.headers["content-type"].startswith("text/event-stream")
        notes = answer.messages[:-1]
        assert [note["params"]["progress"] for note in notes] == [1, 2, 3]
        assert {note["params"]["progressToken"] for note in notes} == {token}
        assert answer.text == "3"


async def test_a_servers_own_error_goes_through_with_its_data(client_era: str, worker_era: str) -> None:
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        client = await served.client(client_era, "fix")
        answer = await client.call("error", code=1234, message="own", data={"why": [1]})
        assert answer.status == 200
        assert answer.error == {"code": 1234, "message": "own", "data": {"why": [1]}}


async def test_an_unknown_resource_is_told_in_the_clients_own_terms(client_era: str, worker_era: str) -> None:
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        client = await served.client(client_era, "fix")
        answer = await client.request("resources/read", {"uri": "fixture://none"})
        if client_era == "modern":
            assert (answer.status, answer.error["code"]) == (400, -32602)
        else:
            assert answer.status == 200
            assert answer.error["code"] in {-32602, -32002}


async def test_discover_and_initialize_tell_the_features_that_are_carried(worker_era: str) -> None:
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        discovered = (await served.modern("fix").request("server/discover")).result
        assert discovered["supportedVersions"][:2] == ["2026-07-28", "2025-11-25"]
        assert_face(discovered, "modern", cacheable=True)
        client = await served.legacy("fix")
        initialized = (await client.initialize()).result
        assert initialized["protocolVersion"] == "2025-11-25"
        changing = {"listChanged": True}
        features = {"tools": changing, "resources": {"subscribe": True, **changing}, "prompts": changing}
        features |= {"completions": {}, "logging": {}}
        assert initialized["capabilities"] == features
        if worker_era in {"dual", "modern"}:  # tasks pass between two of the newer era only
            features["extensions"] = {"io.modelcontextprotocol/tasks": {}}
        assert discovered["capabilities"] == features
        assert initialized["serverInfo"]["name"] == "fixture"
        assert (await client.request("ping")).result == {}


async def test_a_client_that_declares_nothing_is_asked_nothing(client_era: str, worker_era: str) -> None:
    """A modern client is told what it would have to declare; a legacy one is not, and the server has to make do."""
    async with serving(make_policy({"fix": fixture_server("--era", worker_era)})) as served:
        answer = await (await served.client(client_era, "fix")).call("ask", message="?", kind="sampling")
        if client_era == "modern":
            assert (answer.status, answer.error["code"]) == (400, -32021)
            assert answer.error["data"]["requiredCapabilities"] == {"sampling": {}}
        elif worker_era in {"dual", "modern"}:
            assert (answer.status, answer.error["code"]) == (200, -32021)  # the server's own
        else:
            assert answer.result["structuredContent"]["error"]["code"] == -32601
