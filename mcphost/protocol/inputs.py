"""`input_required`: what a modern server answers that needs something of the client first.

The client is to answer the questions inside and to send the same request again, with its answers and the server's
`requestState` (2026-07-28, basic/patterns/mrtr). This module reads and writes such results; who is asked and how is
`rounds` and `gathering`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from msgspec import Raw

from mcphost.errors import MISSING_CLIENT_CAPABILITY, DownstreamProtocolError, UpstreamProtocolError
from mcphost.protocol import jsonrpc
from mcphost.protocol.asking import ASKS, Declared
from mcphost.protocol.jsonrpc import EMPTY_OBJECT, Fields
from mcphost.protocol.methods import NAMED

# Questions that one round may hold; servers that people wrote ask a handful at most.
MAX_QUESTIONS: Final = 32

KIND: Final = "input_required"
RESPONSES: Final = "inputResponses"
STATE: Final = "requestState"
_REQUESTS: Final = "inputRequests"

# Methods that may be answered so ("Supported Requests").
ASKABLE: Final = frozenset(NAMED)


@dataclass(frozen=True, slots=True)
class InputRequest:
    """One question to a client; `params` is an object, empty where the server gave none."""

    method: str
    params: Raw


@dataclass(frozen=True, slots=True)
class InputRequired:
    """A server's questions by its own keys, and its state as raw JSON; `members` is the whole result."""

    requests: Mapping[str, InputRequest]
    state: Raw | None
    members: Fields


def read(method: str, members: Fields) -> InputRequired:
    """Read the result of type `input_required` that a server gave to a request of `method`.

    Raises:
        UpstreamProtocolError: it breaks the rules of such results; the text says how.
    """
    if method not in ASKABLE:
        raise UpstreamProtocolError(f"the server asked for input where it must not, in answer to {method}")
    state = members.get(STATE)
    if state is not None and jsonrpc.text(state) is None:
        raise UpstreamProtocolError("the server gave a requestState that is no string")
    if state is None and _REQUESTS not in members:
        raise UpstreamProtocolError("the server asked for input without saying which")
    try:
        raw = jsonrpc.fields(members.get(_REQUESTS, EMPTY_OBJECT), _REQUESTS)
        if len(raw) > MAX_QUESTIONS:
            raise UpstreamProtocolError(f"the server asked more than {MAX_QUESTIONS} questions at once")
        requests = {key: _question(each) for key, each in raw.items()}
    except jsonrpc.Malformed as error:
        raise UpstreamProtocolError(f"the server asked for input and is not understood: {error}") from None
    return InputRequired(requests, state, members)


def _question(raw: Raw) -> InputRequest:
    members = jsonrpc.fields(raw, "an input request")
    method = jsonrpc.text(members.get("method"))
    if method is None or method not in ASKS:
        raise UpstreamProtocolError(f"the server asked for {str(method)[:100]!r}, which no client is asked")
    params = members.get("params", EMPTY_OBJECT)
    jsonrpc.fields(params, "params of an input request")
    return InputRequest(method, params)


def undeclared(requests: Iterable[InputRequest], declared: Declared) -> dict[str, dict[str, object]]:
    """What a client would have to declare beyond `declared` to be asked these; empty if it can be."""
    missing: dict[str, dict[str, object]] = {}
    for each in requests:
        if each.method in ASKS and not declared.permits(each.method, each.params):
            for name, parts in Declared.required(each.method, each.params).items():
                missing.setdefault(name, {}).update(parts)
    return missing


def needs(missing: Mapping[str, object]) -> DownstreamProtocolError:
    """The error for a call that asked for these capabilities of a modern client (2026-07-28, basic/index, "Error Codes")."""
    names = ", ".join(sorted(missing))
    return DownstreamProtocolError(
        MISSING_CLIENT_CAPABILITY,
        f"the server needs what this client has not declared: {names}",
        data={"requiredCapabilities": missing},
    )


def write(requests: Mapping[str, InputRequest], state: str | None) -> Fields:
    """A result of our own that asks these."""
    asked = {key: {"method": each.method, "params": each.params} for key, each in requests.items()}
    return with_state({_REQUESTS: jsonrpc.raw(asked)}, state)


def with_state(members: Fields, state: str | None) -> Fields:
    """A server's own result with its state replaced, or left out where it gave none."""
    written = {key: value for key, value in members.items() if key != STATE}
    if state is not None:
        written[STATE] = jsonrpc.raw(state)
    return written
