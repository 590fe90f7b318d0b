"""One function for each reader. It takes any bytes; an exception that comes out of it is a bug that was found.

Those of the protocol are in `protocol_targets`; they need what the runtime needs.
"""

import json
from collections.abc import Callable
from contextlib import suppress

from fuzz.protocol_targets import PROTOCOL
from sandbox import _worker
from sandbox.egress import tls_hello
from sandbox.egress.connect_request import MAX_HEAD_BYTES, ConnectReader, ConnectRefused
from sandbox.egress.tls_hello import HelloReader, HelloRefused
from sandbox.errors import FilterInvalid, SpecInvalid
from sandbox.messages import (
    MalformedMessage,
    SpecRefused,
    decode_event,
    decode_hello,
    decode_request,
    encode_event,
    encode_hello,
    encode_request,
)
from sandbox.seccomp import filters
from sandbox.seccomp.bpf import ARCHITECTURES, ProgramTooLong, simulate
from sandbox.seccomp.filter_profiles import read_overlay, read_profile
from sandbox.spec import SandboxSpec

MACHINE = "x86_64"
_CALLS = frozenset(filters.numbers(MACHINE))


def request(data: bytes) -> None:
    """What the runtime asks the fork server for: a request, or one of two refusals; and it survives the way back."""
    with suppress(MalformedMessage, SpecRefused):
        read = decode_request(data)
        assert decode_request(encode_request(read)) == read


def event(data: bytes) -> None:
    """What the fork server answers."""
    with suppress(MalformedMessage):
        read = decode_event(data)
        assert encode_event(decode_event(encode_event(read))) == encode_event(read)


def greeting(data: bytes) -> None:
    """What the fork server says first."""
    with suppress(MalformedMessage):
        read = decode_hello(data)
        assert decode_hello(encode_hello(read)) == read


def gate(data: bytes) -> None:
    """What a worker's init says: always an object, nonsense being one about a failure."""
    assert isinstance(_worker._read(data), dict)


def spec(data: bytes) -> None:
    """A specification: what comes out was checked, so it comes out again."""
    with suppress(ValueError, RecursionError):
        value = json.loads(data)
        with suppress(SpecInvalid):
            read = SandboxSpec.from_wire(value)
            assert SandboxSpec.from_wire(json.loads(json.dumps(read.to_wire()))) == read


def connect(data: bytes) -> None:
    """The head of a CONNECT request: cut anywhere, it means the same."""
    assert _connect([data]) == _connect(
        [data[index : index + 1] for index in range(len(data))][: MAX_HEAD_BYTES + 9]
    )


def _connect(parts: list[bytes]) -> object:
    reader = ConnectReader()
    for index, part in enumerate(parts):
        try:
            read = reader.feed(part)
        except ConnectRefused as refused:
            return refused.status
        if read is not None:
            return read.host, read.port, read.rest + b"".join(parts[index + 1 :])
    return None


def client_hello(data: bytes) -> None:
    """The first message of TLS: cut anywhere, it asks for the same name."""
    data = data[: tls_hello.MAX_RAW_BYTES]
    whole, pieces = _hello([data]), _hello([data[index : index + 1] for index in range(len(data))])
    # Whole, what stands behind the hello in its record is refused too; in pieces it was never fed.
    assert whole in (pieces, "refused")


def _hello(parts: list[bytes]) -> object:
    reader = HelloReader()
    for part in parts:
        try:
            read = reader.feed(part)
        except HelloRefused:
            return "refused"
        if read is not None:
            return "named", read.name
    return None


def profile(data: bytes) -> None:
    """A seccomp profile or overlay: what is accepted compiles to a program that has an answer for every call."""
    with suppress(ValueError, RecursionError):
        value = json.loads(data)
        with suppress(FilterInvalid):
            read_overlay(value, _CALLS)
        with suppress(FilterInvalid, ProgramTooLong):
            program = filters.compile_profile(read_profile(value, _CALLS), MACHINE)
            for number in (0, 1, 56, 435, 999, 0x40000000, 0xFFFFFFFF):
                simulate(program, ARCHITECTURES[MACHINE], number)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "request": request,
    "event": event,
    "greeting": greeting,
    "gate": gate,
    "spec": spec,
    "connect": connect,
    "client-hello": client_hello,
    "profile": profile,
    **PROTOCOL,
}
