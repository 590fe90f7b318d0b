"""What a real TLS client sends first."""

import ssl

import pytest


def real_hello(name: str | None, **changes: object) -> bytes:
    """The ClientHello of Python's own client for that name, or without one, with its context changed by `changes`."""
    context = ssl.create_default_context()
    context.check_hostname = False
    for key, value in changes.items():
        setattr(context, key, value)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()
