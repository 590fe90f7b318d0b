"""The face for clients of 2026-07-28: each request says what its client is, and its stream is its own."""

from collections.abc import Callable
from typing import Final

from mcphost.broker import Broker, Caller, Client
from mcphost.protocol import envelope, jsonrpc
from mcphost.protocol.asking import Declared
from mcphost.protocol.envelope import Inbound
from mcphost.transports.asgi import Receive, Send, send_empty
from mcphost.transports.exchange import Exchange
from mcphost.transports.lasting import Lasting

# Requests whose answer is a stream that lasts: it ends from our side too, and nothing on it may be lost unnoticed.
LASTING: Final = frozenset({"subscriptions/listen"})


class ModernFace:
    """Answers modern requests."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def post(
        self, caller: Caller, inbound: Inbound, ends: tuple[Receive, Send], lasting: Lasting
    ) -> None:
        """Answer one posted message. A client that closes the stream before has cancelled its request."""
        receive, send = ends
        if inbound.message.kind == "notification":
            # None is defined for this binding; ids are the client's own, so none may cancel by one.
            self._broker.charge(caller)
            await send_empty(send, 202)
            return
        lossless = inbound.method in LASTING
        exchange = Exchange(send, lossless=lossless)
        client = modern_client(inbound, exchange.notify)
        if not lossless:
            await exchange.run(lambda: self._broker.answer(caller, inbound, client), receive, exchange.cancel)
            return
        async with lasting.until_over(client.ending.set):
            await exchange.run(lambda: self._broker.answer(caller, inbound, client), receive, exchange.cancel)


def modern_client(inbound: Inbound, notify: Callable[[bytes], None]) -> Client:
    """A client of 2026-07-28, from what its request says of it."""
    capabilities = inbound.meta[envelope.META_CAPABILITIES]
    return Client(
        "modern",
        notify=notify,
        capabilities=capabilities,
        declared=Declared.read(capabilities),
        info=inbound.meta.get(envelope.META_CLIENT),
        level=jsonrpc.text(inbound.meta.get(envelope.META_LOG_LEVEL)),
    )
