"""Well-formed input for each target, to begin from."""

import json
import ssl
from pathlib import Path

import sandbox
from fuzz.protocol_seeds import protocol_seeds
from sandbox import LAYERS, Exited, LayerStatus, Limits, Mount, SandboxSpec, Spawned, SpawnFailed, Tmpfs
from sandbox.errors import SandboxSetupFailed, SandboxUnsupported
from sandbox.messages import Hello, Kill, Signal, Spawn, encode_event, encode_hello, encode_request

STATUSES = tuple(LayerStatus(layer, "enforced", "tried") for layer in LAYERS)
PLAIN = SandboxSpec(
    name="fuzz",
    argv=("/bin/true",),
    mounts=(Mount(source="/usr", target="/usr"),),
    limits=Limits(memory_bytes=64 << 20, pids=8, cpu_millis=500),
)
FULL = SandboxSpec(
    name="full-1",
    argv=("python3", "-c", "print('\u00e9')"),
    env=(("A", "b"), ("LANG", "C.UTF-8")),
    cwd="/data",
    mounts=(Mount(source="/usr", target="/usr"), Mount(source="/srv", target="/opt/x", writable=True)),
    tmpfs=(Tmpfs(target="/tmp", size_bytes=1 << 20), Tmpfs(target="/var/x", size_bytes=4096, inodes=2)),
    data="/srv",
    limits=Limits(files=64, file_size_bytes=0),
    seccomp="strict",
    require=frozenset({"seccomp"}),
    disable=frozenset({"landlock", "netns"}),
)
EXITED = Exited(3, "oom", None, 9, 4096, 0.5, 1, 2)


def client_hello(name: str) -> bytes:
    """What OpenSSL sends first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    side = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake ended without an answer")


def seeds() -> dict[str, list[bytes]]:
    """By target."""
    requests = [Spawn(1, PLAIN), Spawn(2, FULL), Signal(1, 15), Kill(1)]
    failed = SpawnFailed(1, SandboxSetupFailed("exec", 2, "gone"))
    events = [Spawned(1, 2, 3, STATUSES), failed, SpawnFailed(2, SandboxUnsupported(STATUSES[:2])), EXITED]
    profiles = Path(sandbox.__file__).parent / "seccomp" / "profiles"
    said = [
        {"poised": [7, None]},
        {"failed": ["exec", 2, "x"]},
        {"ended": [0, None]},
        {"running": True},
        {"denied": {"bpf": 1}},
    ]
    return {
        "request": [encode_request(each) for each in requests],
        "event": [encode_event(each) for each in events],
        "greeting": [encode_hello(Hello(1, STATUSES))],
        "gate": [json.dumps(each).encode() for each in said],
        "spec": [json.dumps(each.to_wire()).encode() for each in (PLAIN, FULL)],
        "connect": [
            b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\nUser-Agent: x\r\n\r\nrest",
            b"CONNECT [2001:db8::1]:8443 HTTP/1.0\r\n\r\n",
        ],
        "client-hello": [client_hello("example.com"), client_hello("a.b.example.org")],
        "profile": [
            (profiles / "default.json").read_bytes(),
            json.dumps(
                {
                    "name": "small",
                    "denied": "EPERM",
                    "unknown": "ENOSYS",
                    "allow": ["read", "write"],
                    "answer": {"sync": "OK"},
                    "conditions": [
                        {
                            "call": "socket",
                            "when": [[{"argument": 0, "bits": 32, "test": "any-of", "values": [1]}]],
                            "otherwise": "EPERM",
                            "why": "local only",
                        }
                    ],
                }
            ).encode(),
            b'{"why": "x", "allow": ["setns"], "widen": [], "narrow": []}',
        ],
        **protocol_seeds(),
    }
