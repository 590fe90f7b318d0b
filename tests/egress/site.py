"""The far side of the test network, in a network namespace of its own: HTTPS, a raw echo, a bait. Standard library only.

Started with a directory of certificates, and a line on standard input once its network is there. It says `ready`.
"""

import contextlib
import http.server
import socket
import ssl
import sys
import threading
from pathlib import Path

HTTPS, RETRYING, RAW, SILENT, DNS = 443, 8443, 9443, 9444, 53
BIG_BYTES = 8 * 1024 * 1024


class Pages(http.server.SimpleHTTPRequestHandler):
    """Files below the directory, and a few answers of its own."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/hello":
            self._say(f"hello {self.headers['Host']} {self.connection.sni}\n".encode())  # type: ignore[attr-defined]
        elif self.path == "/big":
            self._say(bytes(BIG_BYTES))
        else:
            super().do_GET()

    def do_POST(self) -> None:
        count = int(self.headers["Content-Length"])
        self._say(
            f"{sum(len(self.rfile.read(min(65536, count - at))) for at in range(0, count, 65536))}\n".encode()
        )

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 128

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(("::", port), lambda *args: Pages(*args, directory=str(folder / "www")))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(folder / "site.pem")
        if port == RETRYING:
            self.context.set_ecdh_curve(
                "secp384r1"
            )  # no client's first guess: each is asked for a second hello
        self.context.sni_callback = lambda connection, name, _: setattr(connection, "sni", name)

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def finish_request(self, request: socket.socket, address: object) -> None:
        with contextlib.suppress(OSError), self.context.wrap_socket(request, server_side=True) as wrapped:
            super().finish_request(wrapped, address)

    def handle_error(self, *_: object) -> None:
        pass


def count_and_tell(listener: socket.socket) -> None:
    """Each connection is read to its end, and only then told how much came: half-closing must work both ways."""
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_count, args=(connection,), daemon=True).start()


def _count(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        total = 0
        while data := connection.recv(65536):
            total += len(data)
        connection.sendall(f"{total}\n".encode())


def listen(port: int) -> socket.socket:
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)


def main() -> None:
    folder = Path(sys.argv[1])
    sys.stdin.readline()
    pages = [Server(folder, port) for port in (HTTPS, RETRYING)]
    silent, raw = listen(SILENT), listen(RAW)
    names = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    names.bind(("::", DNS))
    for each in pages:
        threading.Thread(target=each.serve_forever, daemon=True).start()
    threading.Thread(target=count_and_tell, args=(raw,), daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    silent.close()
    names.close()


if __name__ == "__main__":
    main()
