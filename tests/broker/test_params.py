"""Headers that mirror a tool's arguments are compared with them, by the schema of the process that is called."""

from typing import Any

import pytest

from harness import ModernClient, Served, make_policy, read_answer, serving, shapes_server, until

pytestmark = pytest.mark.kernel


def tool(name: str, **properties: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object", "properties": properties}}


REGION = {"type": "string", "x-mcp-header": "Region"}
COUNT = {"type": "integer", "x-mcp-header": "Count"}
BROKEN = tool("broken", a={"type": "number", "x-mcp-header": "A"})
TOOLS = [tool("query", region=REGION, count=COUNT), tool("plain", region={"type": "string"}), BROKEN]


async def call(client: ModernClient, name: str, arguments: dict[str, Any], **mirrored: str) -> Any:
    params = {"name": name, "arguments": arguments}
    headers = client.headers("tools/call", name) | {
        f"Mcp-Param-{key}": text for key, text in mirrored.items()
    }
    return read_answer(
        await client.http.post(client.path, json=client.body("tools/call", params, {}), headers=headers)
    )


def serving_tools(era: str) -> Any:
    return serving(make_policy({"s": shapes_server(era=era, tools=TOOLS, page=1)}))


@pytest.mark.parametrize("worker_era", ["legacy", "modern"])
@pytest.mark.parametrize(("path", "prefix"), [("s", ""), ("/mcp", "s__")])
async def test_a_call_is_let_through_only_if_headers_and_arguments_agree(
    worker_era: str, path: str, prefix: str
) -> None:
    async with serving_tools(worker_era) as served:
        client, query = served.modern(path), f"{prefix}query"
        agreeing: list[tuple[dict[str, Any], dict[str, str]]] = [
            ({"region": "eu", "count": 42}, {"Region": "eu", "count": "42.0"}),
            ({"region": "Grüße"}, {"REGION": "=?base64?R3LDvMOfZQ==?="}),
            ({"region": None}, {}),
        ]
        for arguments, headers in agreeing:
            answer = await call(client, query, arguments, **headers)
            assert answer.result["structuredContent"]["arguments"] == arguments
        for arguments, headers in (
            ({"region": "eu"}, {}),
            ({"region": "eu"}, {"Region": "us"}),
            ({}, {"Region": "eu"}),
            ({"count": 42}, {"Count": "43"}),
            ({"region": "eu"}, {"Region": "=?base64?ZXU?="}),
        ):
            answer = await call(client, query, arguments, **headers)
            assert (answer.status, answer.error["code"]) == (400, -32020), (arguments, headers)
        assert (await call(client, f"{prefix}plain", {"region": "eu"}, Region="us")).result


async def test_clients_of_the_older_era_send_no_such_headers() -> None:
    async with serving_tools("modern") as served:
        client = await served.legacy("s")
        assert (await client.call("query", region="eu")).result
        assert len(await listed(served, await served.legacy("/mcp"))) == 3


async def test_a_tool_with_an_invalid_annotation_is_no_tool_over_http() -> None:
    async with serving_tools("modern") as served:
        assert await listed(served, served.modern("/mcp")) == ["s__query", "s__plain"]
        pages = [(await served.modern("s").request("tools/list")).result]
        while "nextCursor" in pages[-1]:
            cursor = pages[-1]["nextCursor"]
            pages.append((await served.modern("s").request("tools/list", {"cursor": cursor})).result)
        assert [tool["name"] for page in pages for tool in page["tools"]] == ["query", "plain"]


async def test_the_schema_is_that_of_the_process_that_runs() -> None:
    async with serving_tools("modern") as served:
        client = served.modern("s")
        assert (await call(client, "query", {"region": "eu"}, Region="eu")).result
        workers = served.worker_set("s")
        before = workers.worker
        await before.kill("killed")
        await until(lambda: workers.worker not in {None, before}, "another worker")
        assert (await call(client, "query", {"region": "eu"})).error["code"] == -32020


async def listed(served: Served, client: ModernClient) -> list[str]:
    return [tool["name"] for tool in (await client.request("tools/list")).result["tools"]]
