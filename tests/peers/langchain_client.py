"""Lists and calls tools with langchain-mcp-adapters, which needs version 1 of the Python SDK.

The task comes in the environment, what was seen goes to standard output; both are JSON.
"""

import asyncio
import json
import os

from langchain_mcp_adapters.client import MultiServerMCPClient


def text_of(answer: str | list[dict]) -> str:
    return answer if isinstance(answer, str) else "\n".join(block.get("text", "") for block in answer)


async def main() -> None:
    task = json.loads(os.environ["TASK"])
    headers = {"Authorization": f"Bearer {task['token']}"}
    connection = {"transport": "streamable_http", "url": task["url"], "headers": headers}
    tools = {tool.name: tool for tool in await MultiServerMCPClient({"mcphost": connection}).get_tools()}
    texts = [text_of(await tools[call["name"]].ainvoke(call["arguments"])) for call in task["calls"]]
    print(json.dumps({"version": None, "tools": list(tools), "texts": texts}))


asyncio.run(main())
