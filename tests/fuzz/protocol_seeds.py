"""Well-formed input for the targets of `protocol_targets`."""

from fuzz.protocol_targets import AUDIENCE, BOUND, SEALER
from mcphost.decisions.cursors import seal_cursor
from mcphost.decisions.handles import StateHandle, encode
from mcphost.decisions.paging import Position

MODERN = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"a":[1]},"_meta":'
    b'{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}'
)
LEGACY = (
    b'{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"echo","_meta":{"progressToken":1}}}'
)
NOTE = b'{"jsonrpc":"2.0","method":"notifications/%b","params":%b}'
ELICIT = b'{"method":"elicitation/create","params":{"mode":"url","url":"https://a","message":"?"}}'
FORM = b'{"message":"?","requestedSchema":{"type":"object","properties":{}},"elicitationId":"1","_meta":{"progressToken":2}}'
LINES = (
    NOTE % (b"progress", b'{"progressToken":3,"progress":1}'),
    NOTE % (b"message", b'{"level":"info","data":{}}'),
    b'{"jsonrpc":"2.0","id":"q","method":"roots/list"}',
    b'{"jsonrpc":"2.0","id":7,"method":"elicitation/create","params":' + FORM + b"}",
    NOTE % (b"cancelled", b'{"requestId":"q"}'),
    NOTE % (b"tools/list_changed", b'{"_meta":{"io.modelcontextprotocol/subscriptionId":6}}'),
    b'{"jsonrpc":"2.0","id":9,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":4,"result":{"content":[]}}',
    b'{"jsonrpc":"2.0","id":3,"error":{"code":-32601,"message":"no","data":{}}}',
    b'{"jsonrpc":"2.0","id":5,"result":{}}',
)
FILTER = b'{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["a:/b"],"taskIds":["t"]}}'
SCHEMA = (
    b'{"type":"object","properties":{"at":{"type":"object","properties":'
    b'{"region":{"type":"string","x-mcp-header":"Region"}}}}}'
)
RESULT = (
    b'{"resultType":"complete","content":[{"type":"resource_link","uri":"a:/b"},{"type":"resource","resource":'
    b'{"uri":"a:/c","text":"x"}},{"type":"text","text":"uri"}],"contents":[{"uri":"a:/d"}],"messages":[{"role":"user",'
    b'"content":{"type":"text","text":"a"}}],"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"a"}},"ttlMs":1}'
)


def protocol_seeds() -> dict[str, list[bytes]]:
    """By target."""
    handle = encode(StateHandle("worker", "fix", "place", b'"s"', BOUND, 1e9))
    required = b'{"resultType":"input_required","inputRequests":{"a":%b},"requestState":"s"}' % ELICIT
    return {
        "client-message": [b"\2\0" + MODERN, b"\1\0" + LEGACY, b"\0\0" + LEGACY],
        "worker-lines": [b"l-c\0" + b"\n".join(LINES), b"mq-\0" + b"\n".join(LINES), b"l--\0" + b"\n".join(LINES[::-1])],
        "attribution": [bytes(range(0, 256, 3)), bytes([0, 5, 3, 2, 9, 11, 10])],
        "listen": [FILTER + b"\0" + NOTE % (b"resources/updated", b'{"uri":"a:/b/c"}')],
        "param-headers": [
            SCHEMA + b'\0eu\0{"at":{"region":"eu"}}',
            SCHEMA + b'\0=?base64?ZXU=?=\0{"at":{"region":"us","region":"eu"}}',
        ],
        "rounds": [required + b'\0{"jsonrpc":"2.0","id":1,"result":{"action":"accept"}}'],
        "gathering": [FORM + b"\0" + FORM + b'\0{"question-1":{"action":"accept"},"question-2":{}}'],
        "sealed": [SEALER.seal("state", handle).encode(), handle, seal_cursor(SEALER, AUDIENCE, Position("a", "b", 1)).encode()],
        "results": [RESULT, required],
        "named": [b"echo", b"file:///a", b"ui://board/x", b"a--0123456789ab", "h\u00e9".encode()],
    }  # fmt: skip
