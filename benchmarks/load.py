"""A load generator in a process of its own: N keep-alive connections, each calling one tool again and again.

Raw sockets and prepared bytes, so that it costs little beside what it measures. Prints one JSON object.
"""

import json
import selectors
import socket
import sys
import time


def request_bytes(path: str, token: str, payload: int) -> bytes:
    """One modern `tools/call`, whole, with `payload` bytes of argument."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": "echo", "arguments": {"text": "x" * payload}, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
        "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: echo\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def answered(buffer: bytes) -> bool:
    """Whether a whole JSON response is there; anything but a good one ends the run."""
    head, separator, body = buffer.partition(b"\r\n\r\n")
    if not separator:
        return False
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"refused: {buffer[:300]!r}")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return len(body) >= length


def run(port: int, request: bytes, clients: int, seconds: float) -> dict[str, float]:
    """Keep `clients` connections busy; latencies in microseconds, calls per second."""
    selector = selectors.DefaultSelector()
    state: dict[socket.socket, tuple[float, bytes]] = {}
    for _ in range(clients):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(sock, selectors.EVENT_READ)
        state[sock] = (time.perf_counter(), b"")
        sock.sendall(request)
    latencies: list[float] = []
    begin = time.perf_counter()
    while (now := time.perf_counter()) < begin + seconds:
        for key, _ in selector.select(timeout=1):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            sent, buffer = state[sock]
            buffer += sock.recv(1 << 20)
            if answered(buffer):
                now = time.perf_counter()
                latencies.append(now - sent)
                state[sock] = (now, b"")
                sock.sendall(request)
            else:
                state[sock] = (sent, buffer)
    latencies.sort()
    return {
        "calls": len(latencies),
        "calls_per_second": len(latencies) / seconds,
        "p50_us": latencies[len(latencies) // 2] * 1e6,
        "p99_us": latencies[len(latencies) * 99 // 100] * 1e6,
    }


if __name__ == "__main__":
    port, path, token, payload, clients, seconds = sys.argv[1:]
    prepared = request_bytes(path, token, int(payload))
    sys.stdout.write(json.dumps(run(int(port), prepared, int(clients), float(seconds))) + "\n")
