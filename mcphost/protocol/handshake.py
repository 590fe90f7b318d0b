"""How the era of a worker is found, and what its server says of itself meanwhile.

A worker process has one era, whatever its clients speak. It is found without a timeout by sending
`server/discover` and `initialize` back to back: a discover answer that names the modern revision means
modern, an initialize answer means legacy. A server that knows both eras takes the first message and refuses
the other, so either verdict stands once given. (The specification advises to probe alone first; a server
that stays silent before `initialize` would then cost a timeout at each start, and under load a slow modern
server would be taken for a legacy one.) The policy can pin the era, and then one message is sent.

A server that refuses `initialize` for its version, -32022, says with that that it is modern. If it has refused the
discovery before, by mistake or because it looked at `initialize` first, the discovery is sent once more.
"""

from collections.abc import Callable
from typing import Literal

from msgspec import Raw

from mcphost.errors import UNSUPPORTED_PROTOCOL_VERSION
from mcphost.protocol import jsonrpc, versions
from mcphost.protocol.asking import Declared
from mcphost.protocol.envelope import META_CAPABILITIES, META_CLIENT, META_SERVER, META_VERSION
from mcphost.protocol.events import Opened, OpenFailed, Reprobed, ServerFacts
from mcphost.protocol.jsonrpc import EMPTY_OBJECT, Fields, Message
from mcphost.protocol.versions import Era

EraChoice = Literal["auto", "legacy", "modern"]


class Handshake:
    """The probes of one connection. Its requests carry ids from `reserve`."""

    def __init__(
        self, era: EraChoice, client_info: Raw, declared: Declared, reserve: Callable[[], int]
    ) -> None:
        self._choice = era
        self._client_info = client_info
        self._declared = declared
        self._reserve = reserve
        self._probes: dict[int, Era] = {}
        self._refusals: list[str] = []
        self._must_be_modern = False  # it said so, and has not yet been asked again
        self.facts: ServerFacts | None = None

    def open(self) -> bytes:
        """The lines that begin the connection."""
        lines = []
        if self._choice != "legacy":
            lines.append(self._discover())
        if self._choice != "modern":
            params = {
                "protocolVersion": jsonrpc.raw(versions.LATEST_LEGACY),
                "capabilities": self._declared.raw,
                "clientInfo": self._client_info,
            }
            lines.append(self._probe("legacy", "initialize", params))
        return b"".join(lines)

    def sent(self, identifier: int) -> bool:
        """Whether an id is that of a probe without an answer."""
        return identifier in self._probes

    def answered(self, identifier: int, message: Message) -> Opened | OpenFailed | Reprobed | None:
        """Read the answer to a probe that was `sent`. None where nothing follows from it."""
        era = self._probes.pop(identifier)
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
        if era == "legacy" and self._choice == "auto" and _speaks_modern_only(message):
            self._must_be_modern = True
        if self._probes:
            return None
        if self._must_be_modern:
            self._must_be_modern = False
            return Reprobed(self._discover())
        return OpenFailed("; ".join(self._refusals))

    def _discover(self) -> bytes:
        meta = {
            META_VERSION: versions.MODERN,
            META_CLIENT: self._client_info,
            META_CAPABILITIES: EMPTY_OBJECT,
        }
        return self._probe("modern", "server/discover", {"_meta": jsonrpc.raw(meta)})

    def _probe(self, era: Era, method: str, params: Fields) -> bytes:
        identifier = self._reserve()
        self._probes[identifier] = era
        return jsonrpc.encode_request(identifier, method, params)


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


def _speaks_modern_only(message: Message) -> bool:
    """Whether an answer to `initialize` is the refusal that modern servers give (2026-07-28, basic/versioning)."""
    return message.kind == "error" and jsonrpc.error_object(message.body).code == UNSUPPORTED_PROTOCOL_VERSION


def _complaint(message: Message) -> str:
    if message.kind == "result":
        return "answered without a revision that is spoken here"
    error = jsonrpc.error_object(message.body)
    return f"error {error.code} {error.message[:200]!r}"
