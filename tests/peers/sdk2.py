"""Version 2 of the Python SDK, in the mode asked for; through a bridge to standard input and output if there is one."""

import asyncio
import warnings
from contextlib import asynccontextmanager

import anyio
import httpx2
import mcp_types as types
from mcp import MCPDeprecationWarning
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from steps import HEADERS, SECONDS, TASK, asked, take, text_of

warnings.simplefilter("ignore", MCPDeprecationWarning)
logs: list[str] = []
heard: asyncio.Queue[types.ServerNotification | Exception] = asyncio.Queue()


async def log(params):
    logs.append(str(params.data))


async def elicit(_context, params):
    if params.mode == "url":
        return types.ElicitResult(action="accept")
    return types.ElicitResult(action="accept", content=asked.form(params.requested_schema))


async def sample(_context, _params):
    return types.CreateMessageResult(
        role="assistant", content=types.TextContent(type="text", text=asked.answer), model="none"
    )


async def roots(_context):
    return types.ListRootsResult(roots=[types.Root(uri=asked.root, name=asked.answer)])


@asynccontextmanager
async def transport(url):
    if "bridge" in TASK:
        header = f"Authorization: {HEADERS['Authorization']}"
        command, *arguments = ({"URL": url, "HEADER": header}.get(word, word) for word in TASK["bridge"])
        async with stdio_client(StdioServerParameters(command=command, args=arguments)) as streams:
            yield streams
    else:
        async with httpx2.AsyncClient(headers=HEADERS, timeout=SECONDS) as http:
            async with streamable_http_client(url, http_client=http) as streams:
                yield streams


async def every(ask, part):
    found, cursor = [], None
    while True:
        page = await ask(cursor=cursor)
        found += getattr(page, part)
        if not (cursor := page.next_cursor):
            return found


def verbs(client: Client):
    async def version():
        return client.protocol_version

    async def tools():
        return [tool.name for tool in await every(client.list_tools, "tools")]

    async def call(name, arguments):
        result = await client.call_tool(name, arguments)
        return {"text": text_of(result.content), "isError": bool(result.is_error)}

    async def progress(name, arguments):
        reported = []

        async def note(done, _total, _message):
            reported.append(done)

        await client.call_tool(name, arguments, progress_callback=note)
        return reported

    async def cancel(name, arguments):
        with anyio.CancelScope() as scope:

            async def give_up(_done, _total, _message):
                scope.cancel()

            await client.call_tool(name, arguments, progress_callback=give_up)
        return scope.cancelled_caught

    async def resources():
        return [each.uri for each in await every(client.list_resources, "resources")]

    async def templates():
        return [each.uri_template for each in await every(client.list_resource_templates, "resource_templates")]

    async def read(uri):
        return text_of((await client.read_resource(uri)).contents)

    async def prompts():
        return [each.name for each in await every(client.list_prompts, "prompts")]

    async def prompt(name, arguments):
        return text_of(message.content for message in (await client.get_prompt(name, arguments)).messages)

    async def complete(prompt, name, value):
        reference = types.PromptReference(type="ref/prompt", name=prompt)
        return (await client.complete(reference, {"name": name, "value": value})).completion.values

    async def logged(level, name, arguments):
        logs.clear()
        if client.protocol_version < "2026":
            await client.set_logging_level(level)
            await client.call_tool(name, arguments)
        else:
            await client.call_tool(name, arguments, meta={"io.modelcontextprotocol/logLevel": level})
        return list(logs)

    async def next_notification(kind):
        while not isinstance(message := await heard.get(), kind):
            pass
        return message

    async def updated(uri, name, arguments):
        if client.protocol_version < "2026":
            await client.subscribe_resource(uri)
            await client.call_tool(name, arguments)
            message = await next_notification(types.ResourceUpdatedNotification)
            await client.unsubscribe_resource(uri)
            return str(message.params.uri)
        async with client.listen(resource_subscriptions=[uri]) as subscription:
            await client.call_tool(name, arguments)
            return str((await anext(subscription)).uri)

    async def changed(name, arguments):
        if client.protocol_version < "2026":
            await client.call_tool(name, arguments)
            return (await next_notification(types.ResourceListChangedNotification)).method
        async with client.listen(resources_list_changed=True) as subscription:
            await client.call_tool(name, arguments)
            return type(await anext(subscription)).__name__

    return {
        "version": version,
        "tools": tools,
        "call": call,
        "progress": progress,
        "cancel": cancel,
        "resources": resources,
        "templates": templates,
        "read": read,
        "prompts": prompts,
        "prompt": prompt,
        "complete": complete,
        "logs": logged,
        "updated": updated,
        "changed": changed,
    }


@asynccontextmanager
async def connect(url):
    asking = {"elicitation_callback": elicit, "sampling_callback": sample, "list_roots_callback": roots}
    async with Client(
        transport(url),
        mode=TASK["mode"],
        logging_callback=log,
        message_handler=heard.put,
        **(asking if asked.answer else {}),
    ) as client:
        yield verbs(client)


anyio.run(take, connect)
