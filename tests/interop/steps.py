"""What clients do: visits to endpoints of the runtime, with steps by name. The verbs are those of tests/peers/steps.py.

Some of the servers are asked only in visits with an answer, where the client says that it can be asked: a server of
others that lives as long as one client's session (`personal`), and one of ours that speaks the modern era only.
"""

from dataclasses import dataclass

from interop.catalogue import REAL, Place

Step = list[object]

DOCUMENT = "demo://resource/static/document/architecture.md"
ELSEWHERE = "https://example.com/"
DYNAMIC = "demo://resource/dynamic/text/1"
WATCHED = "test://watched-resource"


@dataclass(frozen=True)
class Visit:
    """What to do where: an endpoint and a token for it; steps by name; what to answer when asked."""

    url: str
    token: str
    steps: dict[str, Step]
    answer: str | None = None


def at_all(place: Place) -> dict[str, Step]:
    """The steps at the endpoint of all servers."""
    calls = {f"call {name}": ["call", f"{name}__{it.tool}", it.arguments(place)] for name, it in REAL.items()}
    return {
        "tools": ["tools"],
        **calls,
        "tool error": ["call", "filesystem__read_text_file", {"path": "/nowhere"}],
        "unknown tool": ["call", "time__nothing", {}],
    }


def at_time(place: Place) -> dict[str, Step]:
    """The steps at the endpoint of a server that speaks both eras."""
    return {"call alone": ["call", REAL["time"].tool, REAL["time"].arguments(place)]}


AT_EVERYTHING: dict[str, Step] = {
    "version": ["version"],
    "agent": ["agent", "echo", {"message": "round and round"}],
    "resources": ["resources"],
    "templates": ["templates"],
    "read": ["read", DOCUMENT],
    "unknown resource": ["read", "demo://nothing"],
    "prompts": ["prompts"],
    "prompt": ["prompt", "args-prompt", {"city": "Oslo"}],
    "completion": ["complete", "completable-prompt", "department", "E"],
    "progress": ["progress", "trigger-long-running-operation", {"duration": 0.2, "steps": 4}],
}

PACKED = {"name": "a.gz", "data": "data:text/plain,a", "outputType": "resourceLink"}

AT_PERSONAL: dict[str, Step] = {
    "legacy elicitation": ["call", "trigger-elicitation-request", {}],
    "legacy url": ["call", "trigger-url-elicitation", {"url": ELSEWHERE}],
    "legacy url before": ["call", "trigger-url-elicitation", {"url": f"{ELSEWHERE}again", "errorPath": True}],
    "legacy sampling": ["call", "trigger-sampling-request", {"prompt": "go on"}],
    "legacy roots": ["call", "get-roots-list", {}],
    "legacy cancellation": ["cancel", "trigger-long-running-operation", {"duration": 60, "steps": 600}],
    "legacy logs": ["logs", "debug", "toggle-simulated-logging", {}],
    "legacy updates": ["updated", DYNAMIC, "toggle-subscriber-updates", {}],
    "legacy changes": ["changed", "gzip-file-as-resource", PACKED],
}


def at_modern(name: str) -> dict[str, Step]:
    """The steps at the endpoint of a server that knows the modern era only."""
    asked = {
        f"modern {it}": ["call", "ask", {"message": name, "kind": it}]
        for it in ("elicitation", "sampling", "roots")
    }
    return {
        # Calls that want log messages may have another process, which nobody listens to; so this comes before them.
        "modern updates": ["updated", WATCHED, "touch_resource", {"uri": WATCHED}],
        "modern changes": ["changed", "announce", {"lists": ["resources"]}],
        **asked,
        "modern cancellation": ["cancel", "progress", {"count": 600, "interval": 0.1}],
        "modern logs": ["logs", "info", "log_lines", {"tag": name, "count": 3}],
    }


def both(*kinds: str) -> frozenset[str]:
    """Steps of the visits with an answer, with servers of either era."""
    return frozenset(f"{era} {kind}" for era in ("legacy", "modern") for kind in kinds)


CALLS = frozenset(f"call {name}" for name in REAL)
LISTS = frozenset({"tools", "resources", "templates", "prompts"})
READS = frozenset({"read", "unknown resource", "prompt"})
ERRORS = frozenset({"tool error", "unknown tool"})
CHANGES = both("updates", "changes")
CANCELS = both("cancellation")
ASKED = both("elicitation", "sampling", "roots", "logs") | {"legacy url", "legacy url before"}
WHOLE = (
    CALLS
    | LISTS
    | READS
    | ERRORS
    | ASKED
    | CHANGES
    | CANCELS
    | {"version", "call alone", "completion", "progress"}
)

# What the manual calls the things that are tried, and the steps that show each. Agents are a matter of frameworks.
FEATURES = {
    "tools": {"tools", "call alone"},
    "tool errors": {"tool error"},
    "unknown tools": {"unknown tool"},
    "resources": {"resources", "read", "unknown resource"},
    "templates": {"templates"},
    "lists of prompts": {"prompts"},
    "prompts": {"prompt"},
    "completion": {"completion"},
    "progress": {"progress"},
    "cancellation": CANCELS,
    "elicitation": both("elicitation"),
    "elicitation by URL": {"legacy url", "legacy url before"},
    "sampling": both("sampling"),
    "roots": both("roots"),
    "logs": both("logs"),
    "updates of resources": both("updates"),
    "changes of lists": both("changes"),
}
