"""What we say to clients in our own name: handshakes, discovery, progress, questions, and the session rules.

The client side keeps no state of its own besides a legacy session's negotiated revision, so it is a set of
pure functions rather than a machine.
"""

from dataclasses import dataclass

from msgspec import Raw

from mcphost.protocol import bridge, jsonrpc, versions
from mcphost.protocol.jsonrpc import Fields


@dataclass(frozen=True, slots=True)
class Face:
    """What an endpoint shows of itself."""

    capabilities: dict[str, dict[str, object]]
    info: Raw
    instructions: str | None


def initialize_result(params: Fields, face: Face) -> tuple[str, Raw]:
    """The negotiated legacy revision, and the answer to `initialize` (2025-11-25, basic/lifecycle)."""
    version = versions.negotiate_legacy(jsonrpc.text(params.get("protocolVersion")))
    members: dict[str, object] = {
        "protocolVersion": version,
        "capabilities": face.capabilities,
        "serverInfo": face.info,
    }
    if face.instructions:
        members["instructions"] = face.instructions
    return version, jsonrpc.raw(members)


def discover_result(face: Face) -> Raw:
    """The answer to `server/discover` (2026-07-28, server/discover).

    It names every revision spoken, also those that begin with `initialize`: the same that a client is told whose
    version is not among them (basic/versioning).
    """
    members = {
        "supportedVersions": jsonrpc.raw(versions.SUPPORTED),
        "capabilities": jsonrpc.raw(face.capabilities),
    }
    if face.instructions:
        members["instructions"] = jsonrpc.raw(face.instructions)
    return jsonrpc.raw(bridge.modern_result("server/discover", members, face.info))


def progress(params: Fields, token: Raw) -> bytes:
    """A server's progress under the client's own token, as a notification without a line break."""
    renamed = {**params, "progressToken": token}
    return jsonrpc.one_line(
        jsonrpc.raw_bytes({"jsonrpc": "2.0", "method": "notifications/progress", "params": renamed})
    )


def log_message(params: Fields) -> bytes:
    """A server's log message, as a notification without a line break."""
    return jsonrpc.one_line(
        jsonrpc.raw_bytes({"jsonrpc": "2.0", "method": "notifications/message", "params": params})
    )


def progress_token(meta: Fields) -> Raw | None:
    """The token under which a client wants progress; None if it wants none or gave no valid one."""
    token = meta.get("progressToken")
    return token if token is not None and jsonrpc.valid_id(bytes(token)) else None


def question(identifier: bytes, method: str, params: Raw) -> bytes:
    """A request of ours to a legacy client, without a line break. `identifier` is raw JSON."""
    return jsonrpc.one_line(
        b'{"jsonrpc":"2.0","id":%b,"method":%b,"params":%b}'
        % (identifier, jsonrpc.raw_bytes(method), bytes(params) or b"{}")
    )


def withdrawal(identifier: bytes, reason: str) -> bytes:
    """Takes a question back (2025-11-25, basic/utilities/cancellation)."""
    params = {"requestId": Raw(identifier), "reason": reason}
    return jsonrpc.raw_bytes({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})
