"""Servers of others, sandboxed without a network, used by clients of others through the runtime, in both eras."""

import hashlib
import json
import os
import re
import secrets
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import anyio
import pytest

from interop.catalogue import FAILING, LIMITS, REAL, Place, make_repository, node_program, person, policy_for
from interop.clients import CLIENT_SECONDS, MODERN, RUNS, drive, trying
from interop.conftest import wait_until
from interop.steps import (
    AT_EVERYTHING,
    AT_PERSONAL,
    DOCUMENT,
    DYNAMIC,
    ELSEWHERE,
    WATCHED,
    Visit,
    at_all,
    at_modern,
    at_time,
)

Seen = Callable[[str, str], object]


@pytest.fixture(scope="module")
def place(readable_folder) -> Place:
    files, repository = readable_folder("files"), readable_folder("repository")
    (files / "kept.txt").write_text("kept by the test\n")
    make_repository(repository)
    return Place(repository, files)


@pytest.fixture(scope="module")
def own_tokens() -> dict[str, str]:
    """A token for each run, so that what lives as long as a client is a client's own."""
    return {name: secrets.token_urlsafe(32) for name in RUNS}


@pytest.fixture(scope="module")
def product(start_product, python_server, place, own_tokens):
    """All servers for one tenant, and for another those that ask: they live as long as one client, or are modern only."""
    node = node_program()
    if node is None:
        pytest.skip("the peers are not installed: make peers")
    policy = policy_for(place, str(node))
    policy["mcpServers"]["personal"] = policy["mcpServers"]["everything"] | {"scope": "session"}
    policy["mcpServers"]["modern"] = python_server("fixture.py", "--era", "modern")
    entries = [
        {"id": name, "sha256": hashlib.sha256(it.encode()).hexdigest()} for name, it in own_tokens.items()
    ]
    policy["tenants"]["asking"] = {"tokens": entries, "allow": ["personal/*", "modern/*"], "limits": LIMITS}
    started = start_product(policy)
    anyio.run(start_all, started, place)
    return started


async def start_all(product, place: Place) -> None:
    """Have every server started: a list of all waits for one that is slow in this for a few seconds only."""
    async with anyio.create_task_group() as tasks:
        for name, real in REAL.items():
            tasks.start_soon(partial(product.call, "acme", name, real.tool, **real.arguments(place)))


@pytest.fixture(scope="module")
def outcome(product, place, own_tokens, tmp_path_factory) -> Iterator[Callable[[str, str], dict]]:
    """What a step of a client gave, an error or not. All clients are started with the first one asked for."""

    def visits(client: str) -> list[Visit]:
        acme, own = product.tokens["acme"], own_tokens[client]
        return [
            Visit(product.endpoint(), acme, at_all(place)),
            Visit(product.endpoint("time"), acme, at_time(place)),
            Visit(product.endpoint("everything"), acme, AT_EVERYTHING),
            Visit(product.endpoint("personal"), own, AT_PERSONAL, client),
            Visit(product.endpoint("modern"), own, at_modern(client), client),
        ]

    with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 1)) as programs:
        told = {
            name: programs.submit(drive, run, visits(name), tmp_path_factory.mktemp("home"))
            for name, run in RUNS.items()
        }
        yield lambda client, step: told[client].result()[step]
        programs.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def seen(outcome) -> Seen:
    """What a step of a client gave that must not be an error."""

    def give(client: str, step: str) -> object:
        gave = outcome(client, step)
        assert "got" in gave, gave
        return gave["got"]

    return give


@pytest.mark.parametrize("client", trying("version"))
def test_a_client_speaks_the_newest_revision_that_it_knows(seen, client):
    assert seen(client, "version") == RUNS[client].revision


@pytest.mark.parametrize("client", RUNS)
def test_a_client_calls_tools_of_many_servers_over_one_connection(seen, client):
    tools = seen(client, "tools")
    for name, real in REAL.items():
        assert f"{name}__{real.tool}" in tools
        assert sum(tool.startswith(f"{name}__") for tool in tools) >= real.tools
        if f"call {name}" in RUNS[client].tries and name not in FAILING:
            answer = seen(client, f"call {name}")
            assert real.answer in answer["text"]
            assert not answer["isError"]


@pytest.mark.parametrize("client", trying("call alone"))
def test_a_client_calls_a_tool_by_its_own_name_at_the_endpoint_of_its_server(seen, client):
    assert REAL["time"].answer in seen(client, "call alone")["text"]


def failure_of(gave: dict) -> str:
    """Its text, whether a client gives it as a result or raises it."""
    if "error" in gave:
        return gave["error"]["message"]
    assert gave["got"]["isError"], gave
    return gave["got"]["text"]


@pytest.mark.parametrize("client", trying("call fetch"))
def test_a_client_is_told_that_a_server_without_a_network_could_not_fetch(outcome, client):
    assert REAL["fetch"].answer in failure_of(outcome(client, "call fetch"))


@pytest.mark.parametrize("client", trying("tool error"))
def test_a_client_is_told_what_a_tool_failed_with(outcome, client):
    assert "/nowhere" in failure_of(outcome(client, "tool error"))


@pytest.mark.parametrize("client", trying("unknown tool"))
def test_a_client_is_told_that_there_is_no_such_tool(outcome, client):
    assert "nothing" in failure_of(outcome(client, "unknown tool"))


@pytest.mark.parametrize("client", trying("agent"))
def test_a_model_in_an_agent_calls_a_tool_and_gets_its_answer(seen, client):
    gave = seen(client, "agent")
    assert "round and round" in gave["text"]
    assert "echo" in gave["tools"]


@pytest.mark.parametrize("client", trying("read"))
def test_a_client_lists_resources_and_reads_one(seen, outcome, client):
    assert DOCUMENT in seen(client, "resources")
    assert seen(client, "read").startswith("# Everything Server")
    assert "demo://nothing" in outcome(client, "unknown resource")["error"]["message"]


@pytest.mark.parametrize("client", trying("templates"))
def test_a_client_lists_templates_of_resources(seen, client):
    assert "demo://resource/dynamic/text/{resourceId}" in seen(client, "templates")


@pytest.mark.parametrize("client", trying("prompts"))
def test_a_client_lists_prompts(seen, client):
    assert "args-prompt" in seen(client, "prompts")


@pytest.mark.parametrize("client", trying("prompt"))
def test_a_client_gets_a_prompt_with_its_arguments(seen, client):
    assert "weather in Oslo" in seen(client, "prompt")


@pytest.mark.parametrize("client", trying("completion"))
def test_a_client_gets_completions_for_an_argument(seen, client):
    assert seen(client, "completion") == ["Engineering"]


@pytest.mark.parametrize("client", trying("progress"))
def test_a_client_is_told_the_progress_of_a_call(seen, client):
    assert seen(client, "progress") == [1, 2, 3, 4]


def asking(what: str) -> list[tuple[str, str]]:
    """The steps and runs by which a server of either era asks for something."""
    steps = [f"{era} {what}" for era in ("legacy", "modern")]
    return [(client, step) for step in steps for client in trying(step)]


@pytest.mark.parametrize(("client", "step"), asking("cancellation"))
def test_a_call_that_a_client_gives_up_is_given_up(product, seen, client, step):
    server, tool = (
        ("personal", "trigger-long-running-operation") if "legacy" in step else ("modern", "progress")
    )
    assert seen(client, step) is True

    def told() -> bool:
        lines = [json.loads(line) for line in product.log.splitlines()]
        ended = [line for line in lines if line.get("token") == client and line.get("name") == tool]
        return [(line["server"], line["outcome"]) for line in ended] == [(server, "cancelled")]

    wait_until(told, f"the end of {client}'s call")


@pytest.mark.parametrize(("client", "step"), asking("elicitation"))
def test_a_client_fills_in_the_form_of_a_server(seen, client, step):
    assert client in seen(client, step)["text"]


@pytest.mark.parametrize("client", trying("legacy url"))
def test_a_client_sends_its_user_elsewhere_for_a_server(seen, client):
    assert ELSEWHERE in seen(client, "legacy url")["text"]


@pytest.mark.parametrize("client", trying("legacy url before"))
def test_a_call_that_needs_a_visit_elsewhere_is_repeated_after_it_or_refused_with_the_reason(outcome, client):
    """A modern client is asked and calls again by itself; a legacy one gets the error that its revision has for it."""
    gave = outcome(client, "legacy url before")
    if RUNS[client].revision == MODERN:
        assert f"{ELSEWHERE}again" in gave["got"]["text"]
    else:
        assert "browser-based authorization" in gave["error"]["message"]
        assert gave["error"]["code"] in {-32042, None}


@pytest.mark.parametrize(("client", "step"), asking("sampling"))
def test_a_client_samples_for_a_server(seen, client, step):
    assert client in seen(client, step)["text"]


@pytest.mark.parametrize(("client", "step"), asking("roots"))
def test_a_client_tells_its_roots_to_a_server(seen, client, step):
    assert f"file:///{client}" in seen(client, step)["text"]


@pytest.mark.parametrize("client", trying("legacy logs"))
def test_a_client_gets_the_log_message_of_a_legacy_server_during_its_call(seen, client):
    (line,) = seen(client, "legacy logs")
    assert re.fullmatch(r"\w+[ -]level[ -]message", line)


@pytest.mark.parametrize("client", trying("modern logs"))
def test_a_client_gets_its_own_log_messages_of_a_modern_server_in_order(seen, client):
    assert seen(client, "modern logs") == [f"{client}:{number}" for number in range(3)]


@pytest.mark.parametrize(("client", "step"), asking("updates"))
def test_a_client_is_told_that_a_resource_was_updated(seen, client, step):
    assert seen(client, step) == (DYNAMIC if step.startswith("legacy") else WATCHED)


@pytest.mark.parametrize(("client", "step"), asking("changes"))
def test_a_client_is_told_that_a_list_has_changed(seen, client, step):
    assert seen(client, step)


async def test_what_a_server_keeps_in_data_outlives_its_worker(product, place):
    arguments = {"entities": [person("Grace", "found a bug")]}
    await product.text("acme", "memory", "create_entities", **arguments)
    (worker,) = [each for each in product.workers() if each["server"] == "memory"]
    os.kill(worker["pid"], signal.SIGKILL)
    with anyio.fail_after(CLIENT_SECONDS):
        while any(each.get("pid") == worker["pid"] for each in product.workers()):
            await anyio.sleep(0.02)
    assert "found a bug" in await product.text("acme", "memory", "read_graph")


def test_every_worker_runs_with_every_layer_that_the_kernel_has_to_offer(product):
    ready = [worker for worker in product.workers() if worker["state"] == "ready"]
    assert ready
    for worker in ready:
        states = {layer["layer"]: layer["state"] for layer in worker["layers"]}
        assert set(states.values()) == {"enforced"}, worker
