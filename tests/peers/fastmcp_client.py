"""The client of FastMCP, in the mode asked for."""

import asyncio
from contextlib import asynccontextmanager

import anyio
import mcp_types as types
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport

from steps import HEADERS, TASK, asked, take, text_of

logs: list[str] = []
heard: asyncio.Queue = asyncio.Queue()


async def log(message):
    logs.append(str(message.data))


async def elicit(_message, _kind, params, _context):
    if params.mode == "url":
        return types.ElicitResult(action="accept")
    return asked.form(params.requested_schema)


async def sample(_messages, _params, _context):
    return asked.answer


async def next_notification(kind):
    while not isinstance(message := await heard.get(), kind):
        pass
    return message


def verbs(client: Client):
    async def version():
        return client.protocol_version

    async def tools():
        return [tool.name for tool in await client.list_tools()]

    async def call(name, arguments):
        result = await client.call_tool(name, arguments, raise_on_error=False)
        return {"text": text_of(result.content), "isError": result.is_error}

    async def progress(name, arguments):
        reported = []

        async def note(done, _total, _message):
            reported.append(done)

        await client.call_tool(name, arguments, progress_handler=note)
        return reported

    async def cancel(name, arguments):
        with anyio.CancelScope() as scope:

            async def give_up(_done, _total, _message):
                scope.cancel()

            await client.call_tool(name, arguments, progress_handler=give_up)
        return scope.cancelled_caught

    async def resources():
        return [str(each.uri) for each in await client.list_resources()]

    async def templates():
        return [each.uri_template for each in await client.list_resource_templates()]

    async def read(uri):
        return text_of(await client.read_resource(uri))

    async def prompts():
        return [each.name for each in await client.list_prompts()]

    async def prompt(name, arguments):
        return text_of(message.content for message in (await client.get_prompt(name, arguments)).messages)

    async def complete(prompt, name, value):
        reference = types.PromptReference(type="ref/prompt", name=prompt)
        return (await client.complete(reference, {"name": name, "value": value})).values

    async def logged(level, name, arguments):
        logs.clear()
        # On a modern connection it always wants all of them.
        if client.protocol_version < "2026":
            await client.set_logging_level(level)
        await client.call_tool(name, arguments)
        return list(logs)

    async def updated(uri, name, arguments):
        await client.session.subscribe_resource(uri)
        await client.call_tool(name, arguments)
        return str((await next_notification(types.ResourceUpdatedNotification)).params.uri)

    async def changed(name, arguments):
        await client.call_tool(name, arguments)
        return (await next_notification(types.ResourceListChangedNotification)).method

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
    asking = {"elicitation_handler": elicit, "sampling_handler": sample, "roots": [asked.root]}
    async with Client(
        StreamableHttpTransport(url, headers=HEADERS),
        mode=TASK["mode"],
        log_handler=log,
        message_handler=heard.put,
        **(asking if asked.answer else {}),
    ) as client:
        yield verbs(client)


anyio.run(take, connect)
