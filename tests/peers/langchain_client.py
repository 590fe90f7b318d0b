"""langchain-mcp-adapters: tools as LangChain has them, each call in a session of its own."""

from contextlib import asynccontextmanager

import anyio
from langchain_mcp_adapters.callbacks import Callbacks
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools
from mcp.types import ElicitResult

from steps import HEADERS, asked, take

logs: list[str] = []
reported: list[float] = []


async def log(params, _context):
    logs.append(str(params.data))


async def note(progress, _total, _message, _context):
    reported.append(progress)


async def elicit(_mcp_context, params, _context):
    if params.mode == "url":
        return ElicitResult(action="accept")
    return ElicitResult(action="accept", content=asked.form(params.requestedSchema))


def words(content) -> str:
    return content if isinstance(content, str) else "\n".join(block.get("text", "") for block in content)


@asynccontextmanager
async def connect(url):
    callbacks = Callbacks(on_logging_message=log, on_progress=note, on_elicitation=elicit if asked.answer else None)
    connection = {"transport": "streamable_http", "url": url, "headers": HEADERS}
    client = MultiServerMCPClient({"mcphost": connection}, callbacks=callbacks)
    known = {tool.name: tool for tool in await client.get_tools()}

    async def tools():
        return list(known)

    async def call(name, arguments):
        message = await known[name].ainvoke({"type": "tool_call", "id": "1", "name": name, "args": arguments})
        return {"text": words(message.content), "isError": message.status == "error"}

    async def progress(name, arguments):
        reported.clear()
        await call(name, arguments)
        return list(reported)

    async def resources():
        async with client.session("mcphost") as session:
            return [str(each.uri) for each in (await session.list_resources()).resources]

    async def read(uri):
        (blob,) = await client.get_resources("mcphost", uris=uri)
        return blob.as_string()

    async def prompt(name, arguments):
        return "\n".join(words(each.content) for each in await client.get_prompt("mcphost", name, arguments=arguments))

    async def logged(level, name, arguments):
        # Calls in sessions of their own never set a level, and without one the runtime sends no log messages.
        logs.clear()
        async with client.session("mcphost") as session:
            await session.set_logging_level(level)
            (tool,) = [tool for tool in await load_mcp_tools(session) if tool.name == name]
            await tool.ainvoke(arguments)
        return list(logs)

    yield {
        "tools": tools,
        "call": call,
        "progress": progress,
        "resources": resources,
        "read": read,
        "prompt": prompt,
        "logs": logged,
    }


anyio.run(take, connect)
