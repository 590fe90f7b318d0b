"""pydantic-ai: an agent whose model makes the calls of the steps one by one, and the methods of its toolset."""

from contextlib import asynccontextmanager

import anyio
import mcp_types as types
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel

from steps import HEADERS, TASK, asked, take

logs: list[str] = []
reported: list[float] = []


async def log(message):
    logs.append(str(message.data))


async def note(progress, _total, _message):
    reported.append(progress)


async def elicit(_message, _kind, params, _context):
    if params.mode == "url":
        return types.ElicitResult(action="accept")
    return asked.form(params.requested_schema)


async def sample(_messages, _params, _context):
    return asked.answer


def parts_of(run, kind):
    return [part for message in run.all_messages() for part in message.parts if isinstance(part, kind)]


@asynccontextmanager
async def connect(url):
    asking = {"elicitation_handler": elicit, "sampling_handler": sample, "roots": [asked.root]}
    toolset = MCPToolset(
        url,
        headers=HEADERS,
        log_handler=log,
        log_level=TASK.get("logLevel"),
        progress_handler=note,
        tool_error_behavior="error",
        **(asking if asked.answer else {}),
    )
    async with toolset:

        async def version():
            return toolset.client.protocol_version

        async def tools():
            return [tool.name for tool in await toolset.list_tools()]

        async def call(name, arguments):
            return {"text": str(await toolset.direct_call_tool(name, arguments)), "isError": False}

        async def agent(name, arguments):
            listed = []

            def model(messages, info):
                listed[:] = [tool.name for tool in info.function_tools]
                done = any(isinstance(message, ModelResponse) for message in messages)
                return ModelResponse(parts=[TextPart("done") if done else ToolCallPart(name, arguments)])

            run = await Agent(FunctionModel(model), toolsets=[toolset]).run("go")
            (returned,) = parts_of(run, ToolReturnPart)
            return {"text": returned.model_response_str(), "tools": listed}

        async def progress(name, arguments):
            reported.clear()
            await toolset.direct_call_tool(name, arguments)
            return list(reported)

        async def resources():
            return [str(each.uri) for each in await toolset.list_resources()]

        async def templates():
            return [each.uri_template for each in await toolset.list_resource_templates()]

        async def read(uri):
            return str(await toolset.read_resource(uri))

        async def prompts():
            return [each.name for each in await toolset.list_prompts()]

        async def prompt(name, arguments):
            return str((await toolset.get_prompt(name, arguments)).messages)

        async def logged(_level, name, arguments):
            logs.clear()
            await toolset.direct_call_tool(name, arguments)
            return list(logs)

        yield {
            "version": version,
            "tools": tools,
            "call": call,
            "agent": agent,
            "progress": progress,
            "resources": resources,
            "templates": templates,
            "read": read,
            "prompts": prompts,
            "prompt": prompt,
            "logs": logged,
        }


anyio.run(take, connect)
