"""One listener's part of what a server is asked to tell."""

from collections.abc import Callable
from typing import Protocol

import anyio

from mcphost.protocol.listening import NO_INTEREST, Heard, Interest

Deliver = Callable[[Heard], None]


class Listeners(Protocol):
    """What a subscription is part of."""

    def change(self, subscription: "Subscription", interest: Interest) -> None:
        """See `Subscription.change`."""

    def drop(self, subscription: "Subscription") -> None:
        """See `Subscription.close`."""


class Subscription:
    """One listener's part of a hub. `interest` is what it wants, `granted` what the server tells of that."""

    def __init__(
        self, hub: Listeners, interest: Interest, deliver: Deliver, *, party: str, wakes: bool
    ) -> None:
        self._hub = hub
        self.interest = interest
        self.granted = NO_INTEREST
        self.deliver = deliver
        self.party = party
        self.wakes = wakes
        self.on_gone: Callable[[], None] | None = None
        self.is_open = True
        self._settled = anyio.Event()

    def __repr__(self) -> str:
        return f"<Subscription to {self._hub!r} {self.interest}>"

    def change(self, interest: Interest) -> None:
        """Want something else from now on, but no other tasks than before. Does nothing to a closed one.

        Raises:
            Overloaded: the hub has as many URIs as it may; nothing has changed then.
        """
        self._hub.change(self, interest)

    def close(self) -> None:
        """Want nothing more. Idempotent."""
        self._hub.drop(self)

    def hold(self) -> None:
        """What may have changed before the server was asked is not news to this listener; `settled` is to follow."""
        self.is_open = False

    async def settled(self) -> Interest:
        """What the server grants, once a worker was asked for it. The caller bounds the wait."""
        self.hold()
        try:
            await self._settled.wait()
        finally:
            self.is_open = True
        return self.granted

    def unsettle(self) -> None:
        """What is granted is to be found out anew; who waits already waits on."""
        if self._settled.is_set():
            self._settled = anyio.Event()

    def settle(self, granted: Interest) -> None:
        """Say what the server grants."""
        self.granted = granted
        self._settled.set()
