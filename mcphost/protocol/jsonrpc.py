"""JSON-RPC 2.0 envelopes, read once and written once.

Three properties of the decoder matter for safety, each held by a test:

- a raw value keeps the line breaks that stood between its tokens, and a line break ends a message on stdio,
  so `one_line` removes them (inside strings they are refused by the decoder already);
- a raw value may hold bytes that are no UTF-8, so `decode` checks the whole message first;
- of duplicate keys the last one counts, so whatever is judged is what is written out again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from msgspec import Raw

from mcphost.errors import INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR, WireError

Fields = dict[str, Raw]

EMPTY_OBJECT: Final = Raw(b"{}")
# U+2028, U+2029 and U+0085 in UTF-8, each with its spelling in JSON.
_LINE_ENDS: Final = (
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
    (b"\xc2\x85", b"\\u0085"),
)
MAX_ID_BYTES: Final = 1024  # an id is echoed and kept; real ones are integers or UUIDs


class Malformed(Exception):
    """The bytes are no JSON-RPC 2.0 message; `code` is the JSON-RPC error for it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Envelope(msgspec.Struct):
    jsonrpc: str = ""
    method: str | None = None
    id: Raw = Raw()
    params: Raw = Raw()
    result: Raw = Raw()
    error: Raw = Raw()


class ErrorObject(msgspec.Struct):
    """A JSON-RPC error object; `data` as it came."""

    code: int
    message: str = ""
    data: Raw = Raw()


Kind = Literal["request", "notification", "result", "error"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message: `body` is the raw params, result or error object; `id` is raw JSON, empty if none."""

    kind: Kind
    method: str
    id: bytes
    body: Raw


_envelope = msgspec.json.Decoder(_Envelope)
_fields = msgspec.json.Decoder(Fields)
_error = msgspec.json.Decoder(ErrorObject)
_strings = msgspec.json.Decoder(list[str])
_objects = msgspec.json.Decoder(list[Fields])
_number = msgspec.json.Decoder(float)
_text = msgspec.json.Decoder(str)
_encode = msgspec.json.encode


def decode(data: bytes) -> Message:
    """Read one message.

    Raises:
        Malformed: -32700 if it is no JSON in UTF-8, -32600 if it is no JSON-RPC 2.0 message.
    """
    try:
        if not data.isascii():
            data.decode()
        envelope = _envelope.decode(data)
    except msgspec.ValidationError as error:
        raise Malformed(INVALID_REQUEST, f"not a JSON-RPC message: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Malformed(PARSE_ERROR, "not valid JSON in UTF-8") from None
    except RecursionError:
        raise Malformed(PARSE_ERROR, "nested too deeply") from None
    if envelope.jsonrpc != "2.0":
        raise Malformed(INVALID_REQUEST, 'not a JSON-RPC 2.0 message: "jsonrpc" must be "2.0"')
    return _classify(envelope)


def _classify(envelope: _Envelope) -> Message:
    identifier = bytes(envelope.id)
    result, error = bytes(envelope.result), bytes(envelope.error)
    if envelope.method is not None:
        if result or error:
            raise Malformed(INVALID_REQUEST, "both a request and a response")
        if identifier and not valid_id(identifier):
            raise Malformed(INVALID_REQUEST, "the id must be a string or an integer")
        return Message(
            "request" if identifier else "notification", envelope.method, identifier, envelope.params
        )
    if bool(result) == bool(error):
        raise Malformed(INVALID_REQUEST, "neither a request nor a response with a result or an error")
    return Message(
        "result" if result else "error", "", identifier, envelope.result if result else envelope.error
    )


def valid_id(identifier: bytes) -> bool:
    """Whether raw JSON is a string or an integer, as MCP wants its ids (never null, never a fraction)."""
    if len(identifier) > MAX_ID_BYTES:
        return False
    return identifier[:1] == b'"' or identifier.lstrip(b"-").isdigit()


def fields(raw: Raw, what: str = "params") -> Fields:
    """Cut an object into its members, each still raw; nothing at all reads as an empty object.

    Raises:
        Malformed: -32602 if it is no object.
    """
    data = bytes(raw)
    if not data:
        return {}
    try:
        return _fields.decode(data)
    except (msgspec.DecodeError, RecursionError):
        raise Malformed(INVALID_PARAMS, f"{what} must be an object") from None


def text(raw: Raw | None) -> str | None:
    """The string that raw JSON holds, or None if it holds none."""
    if raw is None:
        return None
    try:
        return _text.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def number(raw: Raw | None) -> float | None:
    """The number that raw JSON holds, or None if it holds none."""
    if raw is None:
        return None
    try:
        return _number.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def strings(raw: Raw | None) -> list[str]:
    """The list of strings that raw JSON holds; empty if it holds none."""
    if raw is None:
        return []
    try:
        return _strings.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return []


def objects(raw: Raw | None, what: str) -> list[Fields]:
    """The list of objects that raw JSON holds, each cut into its members.

    Raises:
        Malformed: -32602 if it is no list of objects.
    """
    try:
        return [] if raw is None else _objects.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        raise Malformed(INVALID_PARAMS, f"{what} must be a list of objects") from None


def error_object(raw: Raw) -> ErrorObject:
    """Read an error object; one that is none becomes an internal error, since we must answer something."""
    try:
        return _error.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return ErrorObject(-32603, "the server answered with a malformed error")


def raw(value: object) -> Raw:
    """Any JSON value as raw bytes."""
    return Raw(_encode(value))


def raw_bytes(value: object) -> bytes:
    """Any JSON value as bytes."""
    return _encode(value)


def encode_request(identifier: int, method: str, params: Mapping[str, Raw] | None) -> bytes:
    """A request of ours as one stdio line, line break included."""
    return _line({"jsonrpc": "2.0", "id": identifier, "method": method}, params)


def encode_notification(method: str, params: Mapping[str, Raw] | None) -> bytes:
    """A notification of ours as one stdio line, line break included."""
    return _line({"jsonrpc": "2.0", "method": method}, params)


def encode_answer(identifier: bytes, result: Raw) -> bytes:
    """A successful response. `identifier` is raw JSON; line breaks between the result's tokens are left."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (identifier or b"null", bytes(result))


def encode_error(identifier: bytes, error: ErrorObject | WireError) -> bytes:
    """An error response; an id that could not be read is left out (2026-07-28)."""
    members: dict[str, object] = {"code": error.code, "message": error.message}
    absent = error.data is None or (isinstance(error.data, Raw) and not bytes(error.data))
    if not absent:
        members["data"] = error.data
    head = b'{"jsonrpc":"2.0",' + (b'"id":%b,' % identifier if identifier else b"")
    return b'%b"error":%b}' % (head, _encode(members))


def _line(members: dict[str, object], params: Mapping[str, Raw] | None) -> bytes:
    if params is not None:
        members["params"] = params
    return one_line(_encode(members)) + b"\n"


def one_line(data: bytes) -> bytes:
    """JSON without anything that a reader of lines may take for a line's end: there the next message would begin.

    CR and LF stand between tokens only, and go. What Unicode calls line ends stands in strings only, where an escape
    says the same: Node's `readline` and Python's `str.splitlines` cut there, though MCP means LF.
    """
    if b"\n" in data or b"\r" in data:
        data = data.translate(None, b"\r\n")
    if data.isascii():
        return data
    for line_end, escape in _LINE_ENDS:
        data = data.replace(line_end, escape)
    return data
