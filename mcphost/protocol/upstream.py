"""Our side of MCP towards one worker, as a machine: lines in, events and lines out.

It begins with the handshake of `handshake`; nothing but the probe is sent before the era is known, for some legacy
servers answer anything. From then on one machine speaks both eras:

- answers and progress name our request, and come back with what the caller keeps of it;
- questions of a legacy server and log messages name none; `attribution` says whose they are. What belongs to nobody, or
  could belong to two, is refused or dropped, and told as such;
- all other notifications come out as they are. On a modern worker they carry the id of a `subscriptions/listen` of
  ours, and one that is under way: anything else is an offence.

The machine knows no time: a request that never ends is a request like any other.
"""

from typing import Final, Generic, TypeVar, assert_never

from msgspec import Raw

from mcphost.protocol import jsonrpc
from mcphost.protocol.asking import ASKS, NOTHING, Declared
from mcphost.protocol.attribution import DEAF, Attribution, Hears
from mcphost.protocol.events import (
    Answered,
    AnsweredLate,
    Asked,
    Dropped,
    Event,
    Logged,
    Notified,
    Offence,
    Pinged,
    Progressed,
    Refused,
    ServerFacts,
    Withdrawn,
)
from mcphost.protocol.handshake import EraChoice, Handshake
from mcphost.protocol.jsonrpc import EMPTY_OBJECT, ErrorObject, Fields, Message
from mcphost.protocol.pending import Pending
from mcphost.protocol.questions import Questions

T = TypeVar("T")

MAX_ID_DIGITS: Final = 18  # ours are small integers; a longer one is not worth converting

META_SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"

# What a worker is told whose question cannot be put to anybody. Ours are positive, as everywhere (see `errors`).
_UNKNOWN: Final = ErrorObject(-32601, "this client offers no such method")
_MALFORMED: Final = ErrorObject(-32602, "params, and _meta inside, must be objects")
_UNOWNED: Final = ErrorObject(409, "no request under way can be said to have asked this")
_TOO_MANY: Final = ErrorObject(429, "too many or too large requests to the client are unanswered")
_OVER: Final = ErrorObject(410, "the request that asked this is over")


class Upstream(Generic[T]):
    """The protocol state of one connection to a worker. T is whatever the caller keeps per request."""

    def __init__(
        self,
        *,
        era: EraChoice,
        client_info: Raw,
        declared: Declared = NOTHING,
        logs: bool = False,
        one_client: bool = False,
    ) -> None:
        """`declared` is what a legacy server is told that it may ask; `logs` whether it is to log everything.

        `one_client` says that all requests come from one client (see `attribution`).
        """
        self._pending: Pending[T] = Pending()
        self._handshake = Handshake(era, client_info, declared, self._pending.reserve)
        self._may_ask = declared != NOTHING
        self._logs = logs
        self._own: set[int] = set()  # requests whose answer nobody waits for
        self._listens: set[int] = set()
        self._attribution = Attribution(one_client=one_client)
        self._questions = Questions()

    def __repr__(self) -> str:
        state = "opening" if self.facts is None else self.facts.era
        return f"<Upstream {state}, {len(self._pending)} in flight, {len(self._questions)} questions>"

    def __len__(self) -> int:
        """Requests in flight."""
        return len(self._pending)

    @property
    def listens(self) -> int:
        """How many of the requests in flight are listens: those last for good and keep nobody waiting."""
        return len(self._listens)

    @property
    def facts(self) -> ServerFacts | None:
        """What the server said of itself; None until it is open."""
        return self._handshake.facts

    @property
    def open_questions(self) -> int:
        """Questions of the server that wait for an answer."""
        return len(self._questions)

    @property
    def unsettled(self) -> bool:
        """Whether the server may still say something, without naming it, of a request that was cancelled."""
        return self.facts is not None and self._attribution.unsettled(self.facts.era)

    def settle(self) -> None:
        """Take it that the server says no more of what was cancelled. For those who can bear to be wrong."""
        self._attribution.settle()

    def open(self) -> bytes:
        """The lines that begin the connection."""
        return self._handshake.open()

    def confirm(self) -> bytes:
        """The lines that end a legacy handshake; to be sent once after `Opened`, empty for a modern worker.

        A legacy server has one log level for all (2025-11-25, server/utilities/logging): where logs are wanted, it is
        set to the lowest, and what each request wants of it is for its hearer to choose.
        """
        if self.facts is None or self.facts.era == "modern":
            return b""
        lines = jsonrpc.encode_notification("notifications/initialized", None)
        if self._logs and "logging" in self.facts.capabilities:
            identifier = self._pending.reserve()
            self._own.add(identifier)
            lines += jsonrpc.encode_request(identifier, "logging/setLevel", {"level": Raw(b'"debug"')})
        return lines

    def reserve(self) -> int:
        """A fresh id; it also serves as the progress token of the request that carries it, and as its subscription id."""
        return self._pending.reserve()

    def request(self, identifier: int, method: str, params: Fields, entry: T, hears: Hears = DEAF) -> bytes:
        """The line of a request under a reserved id; its answer comes back with `entry`."""
        self._pending.add(identifier, entry)
        self._attribution.sent(identifier, hears)
        if method == "subscriptions/listen":
            self._listens.add(identifier)
        return jsonrpc.encode_request(identifier, method, params)

    def cancel(self, identifier: int, reason: str) -> tuple[bytes, tuple[bytes, ...]]:
        """The lines that cancel a request, and the keys of its questions, which are refused with it.

        Nothing if it was answered meanwhile. The refusals come after the cancellation, so that a server which reads in
        order knows why.
        """
        if self._pending.abandon(identifier) is None:
            return b"", ()
        self._listens.discard(identifier)
        self._attribution.cancelled(identifier)
        params = {"requestId": jsonrpc.raw(identifier), "reason": jsonrpc.raw(reason)}
        over, refusals = self._end_questions(identifier)
        return jsonrpc.encode_notification("notifications/cancelled", params) + refusals, over

    def answer(self, key: bytes, reply: Raw | ErrorObject) -> bytes:
        """The line that answers or refuses a question; empty if no answer is awaited any more."""
        if not self._questions.close(key):
            return b""
        return _refusal(key, reply) if isinstance(reply, ErrorObject) else _reply(key, reply)

    def receive(self, line: bytes) -> Event[T] | None:
        """Read one line. None where nothing follows from it."""
        try:
            message = jsonrpc.decode(line)
        except jsonrpc.Malformed:
            return Offence("not-json-rpc")
        match message.kind:
            case "result" | "error":
                return self._answered(message)
            case "request":
                return self._asked(message)
            case "notification":
                return self._notified(message)
            case _:  # pragma: no cover - mypy proves that no kind is left
                assert_never(message.kind)

    def drain(self) -> list[T]:
        """The entries of all requests in flight, for a connection that is gone."""
        self._questions.clear()
        self._listens.clear()
        return self._pending.drain()

    def _answered(self, message: Message) -> Event[T] | None:
        identifier = _own_id(message.id)
        if self._handshake.sent(identifier):
            return self._handshake.answered(identifier, message)
        entry = self._pending.take(identifier)
        if entry is not None:
            self._listens.discard(identifier)
            self._attribution.answered(identifier)
            return Answered(entry, message, *self._end_questions(identifier))
        if identifier in self._own:
            self._own.discard(identifier)
            return None
        if self._pending.was_abandoned(identifier):
            self._attribution.answered(identifier)
            return AnsweredLate()
        return Offence("unknown-id")

    def _asked(self, message: Message) -> Event[T]:
        if message.method == "ping":
            return Pinged(_reply(message.id, EMPTY_OBJECT))
        if message.id in self._questions:
            return Offence("repeated-id")  # a reply to it would be taken for one to the first
        if (refused := _refused_unread(message)) is not None:
            return refused
        # A modern server asks by its results and has no requests of its own (2026-07-28, basic/patterns/mrtr).
        legacy = self.facts is not None and self.facts.era == "legacy"
        owner = self._attribution.of_question() if legacy else None
        entry = self._pending.get(owner) if owner is not None else None
        if owner is None or entry is None:
            error = _UNOWNED if self._may_ask else _UNKNOWN
            return Refused("unowned-request", message.method, _refusal(message.id, error))
        if not self._questions.open(message.id, owner, len(bytes(message.body))):
            return Refused("too-many-requests", message.method, _refusal(message.id, _TOO_MANY))
        return Asked(entry, message.id, message.method, message.body)

    def _end_questions(self, identifier: int) -> tuple[tuple[bytes, ...], bytes]:
        """The keys of a request's open questions, which are closed with this, and the lines that refuse them."""
        keys = self._questions.close_all(identifier)
        return keys, b"".join(_refusal(key, _OVER) for key in keys)

    def _notified(self, message: Message) -> Event[T]:
        try:
            params = jsonrpc.fields(message.body)
            match message.method:
                case "notifications/progress":
                    return self._progressed(params)
                case "notifications/message":
                    return self._logged(params)
                case "notifications/cancelled":
                    return self._withdrawn(params)
                case _:
                    return self._other(message.method, params)
        except jsonrpc.Malformed:
            return Offence("not-json-rpc")

    def _progressed(self, params: Fields) -> Event[T]:
        token = _own_id(bytes(params.get("progressToken", b"")))
        entry = self._pending.get(token)
        if entry is not None:
            return Progressed(entry, params)
        # A server that reports progress before it has read our cancellation does nothing wrong.
        late = self._pending.is_abandoned(token)
        return Dropped("late-notification") if late else Offence("unknown-token")

    def _logged(self, params: Fields) -> Event[T]:
        owner = None if self.facts is None else self._attribution.of_log(self.facts.era, len(self._pending))
        entry = self._pending.get(owner) if owner is not None else None
        return Dropped("unowned-log") if entry is None else Logged(entry, params)

    def _withdrawn(self, params: Fields) -> Event[T]:
        key = bytes(params.get("requestId", b""))
        # One that was answered meanwhile was withdrawn in vain, and no offence.
        return Withdrawn(key) if self._questions.close(key) else Dropped("late-notification")

    def _other(self, method: str, params: Fields) -> Event[T]:
        """Raises `Malformed` for a `_meta` that is none."""
        meta = jsonrpc.fields(params["_meta"], "_meta") if "_meta" in params else {}
        tag = meta.pop(META_SUBSCRIPTION, None)
        if tag is None:
            return Notified(method, params)
        subscription = _own_id(bytes(tag))
        if subscription not in self._listens:
            late = self._pending.is_abandoned(subscription)
            return Dropped("late-notification") if late else Offence("unknown-subscription")
        params["_meta"] = jsonrpc.raw(meta)
        if not meta:
            del params["_meta"]
        return Notified(method, params, subscription)


def _refused_unread(message: Message) -> Refused | None:
    """The refusal of a question that no client is asked, or not in this form."""
    if message.method not in ASKS:
        return Refused("unknown-request", message.method, _refusal(message.id, _UNKNOWN))
    try:
        jsonrpc.fields(jsonrpc.fields(message.body).get("_meta", EMPTY_OBJECT), "_meta")
    except jsonrpc.Malformed:
        return Refused("malformed-request", message.method, _refusal(message.id, _MALFORMED))
    return None


def _own_id(data: bytes) -> int:
    """The integer that an id or token of ours was, or -1, which is none of ours."""
    return int(data) if data.isdigit() and len(data) <= MAX_ID_DIGITS else -1


def _reply(key: bytes, result: Raw) -> bytes:
    return jsonrpc.one_line(jsonrpc.encode_answer(key, result)) + b"\n"


def _refusal(key: bytes, error: ErrorObject) -> bytes:
    return jsonrpc.one_line(jsonrpc.encode_error(key, error)) + b"\n"
