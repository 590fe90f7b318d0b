"""Tools that ask, log and announce so that it can be told whom it reached, and some that do it when nobody should."""

from collections.abc import Iterator

from fixture_parts.calls import Call, tool
from fixture_parts.tools import READ
from fixture_parts.wire import (
    BOOLEAN,
    INTEGER,
    LEVELS,
    NUMBER,
    ROOTS,
    STRING,
    URL_NEEDED,
    Ask,
    Cancellation,
    RpcError,
    Sleep,
    elicit,
    elicit_url,
    sample,
    text,
)

ELSEWHERE = "https://fixture.example/ask/"


def question_of(call: Call) -> dict:
    """What the arguments of a call say that is to be asked."""
    message = call.arguments.get("message", "?")
    return {
        "elicitation": elicit(message, answer=STRING),
        "sampling": sample(message),
        "roots": ROOTS,
        "url": elicit_url(message, ELSEWHERE + message, call.server.era, message),
    }[call.arguments.get("kind", "elicitation")]


KINDS = STRING | {"enum": ["elicitation", "sampling", "roots", "url"]}


@tool({"message": STRING, "kind": KINDS, "force": BOOLEAN})
def ask(call: Call) -> Iterator:
    """Ask the client something, whatever it declared, and answer with its answer.

    On a modern wire an undeclared capability is refused as the specification wants, unless `force` is set.
    """
    answers = yield Ask({"question": question_of(call)}, force=call.arguments.get("force", False))
    return text(answers["question"], answers["question"])


@tool(
    {"caller": STRING, "rounds": INTEGER, "pause": NUMBER, "level": STRING | {"enum": list(LEVELS)}},
    ("caller",),
)
def ask_all(call: Call) -> Iterator:
    """In each round log a line, then ask for a form, a sample and the roots at once; answer with all that was said.

    Each line and each text names the caller and the round: `caller/round`. Modern requests repeat earlier rounds'
    lines, since each of them runs the tool from its start.
    """
    caller, said = call.arguments["caller"], []
    for number in range(call.arguments.get("rounds", 1)):
        tag = f"{caller}/{number}"
        call.log(call.arguments.get("level", "info"), tag)
        yield Sleep(call.arguments.get("pause", 0))
        questions = {"form": elicit(tag, answer=STRING), "thought": sample(tag), "roots": ROOTS}
        said.append((yield Ask(questions)))
    answer = {"caller": caller, "rounds": said}
    return text(answer, answer)


@tool({"rounds": INTEGER, "steps": INTEGER}, ("rounds", "steps"))
def ask_in_steps(call: Call) -> Iterator:
    """In each round report progress some times and then ask. Modern requests repeat earlier rounds' progress, too."""
    done, total = 0, call.arguments["rounds"] * call.arguments["steps"]
    for number in range(call.arguments["rounds"]):
        for _ in range(call.arguments["steps"]):
            done += 1
            call.progress(done, total)
        yield Ask({f"question-{number}": elicit(str(number), answer=STRING)})
    return text(str(done))


@tool(
    {"tag": STRING, "count": INTEGER, "interval": NUMBER, "level": STRING | {"enum": list(LEVELS)}}, ("tag",)
)
def log_lines(call: Call) -> Iterator:
    """Log lines `tag:0`, `tag:1` and so on, and answer with how many of them were wanted."""
    wanted = 0
    for number in range(call.arguments.get("count", 1)):
        wanted += call.log(call.arguments.get("level", "info"), f"{call.arguments['tag']}:{number}")
        yield Sleep(call.arguments.get("interval", 0))
    return text(str(wanted))


@tool({"message": STRING, "answer": BOOLEAN}, ("message",))
def ask_when_cancelled(call: Call) -> Iterator:
    """Report progress, wait to be cancelled, and ask only then (on a legacy wire).

    What comes back is remembered in this process under `late:message`; with `answer` the call is answered, too.
    """
    call.progress(0, 1)
    yield Cancellation()
    call.log("error", call.arguments["message"])
    if call.server.era != "modern":
        answers = yield Ask({"late": elicit(call.arguments["message"], answer=STRING)})
        call.server.state[f"late:{call.arguments['message']}"] = str(answers["late"])
    if not call.arguments.get("answer"):
        call.answered = True
    return text("too late")


@tool({"message": STRING, "kind": KINDS}, ("message",))
def ask_unbidden(call: Call) -> dict:
    """Answer, and then ask the client something that belongs to no request (on a legacy wire).

    What comes back is remembered in this process under `unbidden:message`.
    """
    result = text("answered before asking")
    call.finish(result)
    if call.server.era != "modern":
        call.server.ask_unbidden(f"unbidden:{call.arguments['message']}", question_of(call))
    return result


@tool({"level": STRING | {"enum": list(LEVELS)}, "message": STRING}, ("message",))
def log_unbidden(call: Call) -> dict:
    """Answer, and then log something whatever was asked for."""
    result = text("answered before logging")
    call.finish(result)
    level, data = call.arguments.get("level", "info"), call.arguments["message"]
    call.server.notify("notifications/message", {"level": level, "logger": "fixture", "data": data})
    return result


@tool({"id": STRING}, ("id",))
def need_url(call: Call) -> Iterator:
    """Want the user to visit a page. On a legacy wire the request ends in an error that says so (-32042).

    Called again with the same id there, it succeeds: the user was there in between.
    """
    wanted, server = call.arguments["id"], call.server
    question = elicit_url(f"Visit the page for {wanted}", ELSEWHERE + wanted, server.era, wanted)
    if server.era == "modern":
        answers = yield Ask({"visit": question})
        return text(answers["visit"], answers["visit"])
    if wanted not in server.visits:
        server.visits.add(wanted)
        raise RpcError(URL_NEEDED, "The user has to visit a page", {"elicitations": [question["params"]]})
    return text("visited")


@tool({"id": STRING}, ("id",))
def complete_url(call: Call) -> dict:
    """Tell the client that what it was asked elsewhere is done."""
    call.server.notify("notifications/elicitation/complete", {"elicitationId": call.arguments["id"]})
    return text("told")


CHANGING = {"type": "array", "items": STRING | {"enum": ["tools", "prompts", "resources"]}}


@tool({"lists": CHANGING, "uris": {"type": "array", "items": STRING}, "times": INTEGER})
def announce(call: Call) -> dict:
    """Tell whoever wants to know that lists and resources changed, some times in a row; answer how often it was told."""
    told = 0
    for _ in range(call.arguments.get("times", 1)):
        told += sum(call.server.announce(kind) for kind in call.arguments.get("lists") or ())
        told += sum(call.server.announce_update(uri) for uri in call.arguments.get("uris") or ())
    return text(str(told))


@tool({"name": STRING}, ("name",))
def toggle_tool(call: Call) -> dict:
    """Add a tool of that name, or take it away again, and tell whoever wants to know."""
    return text(call.server.toggle("tools", call.arguments["name"]))


@tool({"uri": STRING}, ("uri",))
def touch_resource(call: Call) -> dict:
    """Tell whoever subscribed to the resource that it changed."""
    return text(str(call.server.announce_update(call.arguments["uri"])))


@tool(annotations=READ)
def listeners(call: Call) -> dict:
    """What this process is subscribed to: by `resources/subscribe`, and by each `subscriptions/listen` there is."""
    server = call.server
    facts = {"subscribed": sorted(server.subscribed), "listening": list(server.listening.values())}
    return text(facts, facts)


@tool()
def stop_listening(call: Call) -> dict:
    """End every `subscriptions/listen` there is, as a server does that goes away."""
    return text(str(call.server.end_listening()))
