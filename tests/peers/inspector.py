"""The command line of the MCP Inspector, which is started anew for each step."""

import json
import subprocess
from contextlib import asynccontextmanager

import anyio

from steps import HEADERS, SECONDS, TASK, take

LISTS = {"tools": "name", "resources": "uri", "prompts": "name"}


class Told(Exception):
    """What the Inspector printed when it failed."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = None


@asynccontextmanager
async def connect(url):
    command = [*TASK["inspector"], "--cli", url, "--transport", "http", "--protocol-era", TASK["mode"], "--format", "json"]
    command += ["--header", f"Authorization: {HEADERS['Authorization']}"]

    async def ask(method, *options):
        whole = [*command, "--method", method, *options]
        with anyio.fail_after(SECONDS):
            ended = await anyio.run_process(whole, stdin=subprocess.DEVNULL, check=False)
        if ended.returncode:
            raise Told((ended.stdout + ended.stderr).decode())
        return json.loads(ended.stdout)["result"]

    def pairs(arguments):
        return [f"{name}={json.dumps(value)}" for name, value in arguments.items()]

    async def tools():
        return [tool["name"] for tool in (await ask("tools/list"))["tools"]]

    async def call(name, arguments):
        result = await ask("tools/call", "--tool-name", name, "--tool-arg", *pairs(arguments))
        text = "\n".join(block.get("text", "") for block in result["content"])
        return {"text": text, "isError": result.get("isError", False)}

    async def resources():
        return [each["uri"] for each in (await ask("resources/list"))["resources"]]

    async def read(uri):
        return "\n".join(each.get("text", "") for each in (await ask("resources/read", "--uri", uri))["contents"])

    async def prompts():
        return [each["name"] for each in (await ask("prompts/list"))["prompts"]]

    async def prompt(name, arguments):
        options = ["--prompt-args", *pairs(arguments)] if arguments else []
        result = await ask("prompts/get", "--prompt-name", name, *options)
        return "\n".join(message["content"].get("text", "") for message in result["messages"])

    yield {
        "tools": tools,
        "call": call,
        "resources": resources,
        "read": read,
        "prompts": prompts,
        "prompt": prompt,
    }


anyio.run(take, connect)
