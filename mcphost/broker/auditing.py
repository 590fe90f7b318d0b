"""What the audit keeps of a call: taken from the request once it has ended, with its arguments as the policy says."""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from msgspec import Raw

from mcphost.broker.request import Record, Request
from mcphost.errors import DownstreamProtocolError, Forbidden, Refusal
from mcphost.protocol import jsonrpc
from mcphost.telemetry.audit import MAX_TEXT_CHARACTERS, Audit, CallRecord
from mcphost.telemetry.logs import printable

REDACTED: Final = "[redacted]"

# Arguments that are longer are kept by their hash only: a record stays one write, and a page on a screen.
MAX_FULL_BYTES: Final = 64 * 1024

# W3C Trace Context, section 3.2.2; 2026-07-28, basic/index, "_meta", reserves the key.
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

Arguments = Literal["hash", "none", "full"]


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of arguments: `redact` holds names as `plain_name` gives them."""

    arguments: Arguments
    redact: frozenset[str]

    @classmethod
    def of(cls, arguments: Arguments, redact: Iterable[str]) -> "Kept":
        """From names as the policy has them."""
        return cls(arguments, frozenset(map(plain_name, redact)))


def plain_name(name: str) -> str:
    """A name in one spelling: case, dashes and underscores make no difference."""
    return name.casefold().replace("-", "").replace("_", "")


class Auditing:
    """Records calls. `new_id` gives the ids of requests, which the log shows too."""

    def __init__(self, audit: Audit, kept: Kept, new_id: Callable[[], str]) -> None:
        self._audit = audit
        self._kept = kept
        self._new_id = new_id

    def begin(self, record: Record) -> None:
        """Make room for the call's record, and give it an id.

        Raises:
            AuditUnavailable: no call may begin.
        """
        if self._audit.promise():
            record.request_id = self._new_id()
            record.extra["request"] = record.request_id

    def finish(self, request: Request, error: Exception | None, seconds: float) -> None:
        """Keep the call's record, if room was made for it."""
        record, inbound, caller = request.record, request.inbound, request.caller
        if not record.request_id:
            return
        arguments = inbound.params.get("arguments", inbound.params.get("argument"))
        name = record.name or _named(inbound.params)
        kept = CallRecord(
            time=self._audit.now(),
            request=record.request_id,
            tenant=caller.principal.tenant,
            token=caller.principal.token_id,
            endpoint=caller.endpoint,
            era=inbound.era,
            method=_text(inbound.method),
            decision=_decision(error),
            outcome=record.status,
            seconds=round(seconds, 6),
            bytes_in=len(bytes(inbound.message.body)),
            bytes_out=record.bytes_out,
            server=record.server,
            name=_text(name),
            rule=_rules(request),
            trace=_trace(inbound.meta.get("traceparent")),
        )
        if arguments is not None and self._kept.arguments != "none":
            kept.arguments_sha256 = digest(arguments)
            if self._kept.arguments == "full" and len(bytes(arguments)) <= MAX_FULL_BYTES:
                kept.arguments = _shown(arguments, self._kept.redact)
        self._audit.call(kept)


def digest(arguments: Raw) -> str:
    """SHA-256 of arguments as the client wrote them, but for spaces and line breaks between them."""
    try:
        written = msgspec.json.format(bytes(arguments), indent=-1)
    except (msgspec.DecodeError, UnicodeError):
        written = bytes(arguments)
    return hashlib.sha256(written).hexdigest()


def redacted(value: object, names: frozenset[str]) -> object:
    """The same with the values of members of these names replaced, at any depth."""
    if isinstance(value, dict):
        return {
            key: REDACTED if plain_name(key) in names else redacted(part, names)
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [redacted(part, names) for part in value]
    return value


def _shown(arguments: Raw, names: frozenset[str]) -> object:
    """Arguments without what is to be left out; None for text that cannot be written again, such as half a character."""
    try:
        return redacted(msgspec.json.decode(arguments), names)
    except (msgspec.DecodeError, UnicodeError):
        return None


def _rules(request: Request) -> list[str]:
    """The patterns that allowed or denied what the request named, as the policy has them; none where it named nothing."""
    server, name = request.record.server, request.record.name
    if not server or not name:
        return []
    rules = request.permissions.judge(server, name).rules
    return [
        f"{'token' if each.of_token else 'tenant'} {each.key} {each.pattern or '(no match)'}"
        for each in rules
    ]


def _named(params: jsonrpc.Fields) -> str:
    """What a request that came to no server was about."""
    for key in ("name", "uri", "taskId"):
        text = jsonrpc.text(params.get(key))
        if text is not None:
            return text
    return ""


def _decision(error: Exception | None) -> Literal["allow", "deny", "refuse"]:
    if isinstance(error, Forbidden):
        return "deny"
    return "refuse" if isinstance(error, Refusal | DownstreamProtocolError) else "allow"


def _trace(raw: Raw | None) -> str:
    text = jsonrpc.text(raw) if raw is not None else None
    match = _TRACEPARENT.fullmatch(text) if text is not None else None
    return match[1] if match else ""


def _text(text: str) -> str:
    return printable(text[:MAX_TEXT_CHARACTERS])
