"""One endpoint over many servers: prefixed names, exposed URIs, and nobody waits for the one that failed."""

import pytest

from harness import fixture_server, make_policy, serving

pytestmark = pytest.mark.kernel

SERVERS = {
    "one": fixture_server("--era", "legacy"),
    "two": fixture_server("--era", "dual"),
    "bare": fixture_server("--no-tools"),
}


async def test_tools_prompts_and_resources_of_all_servers_are_one_catalog(client_era: str) -> None:
    async with serving(make_policy(SERVERS)) as served:
        client = await served.client(client_era)
        tools = {tool["name"] for tool in (await client.request("tools/list")).result["tools"]}
        assert {"one__echo", "two__echo"} <= tools
        assert (await client.call("one__echo", text="1")).text == "1"
        assert (await client.call("two__echo", text="2")).text == "2"
        prompts = (await client.request("prompts/list")).result["prompts"]
        assert {"one__greet", "two__greet"} <= {prompt["name"] for prompt in prompts}
        got = await client.request("prompts/get", {"name": "two__greet", "arguments": {"name": "Ada"}})
        assert got.result["messages"]
        completed = await client.request(
            "completion/complete",
            {
                "ref": {"type": "ref/prompt", "name": "one__greet"},
                "argument": {"name": "style", "value": "t"},
            },
        )
        assert completed.result["completion"]["values"] == ["terse"]


async def test_a_resource_is_read_by_the_uri_under_which_it_was_listed(client_era: str) -> None:
    async with serving(make_policy(SERVERS)) as served:
        client = await served.client(client_era)
        listed = (await client.request("resources/list")).result
        assert "nextCursor" not in listed
        uris = [resource["uri"] for resource in listed["resources"]]
        assert "two+fixture://text/5" in uris
        assert len(uris) == len(set(uris))
        read = (await client.request("resources/read", {"uri": "two+fixture://text/5"})).result
        assert read["contents"][0]["uri"] == "two+fixture://text/5"
        assert read["contents"][0]["text"] == "text 5"
        templates = (await client.request("resources/templates/list")).result["resourceTemplates"]
        assert "one+fixture://greeting/{name}" in {each["uriTemplate"] for each in templates}


async def test_an_unknown_resource_is_named_as_the_client_named_it(client_era: str) -> None:
    async with serving(make_policy(SERVERS)) as served:
        client = await served.client(client_era)
        for server in ("one", "two"):
            uri = f"{server}+fixture://none"
            assert (await client.request("resources/read", {"uri": uri})).error["data"]["uri"] == uri


async def test_a_name_that_means_no_server_is_an_unknown_tool(client_era: str) -> None:
    async with serving(make_policy(SERVERS)) as served:
        client = await served.client(client_era)
        for name in ("echo", "none__echo", "__echo", "one_echo"):
            answer = await client.call(name, text="a")
            assert answer.error["code"] == -32602, name
            assert answer.status == (400 if client_era == "modern" else 200)


async def test_a_server_that_does_not_start_takes_no_other_with_it(client_era: str) -> None:
    restart = {"max": 1, "backoff": {"initial": "10ms", "max": "10ms"}}
    servers = {**SERVERS, "broken": fixture_server("--fail-start", restart=restart)}
    async with serving(make_policy(servers)) as served:
        client = await served.client(client_era)
        tools = {tool["name"] for tool in (await client.request("tools/list")).result["tools"]}
        assert {"one__echo", "two__echo"} <= tools
        answer = await client.call("broken__echo", text="a")
        assert (answer.status, answer.error["data"]["reason"]) == (200, "worker-unavailable")


async def test_an_endpoint_offers_what_any_of_its_servers_offers() -> None:
    async with serving(make_policy({"bare": SERVERS["bare"], "two": SERVERS["two"]})) as served:
        both = (await served.modern().request("server/discover")).result["capabilities"]
        bare = (await served.modern("bare").request("server/discover")).result["capabilities"]
        assert "tools" in both
        assert "tools" not in bare
