"""Every error of the runtime, and the one table of what each means on the wire.

    McpHostError
    ├── PolicyError                  the policy cannot be used; exit status 78 (sysexits.h, EX_CONFIG)
    │   ├── PolicyUnreadable
    │   └── PolicyInvalid
    ├── StartRefused                 something asked for cannot be enforced or bound; exit status 1
    ├── ProtocolError
    │   ├── DownstreamProtocolError  the client broke MCP
    │   └── UpstreamProtocolError    the server broke MCP
    ├── Refusal                      we said no before doing
    │   ├── Unauthenticated, Forbidden, NotFound, SessionNotFound, BadHttp
    │   ├── RateLimited
    │   │   └── QuotaUsedUp          for the day
    │   └── Overloaded, AuditUnavailable
    ├── CallFailure                  it went wrong while doing
    │   ├── CallTimeout
    │   ├── CannotAsk, Unanswered
    │   ├── WorkerDied, WorkerGone, WorkerUnavailable
    │   │   └── WorkerFailed         for good
    │   └── StartFailed              a worker did not get ready
    └── ServerError                  a server's own JSON-RPC error, passed through

Codes of our own are positive: the 2026-07-28 text (basic/index, "Error Codes") forbids new codes in
-32000..-32019, reserves -32020..-32099 and asks for application codes outside -32768..-32000.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020
MISSING_CLIENT_CAPABILITY = -32021
UNSUPPORTED_PROTOCOL_VERSION = -32022

# JSON-RPC codes that the modern HTTP binding answers with a status other than 200 (2026-07-28,
# basic/index and basic/transports/streamable-http).
MODERN_STATUS: Mapping[int, int] = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    MISSING_CLIENT_CAPABILITY: 400,
    UNSUPPORTED_PROTOCOL_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}


@dataclass(frozen=True, slots=True)
class WireError:
    """What a client is told: HTTP status, JSON-RPC error object, extra response headers."""

    status: int
    code: int
    message: str
    data: object = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


class McpHostError(Exception):
    """Root of every error raised on purpose; `str()` of it is safe to show to a client.

    `request_id` is the raw id of the client's request where one could be read, else empty.
    """

    request_id = b""
    reason = "internal"
    status = 500
    rpc_code = INTERNAL_ERROR
    retryable = False

    def to_wire(self) -> WireError:
        """What the client is told of this error."""
        data = {"reason": self.reason, "retryable": self.retryable}
        return WireError(self.status, self.rpc_code, str(self), data)


# --- policy -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a policy, with its place and the remedy.

    `line` and `column` count from 1; 0 means that the file as a whole is meant. `value` is left out
    (None) where it could be a secret.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    value: str | None = None
    allowed: str | None = None
    suggestion: str | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        where = f"{place}: {self.path}" if self.path else place
        hints = []
        if self.value is not None:
            hints.append(f"got {self.value}")
        if self.allowed is not None:
            hints.append(f"allowed: {self.allowed}")
        if self.suggestion is not None:
            hints.append(f"did you mean {self.suggestion}?")
        return f"{where}: {self.message}" + (f" ({'; '.join(hints)})" if hints else "")


class PolicyError(McpHostError):
    """The policy file cannot be used as it is."""

    reason = "policy"


class PolicyUnreadable(PolicyError):
    """The file could not be read at all."""

    reason = "policy-unreadable"

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path


class PolicyInvalid(PolicyError):
    """The file was read and is wrong; `problems` holds every finding, in the order of their places."""

    reason = "policy-invalid"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class StartRefused(McpHostError):
    """The runtime will not start: what the policy asks for cannot be had here. The text says the remedy."""

    reason = "start-refused"


# --- protocol ---------------------------------------------------------------------------------------


class ProtocolError(McpHostError):
    """Somebody broke MCP."""

    reason = "protocol"


class DownstreamProtocolError(ProtocolError):
    """The client did. `code` is the JSON-RPC code that the specification asks for."""

    reason = "invalid-request"
    status = 400

    def __init__(self, code: int, message: str, *, data: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.rpc_code = code
        self.data = data

    def to_wire(self) -> WireError:
        """The specified code; `MODERN_STATUS` decides the status on the modern face."""
        return WireError(MODERN_STATUS.get(self.rpc_code, 400), self.rpc_code, str(self), self.data)


class UpstreamProtocolError(ProtocolError):
    """The server did."""

    reason = "server-protocol"
    status = 200


# --- refusals ---------------------------------------------------------------------------------------


class Refusal(McpHostError):
    """We said no before anything was done."""

    rpc_code = 400
    status = 400


class Unauthenticated(Refusal):
    """No token, or none that we know. Never says which."""

    reason = "unauthenticated"
    status = rpc_code = 401

    def __init__(self) -> None:
        super().__init__("a valid bearer token is required")

    def to_wire(self) -> WireError:
        """401 with the challenge of RFC 6750, section 3."""
        challenge = ((b"www-authenticate", b'Bearer realm="mcphost"'),)
        return WireError(401, 401, str(self), {"reason": self.reason, "retryable": False}, challenge)


class Forbidden(Refusal):
    """Known, and not allowed to."""

    reason = "forbidden"
    status = rpc_code = 403


class NotFound(Refusal):
    """No such endpoint for this tenant; the same answer whether it exists for another or not."""

    reason = "not-found"
    status = rpc_code = 404


class SessionNotFound(Refusal):
    """No such session for this principal: ended, expired, foreign or never made."""

    reason = "session-not-found"
    status = rpc_code = 404

    def __init__(self) -> None:
        super().__init__("no such session; initialize again")


class BadHttp(Refusal):
    """The HTTP request itself is refused, with its own status."""

    reason = "bad-http"

    def __init__(self, status: int, message: str, *, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(message)
        self.status = self.rpc_code = status
        self.headers = headers

    def to_wire(self) -> WireError:
        """The status as given, and a JSON-RPC error for clients that look for one."""
        data = {"reason": self.reason, "retryable": False}
        return WireError(self.status, self.rpc_code, str(self), data, self.headers)


class _RetryLater(Refusal):
    retryable = True

    def __init__(self, message: str, *, retry_after: float) -> None:
        """`retry_after` in seconds; rounded up for the header (RFC 9110, section 10.2.3)."""
        super().__init__(message)
        self.retry_after = retry_after

    def to_wire(self) -> WireError:
        seconds = max(1, math.ceil(self.retry_after))
        data = {"reason": self.reason, "retryable": True, "retryAfter": round(self.retry_after, 3)}
        headers = ((b"retry-after", str(seconds).encode()),)
        return WireError(self.status, self.rpc_code, str(self), data, headers)


class RateLimited(_RetryLater):
    """The tenant's rate is used up for now."""

    reason = "rate-limited"
    status = rpc_code = 429


class QuotaUsedUp(RateLimited):
    """The tenant has asked for as much as it may on one day."""

    reason = "quota"


class Overloaded(_RetryLater):
    """A bound on calls under way is reached."""

    reason = "overloaded"
    status = rpc_code = 503


class AuditUnavailable(_RetryLater):
    """The call could not be recorded, so it was not begun."""

    reason = "audit-unavailable"
    status = rpc_code = 503

    def __init__(self) -> None:
        super().__init__("the call cannot be recorded now, so it was not begun", retry_after=1.0)


# --- failures ---------------------------------------------------------------------------------------


class CallFailure(McpHostError):
    """The call was accepted and went wrong.

    The HTTP status is 200: with 5xx the TypeScript SDK shows a transport error in place of ours.
    """

    reason = "call-failed"
    status = 200
    rpc_code = 500


class CallTimeout(CallFailure):
    """The deadline passed; the server was told to cancel."""

    reason = "timeout"
    rpc_code = 504

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer within {seconds:g} s; the call was cancelled")


class CannotAsk(CallFailure):
    """The server asks something that cannot be put to the client now: its stream is gone, or it owes too many answers."""

    reason = "cannot-ask"
    rpc_code = 424


class Unanswered(CallFailure):
    """The client did not answer in time what the server asked it; the server was told to cancel."""

    reason = "unanswered"
    rpc_code = 408

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"what the server asked was not answered within {seconds:g} s; the call was cancelled"
        )


class WorkerDied(CallFailure):
    """The worker ended while the call was in flight; whether the call took effect is unknown."""

    reason = "worker-died"
    rpc_code = 502


class WorkerGone(CallFailure):
    """The process that made what the call brings along is no more, and no other knows it; nothing was delivered."""

    reason = "worker-gone"
    rpc_code = 410

    def __init__(self) -> None:
        super().__init__("the worker that this call belongs to has ended; begin again")


class WorkerUnavailable(CallFailure):
    """No worker can take the call now; it was not delivered to any."""

    reason = "worker-unavailable"
    rpc_code = 503
    retryable = True


class WorkerFailed(WorkerUnavailable):
    """The server ended or failed to start too often and is started no more."""

    retryable = False


class StartFailed(CallFailure):
    """A worker did not get ready; the text says what was missing and shows the end of its stderr."""

    reason = "start-failed"


class ServerError(McpHostError):
    """A server's own JSON-RPC error on its way to the client: neither a refusal nor a failure of ours.

    `code` is the server's; `raw_data` its error data as raw JSON, empty where it gave none, so that it reaches
    the client byte for byte.
    """

    reason = "error"
    status = 200

    def __init__(self, code: int, message: str, raw_data: bytes = b"") -> None:
        super().__init__(message)
        self.code = self.rpc_code = code
        self.raw_data = raw_data

    @property
    def data(self) -> object:
        """The server's error data; None where it gave none."""
        return msgspec.json.decode(self.raw_data) if self.raw_data else None

    def to_wire(self) -> WireError:
        """The server's error as it is."""
        return WireError(
            self.status, self.code, str(self), msgspec.Raw(self.raw_data) if self.raw_data else None
        )


def to_wire(error: BaseException) -> WireError:
    """What a client is told of any exception: ours as they say, all others as an internal error.

    The text of an unexpected exception is never shown: it may hold what the client must not see.
    """
    if isinstance(error, McpHostError):
        return error.to_wire()
    return WireError(500, INTERNAL_ERROR, "internal error", {"reason": "internal", "retryable": False})
