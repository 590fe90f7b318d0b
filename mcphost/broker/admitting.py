"""What a request costs at its tenant's gates, and the places that it has among those under way."""

from collections.abc import Callable

import anyio

from mcphost.broker.request import Request, Tenant


class Admission:
    """Reads the clocks for the gates of all tenants."""

    def __init__(self, wall: Callable[[], float]) -> None:
        """`wall` gives seconds since 1970, which quotas go by."""
        self._wall = wall

    def __repr__(self) -> str:
        return "<Admission>"

    def admit(self, request: Request) -> None:
        """Give it a place of its tenant's.

        Raises:
            Overloaded, RateLimited: the tenant has, or asked for, as much as it may.
        """
        request.place = request.tenant.gate.admit(anyio.current_time(), self._wall())

    def charge(self, tenant: Tenant) -> None:
        """Count what needs no place, or has one.

        Raises:
            RateLimited: the tenant asked for as much as it may.
        """
        tenant.gate.charge(anyio.current_time(), self._wall())


def admit_to(request: Request, server: str, name: str) -> None:
    """Count a call of an item at the tenant's limits on it; it keeps a place there for as long as its first one.

    Raises:
        Overloaded, RateLimited: as many calls of it are under way as may be, or came.
    """
    gates, now = request.tenant.items.of(server, name), anyio.current_time()
    if request.place is not None:
        request.place.enter(gates, now)
        return
    for gate in gates:  # the next round of a call that has its places
        gate.charge(now)
