"""Version 1 of the Python SDK, which knows the legacy era only."""

import asyncio
from contextlib import asynccontextmanager

import anyio
from mcp import ClientSession, types
from mcp.client.streamable_http import streamablehttp_client
from pydantic import AnyUrl

from steps import HEADERS, asked, take, text_of

logs: list[str] = []
heard: asyncio.Queue = asyncio.Queue()


async def log(params):
    logs.append(str(params.data))


async def elicit(_context, params):
    if params.mode == "url":
        return types.ElicitResult(action="accept")
    return types.ElicitResult(action="accept", content=asked.form(params.requestedSchema))


async def sample(_context, _params):
    return types.CreateMessageResult(
        role="assistant", content=types.TextContent(type="text", text=asked.answer), model="none"
    )


async def roots(_context):
    return types.ListRootsResult(roots=[types.Root(uri=asked.root, name=asked.answer)])


async def hear(message):
    if isinstance(message, types.ServerNotification):
        await heard.put(message.root)


async def every(ask, part):
    found, cursor = [], None
    while True:
        page = await ask(params=types.PaginatedRequestParams(cursor=cursor))
        found += getattr(page, part)
        if not (cursor := page.nextCursor):
            return found


async def next_notification(kind):
    while not isinstance(message := await heard.get(), kind):
        pass
    return message


def verbs(session: ClientSession, agreed: str):
    async def version():
        return agreed

    async def tools():
        return [tool.name for tool in await every(session.list_tools, "tools")]

    async def call(name, arguments):
        result = await session.call_tool(name, arguments)
        return {"text": text_of(result.content), "isError": result.isError}

    async def progress(name, arguments):
        reported = []

        async def note(done, _total, _message):
            reported.append(done)

        await session.call_tool(name, arguments, progress_callback=note)
        return reported

    async def resources():
        return [str(each.uri) for each in await every(session.list_resources, "resources")]

    async def templates():
        return [each.uriTemplate for each in await every(session.list_resource_templates, "resourceTemplates")]

    async def read(uri):
        return text_of((await session.read_resource(AnyUrl(uri))).contents)

    async def prompts():
        return [each.name for each in await every(session.list_prompts, "prompts")]

    async def prompt(name, arguments):
        return text_of(message.content for message in (await session.get_prompt(name, arguments)).messages)

    async def complete(prompt, name, value):
        reference = types.PromptReference(type="ref/prompt", name=prompt)
        return (await session.complete(reference, {"name": name, "value": value})).completion.values

    async def logged(level, name, arguments):
        logs.clear()
        await session.set_logging_level(level)
        await session.call_tool(name, arguments)
        return list(logs)

    async def updated(uri, name, arguments):
        await session.subscribe_resource(AnyUrl(uri))
        await session.call_tool(name, arguments)
        message = await next_notification(types.ResourceUpdatedNotification)
        await session.unsubscribe_resource(AnyUrl(uri))
        return str(message.params.uri)

    async def changed(name, arguments):
        await session.call_tool(name, arguments)
        return (await next_notification(types.ResourceListChangedNotification)).method

    return {
        "version": version,
        "tools": tools,
        "call": call,
        "progress": progress,
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
    async with (
        streamablehttp_client(url, headers=HEADERS) as (reading, writing, _),
        ClientSession(
            reading, writing, logging_callback=log, message_handler=hear, **(asking if asked.answer else {})
        ) as session,
    ):
        agreed = (await session.initialize()).protocolVersion
        yield verbs(session, agreed)


anyio.run(take, connect)
