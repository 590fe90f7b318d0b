"""The tools that the official conformance suite calls by name, in either era.

Names, texts and shapes are those that its scenarios ask for (@modelcontextprotocol/conformance 0.2.0-alpha.12).
"""

from collections.abc import Iterator

from fixture_parts.calls import Call, tool
from fixture_parts.contents import red_dot, silence
from fixture_parts.tools import READ
from fixture_parts.wire import (
    BOOLEAN,
    INTERNAL_ERROR,
    NUMBER,
    ROOTS,
    STRING,
    Ask,
    Escalate,
    RpcError,
    Sleep,
    elicit,
    missing_capability,
    sample,
    text,
)

PAUSE = Sleep(0.05)
JOB_SECONDS = 0.2


def resource(uri: str, mime_type: str, content: str) -> dict:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime_type, "text": content}}


@tool()
def test_simple_text(call: Call) -> dict:
    """Give a fixed text."""
    return text("This is a simple text response for testing.")


@tool()
def test_image_content(call: Call) -> dict:
    """Give an image."""
    return {"content": [{"type": "image", "data": red_dot(), "mimeType": "image/png"}]}


@tool()
def test_audio_content(call: Call) -> dict:
    """Give a sound."""
    return {"content": [{"type": "audio", "data": silence(), "mimeType": "audio/wav"}]}


@tool()
def test_embedded_resource(call: Call) -> dict:
    """Give a resource within the result."""
    content = "This is an embedded resource content."
    return {"content": [resource("test://embedded-resource", "text/plain", content)]}


@tool()
def test_multiple_content_types(call: Call) -> dict:
    """Give a text, an image and a resource."""
    embedded = resource("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
    image = {"type": "image", "data": red_dot(), "mimeType": "image/png"}
    return {"content": [{"type": "text", "text": "Multiple content types test:"}, image, embedded]}


@tool()
def test_tool_with_logging(call: Call) -> Iterator:
    """Log three messages with pauses between them."""
    call.log("info", "Tool execution started")
    yield PAUSE
    call.log("info", "Tool processing data")
    yield PAUSE
    call.log("info", "Tool execution completed")
    return text("Logged three messages.")


@tool()
def test_logging_tool(call: Call) -> dict:
    """Log one message, if that is wanted."""
    call.log("info", "Somebody wanted to know")
    return text("Logged what was wanted.")


@tool()
def test_error_handling(call: Call) -> dict:
    """Fail as a tool does."""
    return text("This tool intentionally returns an error for testing", failed=True)


@tool()
def test_tool_with_progress(call: Call) -> Iterator:
    """Report progress three times with pauses between."""
    for done in (0, 50, 100):
        call.progress(done, 100)
        if done < 100:
            yield PAUSE
    return text("Done.")


@tool()
def test_reconnection(call: Call) -> Iterator:
    """Take a moment, in which a transport may close its stream and let the client come again."""
    yield Sleep(0.1)
    return text("Still here.")


def refusal(call: Call, question: dict) -> dict | None:
    """A conforming legacy server does not ask what its client did not declare."""
    legacy = call.server.era != "modern"
    missing = missing_capability(question, call.capabilities) if legacy else None
    return text(f"The client cannot be asked this: {sorted(missing)}", failed=True) if missing else None


@tool({"prompt": STRING}, ("prompt",))
def test_sampling(call: Call) -> Iterator:
    """Ask the client's model."""
    question = sample(call.arguments["prompt"], 100)
    if refused := refusal(call, question):
        return refused
    answers = yield Ask({"sampled": question}, stateful=False)
    content = answers["sampled"].get("content") or {}
    return text(f"LLM response: {content.get('text')}")


@tool({"message": STRING}, ("message",))
def test_elicitation(call: Call) -> Iterator:
    """Ask the user for a name and an address."""
    described = {
        "username": STRING | {"description": "User's response"},
        "email": STRING | {"description": "User's email address"},
    }
    question = elicit(call.arguments["message"], **described)
    if refused := refusal(call, question):
        return refused
    answers = yield Ask({"user": question}, stateful=False)
    return text(f"User response: {said(answers['user'])}")


def said(answer: dict) -> str:
    return f"action={answer.get('action')}, content={answer.get('content')}"


@tool()
def test_elicitation_sep1034_defaults(call: Call) -> Iterator:
    """Ask for one field of each type, each with a default."""
    fields = {
        "name": STRING | {"default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": NUMBER | {"default": 95.5},
        "status": STRING | {"enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": BOOLEAN | {"default": True},
    }
    answers = yield Ask({"fields": elicit("Please review", **fields)}, stateful=False)
    return text(f"Elicitation completed: {said(answers['fields'])}")


def titled(*titles: str) -> list[dict]:
    return [{"const": f"value{number}", "title": title} for number, title in enumerate(titles, 1)]


@tool()
def test_elicitation_sep1330_enums(call: Call) -> Iterator:
    """Ask for a choice in each of the five ways there are to offer one."""
    options = ["option1", "option2", "option3"]
    names = ["Option One", "Option Two", "Option Three"]
    fields = {
        "untitledSingle": STRING | {"enum": options},
        "titledSingle": STRING | {"oneOf": titled("First Option", "Second Option", "Third Option")},
        "legacyEnum": STRING | {"enum": ["opt1", "opt2", "opt3"], "enumNames": names},
        "untitledMulti": {"type": "array", "items": STRING | {"enum": options}},
        "titledMulti": {
            "type": "array",
            "items": {"anyOf": titled("First Choice", "Second Choice", "Third Choice")},
        },
    }
    answers = yield Ask({"choices": elicit("Please choose", **fields)}, stateful=False)
    return text(f"Elicitation completed: {said(answers['choices'])}")


# Multi-round-trip requests (SEP-2322). On a legacy wire the same questions are requests of the server.

NAME = elicit("What is your name?", name=STRING)
CAPITAL = sample("What is the capital of France?", 100)


def field(answer: dict, name: str) -> object:
    return (answer.get("content") or {}).get(name)


@tool()
def test_input_required_result_elicitation(call: Call) -> Iterator:
    """Ask for a name and greet."""
    answers = yield Ask({"user_name": NAME}, stateful=False)
    return text(f"Hello, {field(answers['user_name'], 'name')}!")


@tool()
def test_input_required_result_sampling(call: Call) -> Iterator:
    """Ask the client's model for a capital."""
    answers = yield Ask({"capital_question": CAPITAL}, stateful=False)
    return text(str(field(answers["capital_question"], "text")))


@tool()
def test_input_required_result_list_roots(call: Call) -> Iterator:
    """Ask for the client's roots and name them."""
    answers = yield Ask({"client_roots": ROOTS}, stateful=False)
    roots = answers["client_roots"].get("roots") or []
    return text(", ".join(root["uri"] for root in roots))


@tool()
def test_input_required_result_request_state(call: Call) -> Iterator:
    """Ask for a confirmation; the state has to come back."""
    yield Ask({"confirm": elicit("Please confirm", ok=BOOLEAN)})
    return text("state-ok")


@tool()
def test_input_required_result_tampered_state(call: Call) -> Iterator:
    """Ask for a confirmation; another state than the one given out is refused."""
    yield Ask({"confirm": elicit("Please confirm", ok=BOOLEAN)})
    return text("state-ok")


@tool()
def test_input_required_result_multiple_inputs(call: Call) -> Iterator:
    """Ask three things at once."""
    greeting = sample("Generate a greeting", 50)
    answers = yield Ask({"user_name": NAME, "greeting": greeting, "client_roots": ROOTS})
    return text(answers, answers)


@tool()
def test_input_required_result_multi_round(call: Call) -> Iterator:
    """Ask one thing, then another."""
    first = yield Ask({"step1": elicit("Step 1: What is your name?", name=STRING)})
    second = yield Ask({"step2": elicit("Step 2: What is your favorite color?", color=STRING)})
    return text(f"{field(first['step1'], 'name')} likes {field(second['step2'], 'color')}.")


@tool()
def test_input_required_result_capabilities(call: Call) -> Iterator:
    """Ask whatever the client declared that it can be asked."""
    wanted = {"user_name": NAME, "capital_question": CAPITAL, "client_roots": ROOTS}
    possible = {
        key: question
        for key, question in wanted.items()
        if missing_capability(question, call.capabilities) is None
    }
    if not possible:
        return text("The client cannot be asked anything.")
    answers = yield Ask(possible, stateful=False)
    return text(answers, answers)


@tool()
def test_streaming_elicitation(call: Call) -> Iterator:
    """Ask for a name where nothing but the answer may stand on the stream."""
    answers = yield Ask({"user_name": NAME}, stateful=False)
    return text(f"Hello, {field(answers['user_name'], 'name')}!")


@tool()
def test_missing_capability(call: Call) -> Iterator:
    """Need sampling. On a legacy wire it is asked for whatever the client declared, as no server should."""
    answers = yield Ask({"capital_question": CAPITAL}, stateful=False)
    return text(answers, answers)


@tool()
def test_trigger_tool_change(call: Call) -> dict:
    """Add a tool, or take it away again, and tell whoever wants to know."""
    call.server.toggle("tools", "test_dynamic_tool")
    return text("changed")


@tool()
def test_trigger_prompt_change(call: Call) -> dict:
    """Add a prompt, or take it away again, and tell whoever wants to know."""
    call.server.toggle("prompts", "test_dynamic_prompt")
    return text("changed")


# Headers and schemas.


@tool(
    {"region": STRING | {"x-mcp-header": "Region"}, "query": STRING},
    ("region",),
    READ,
)
def test_custom_header(call: Call) -> dict:
    """Take an argument that HTTP clients mirror in a header of its own."""
    return text(f"in {call.arguments['region']}")


@tool(
    schema={
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": STRING, "city": STRING},
            }
        },
        "properties": {
            "name": STRING,
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": STRING | {"enum": ["phone", "email"]},
            "phone": STRING,
            "email": STRING,
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    }
)
def json_schema_2020_12_tool(call: Call) -> dict:
    """Has a schema that uses much of the vocabulary."""
    return text(call.arguments)


# The tasks extension (SEP-2663). Elsewhere these run at once.


@tool({"name": STRING}, ("name",))
def greet(call: Call) -> dict:
    """Greet somebody, never as a task."""
    return text(f"Hello, {call.arguments['name']}!")


@tool({"seconds": NUMBER, "label": STRING}, ("seconds",), task="optional")
def slow_compute(call: Call) -> Iterator:
    """Take some seconds, but no more than one where somebody has to wait for it."""
    seconds = call.arguments["seconds"]
    yield Sleep(seconds if call.knows_tasks else min(seconds, 1))
    return text(f"computed {call.arguments.get('label', '')}")


@tool(task="required")
def failing_job(call: Call) -> Iterator:
    """Fail as a tool does, after a while."""
    yield Sleep(JOB_SECONDS)
    return text("The job failed.", failed=True)


@tool(task="optional")
def protocol_error_job(call: Call) -> Iterator:
    """Fail as no tool should, after a while."""
    yield Sleep(JOB_SECONDS)
    raise RpcError(INTERNAL_ERROR, "The job broke")


@tool({"filename": STRING}, ("filename",), task="optional")
def confirm_delete(call: Call) -> Iterator:
    """Ask whether to delete a file, which is never done."""
    question = elicit(f"Delete {call.arguments['filename']}?", confirm=BOOLEAN)
    answers = yield Ask({"confirm": question})
    return text(f"confirmed: {field(answers['confirm'], 'confirm')}")


@tool(task="optional")
def multi_input(call: Call) -> Iterator:
    """Ask two things at once."""
    answers = yield Ask({"first": NAME, "second": elicit("Go on?", confirm=BOOLEAN)})
    return text(answers)


@tool(task="later")
def test_tool_with_task(call: Call) -> Iterator:
    """Ask for a name, then become a task that knows it."""
    answers = yield Ask({"user_name": NAME})
    name = field(answers["user_name"], "name")

    def work() -> Iterator:
        yield Sleep(JOB_SECONDS)
        return text(f"Worked for {name}.")

    yield Escalate(work())
