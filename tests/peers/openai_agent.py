"""openai-agents: an agent whose model makes the calls of the steps one by one, and the methods of its server."""

import json
from contextlib import asynccontextmanager

import anyio
from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage
from agents.mcp import MCPServerStreamableHttp
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

from steps import HEADERS, SECONDS, take, text_of


class Scripted(Model):
    """Calls one tool, and then says what the tool gave."""

    def __init__(self, name: str, arguments: dict) -> None:
        self.call = ResponseFunctionToolCall(
            type="function_call", call_id="1", name=name, arguments=json.dumps(arguments)
        )
        self.tools: list[str] = []
        self.given = ""

    async def get_response(self, system_instructions, input, model_settings, tools, *_rest, **_more):
        self.tools = [tool.name for tool in tools]
        given = [item for item in input if item.get("type") == "function_call_output"]
        if not given:
            return ModelResponse(output=[self.call], usage=Usage(), response_id=None)
        self.given = str(given[0]["output"])
        text = ResponseOutputText(type="output_text", text="done", annotations=[])
        said = ResponseOutputMessage(id="1", type="message", role="assistant", status="completed", content=[text])
        return ModelResponse(output=[said], usage=Usage(), response_id=None)

    def stream_response(self, *_arguments, **_more):
        raise NotImplementedError


@asynccontextmanager
async def connect(url):
    params = {"url": url, "headers": HEADERS, "timeout": SECONDS}
    async with MCPServerStreamableHttp(params, client_session_timeout_seconds=SECONDS) as server:

        async def tools():
            return [tool.name for tool in await server.list_tools()]

        async def call(name, arguments):
            result = await server.call_tool(name, arguments)
            return {"text": text_of(result.content), "isError": result.isError}

        async def agent(name, arguments):
            model = Scripted(name, arguments)
            whole = Agent(name="test", model=model, mcp_servers=[server])
            await Runner.run(whole, "go", run_config=RunConfig(tracing_disabled=True))
            return {"text": model.given, "tools": model.tools}

        async def resources():
            return [str(each.uri) for each in (await server.list_resources()).resources]

        async def templates():
            return [each.uriTemplate for each in (await server.list_resource_templates()).resourceTemplates]

        async def read(uri):
            return text_of((await server.read_resource(uri)).contents)

        async def prompts():
            return [each.name for each in (await server.list_prompts()).prompts]

        async def prompt(name, arguments):
            return text_of(message.content for message in (await server.get_prompt(name, arguments)).messages)

        yield {
            "tools": tools,
            "call": call,
            "agent": agent,
            "resources": resources,
            "templates": templates,
            "read": read,
            "prompts": prompts,
            "prompt": prompt,
        }


anyio.run(take, connect)
