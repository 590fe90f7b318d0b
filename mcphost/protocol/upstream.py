"""Our side of MCP towards one worker, as a machine: lines in, events and lines out.

A worker process has one era, whatever its clients speak. It is found without a timeout by sending
`server/discover` and `initialize` back to back: a discover answer that names the modern revision means
modern, an initialize answer means legacy. A server that knows both eras takes the first message and refuses
the other, so either verdict stands once given. (The specification advises to probe alone first; a server
that stays silent before `initialize` would then cost a timeout at each start, and under load a slow modern
server would be taken for a legacy one.) The policy can pin the era, and then one message is sent.

Nothing but the probe is sent before the era is known: some legacy servers answer anything.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar, assert_never

from msgspec import Raw

from mcphost.protocol import jsonrpc, versions
from mcphost.protocol.envelope import META_CAPABILITIES, META_CLIENT, META_SERVER, META_VERSION
from mcphost.protocol.jsonrpc import EMPTY_OBJECT, Fields, Message
from mcphost.protocol.pending import Pending
from mcphost.protocol.versions import Era

T = TypeVar("T")

MAX_ID_DIGITS = 18  # ours are small integers; a longer one is not worth converting

EraChoice = Literal["auto", "legacy", "modern"]


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server said of itself when it was opened."""

    era: Era
    version: str
    capabilities: Fields = field(default_factory=dict)
    info: Raw = field(default_factory=lambda: EMPTY_OBJECT)
    instructions: str | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """The server can take requests."""

    facts: ServerFacts


@dataclass(frozen=True, slots=True)
class OpenFailed:
    """The server answered the handshake with errors only."""

    message: str


@dataclass(frozen=True, slots=True)
class Answered(Generic[T]):
    """A request of ours was answered."""

    entry: T
    message: Message


@dataclass(frozen=True, slots=True)
class Progressed(Generic[T]):
    """A request of ours made progress; `params` as the server sent them."""

    entry: T
    params: Fields


@dataclass(frozen=True, slots=True)
class Asked:
    """The server asked the client something; `reply` is the line that answers it."""

    method: str
    reply: bytes


@dataclass(frozen=True, slots=True)
class Notified:
    """A notification that belongs to no request in flight."""

    method: str


@dataclass(frozen=True, slots=True)
class Offence:
    """The server sent what it must not; the line was passed over."""

    what: Literal["not-json-rpc", "unknown-id", "unknown-token"]


Event = Opened | OpenFailed | Answered[T] | Progressed[T] | Asked | Notified | Offence


class Upstream(Generic[T]):
    """The protocol state of one connection to a worker. T is whatever the caller keeps per request."""

    def __init__(self, *, era: EraChoice, client_info: Raw) -> None:
        self._choice = era
        self._client_info = client_info
        self._pending: Pending[T] = Pending()
        self._probes: dict[int, Era] = {}
        self._refusals: list[str] = []
        self.facts: ServerFacts | None = None

    def __repr__(self) -> str:
        state = "opening" if self.facts is None else self.facts.era
        return f"<Upstream {state}, {len(self._pending)} in flight>"

    def __len__(self) -> int:
        """Requests in flight."""
        return len(self._pending)

    def open(self) -> bytes:
        """The lines that begin the connection."""
        lines = []
        if self._choice != "legacy":
            lines.append(self._probe("modern", "server/discover", {"_meta": jsonrpc.raw(self._own_meta())}))
        if self._choice != "modern":
            params = {
                "protocolVersion": jsonrpc.raw(versions.LATEST_LEGACY),
                "capabilities": EMPTY_OBJECT,
                "clientInfo": self._client_info,
            }
            lines.append(self._probe("legacy", "initialize", params))
        return b"".join(lines)

    def reserve(self) -> int:
        """A fresh id; it also serves as the progress token of the request that carries it."""
        return self._pending.reserve()

    def request(self, identifier: int, method: str, params: Fields, entry: T) -> bytes:
        """The line of a request under a reserved id; its answer comes back with `entry`."""
        self._pending.add(identifier, entry)
        return jsonrpc.encode_request(identifier, method, params)

    def cancel(self, identifier: int, reason: str) -> bytes:
        """The line that cancels a request; empty if it was answered meanwhile."""
        if self._pending.abandon(identifier) is None:
            return b""
        params = {"requestId": jsonrpc.raw(identifier), "reason": jsonrpc.raw(reason)}
        return jsonrpc.encode_notification("notifications/cancelled", params)

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

    def confirm(self) -> bytes:
        """The line that ends a legacy handshake; to be sent once after `Opened`, empty for a modern worker."""
        if self.facts is not None and self.facts.era == "legacy":
            return jsonrpc.encode_notification("notifications/initialized", None)
        return b""

    def drain(self) -> list[T]:
        """The entries of all requests in flight, for a connection that is gone."""
        return self._pending.drain()

    def _own_meta(self) -> dict[str, object]:
        return {
            META_VERSION: versions.MODERN,
            META_CLIENT: self._client_info,
            META_CAPABILITIES: EMPTY_OBJECT,
        }

    def _probe(self, era: Era, method: str, params: Fields) -> bytes:
        identifier = self._pending.reserve()
        self._probes[identifier] = era
        return jsonrpc.encode_request(identifier, method, params)

    def _answered(self, message: Message) -> Event[T] | None:
        identifier = _own_id(message.id)
        if identifier in self._probes:
            return self._probed(self._probes.pop(identifier), message)
        entry = self._pending.take(identifier)
        if entry is not None:
            return Answered(entry, message)
        return None if self._pending.was_abandoned(identifier) else Offence("unknown-id")

    def _probed(self, era: Era, message: Message) -> Event[T] | None:
        if self.facts is not None:
            return None
        facts = None
        if message.kind == "result":
            facts = _modern_facts(message.body) if era == "modern" else _legacy_facts(message.body)
        if facts is not None:
            self.facts = facts
            return Opened(facts)
        method = "server/discover" if era == "modern" else "initialize"
        self._refusals.append(f"{method}: {_complaint(message)}")
        return None if self._probes else OpenFailed("; ".join(self._refusals))

    def _asked(self, message: Message) -> Asked:
        # We declare no client capability, so a conforming server asks nothing but `ping`.
        if message.method == "ping":
            return Asked("ping", jsonrpc.encode_answer(message.id, EMPTY_OBJECT) + b"\n")
        error = jsonrpc.ErrorObject(-32601, "this client offers no such method")
        return Asked(message.method, jsonrpc.encode_error(message.id, error) + b"\n")

    def _notified(self, message: Message) -> Event[T]:
        if message.method != "notifications/progress":
            return Notified(message.method)
        try:
            params = jsonrpc.fields(message.body)
        except jsonrpc.Malformed:
            return Offence("not-json-rpc")
        token = _own_id(bytes(params.get("progressToken", b"")))
        entry = self._pending.get(token)
        if entry is not None:
            return Progressed(entry, params)
        # A server that reports progress before it has read our cancellation does nothing wrong.
        return Notified(message.method) if self._pending.is_abandoned(token) else Offence("unknown-token")


def _own_id(data: bytes) -> int:
    """The integer that an id or token of ours was, or -1, which is none of ours."""
    return int(data) if data.isdigit() and len(data) <= MAX_ID_DIGITS else -1


def _modern_facts(result: Raw) -> ServerFacts | None:
    """A good discover answer names the modern revision; an answer alone is no evidence."""
    return _facts(result, "modern", _supports_modern)


def _legacy_facts(result: Raw) -> ServerFacts | None:
    return _facts(result, "legacy", lambda members: jsonrpc.text(members.get("protocolVersion")))


def _facts(result: Raw, era: Era, version_of: Callable[[Fields], str | None]) -> ServerFacts | None:
    try:
        members = jsonrpc.fields(result)
        version = version_of(members)
        if version is None:
            return None
        capabilities = jsonrpc.fields(members.get("capabilities", EMPTY_OBJECT))
        info = members.get("serverInfo")
        if era == "modern":
            info = jsonrpc.fields(members.get("_meta", EMPTY_OBJECT)).get(META_SERVER)
    except jsonrpc.Malformed:
        return None
    return ServerFacts(era, version, capabilities, _object(info), jsonrpc.text(members.get("instructions")))


def _object(raw: Raw | None) -> Raw:
    """What a server says of itself is passed on, so it has to be an object; anything else counts as nothing."""
    return raw if raw is not None and bytes(raw).startswith(b"{") else EMPTY_OBJECT


def _supports_modern(members: Fields) -> str | None:
    names = jsonrpc.strings(members.get("supportedVersions"))
    return versions.MODERN if versions.MODERN in names else None


def _complaint(message: Message) -> str:
    if message.kind == "result":
        return "answered without a revision that is spoken here"
    error = jsonrpc.error_object(message.body)
    return f"error {error.code} {error.message[:200]!r}"
