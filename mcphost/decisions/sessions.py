"""Legacy sessions: broker state bound to who opened them, bounded in number and in idle time.

A session is no process and no authority: every request is authenticated by itself, and a session opens only
for the principal and endpoint it was made for. Anybody else gets the answer of an unknown id.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from mcphost.decisions.identity import Principal
from mcphost.decisions.routing import Endpoint
from mcphost.errors import Overloaded, SessionNotFound

ID_BYTES: Final = 32  # random bytes behind an id; 2025-11-25 asks for 128 bits or more


@dataclass(slots=True, eq=False)
class Session:
    """One `Mcp-Session-Id`. `cancel` holds, by the client's raw request id, how to cancel each call in flight."""

    id: str
    principal: Principal
    endpoint: Endpoint
    version: str
    used_at: float
    cancel: dict[bytes, Callable[[], None]] = field(default_factory=dict)


class Sessions:
    """Every open session, least recently used first. Times in monotonic seconds."""

    def __init__(self, *, per_tenant: int, idle_seconds: float) -> None:
        self._per_tenant = per_tenant
        self._idle = idle_seconds
        self._by_id: OrderedDict[str, Session] = OrderedDict()
        self._count: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __repr__(self) -> str:
        return f"<Sessions {len(self._by_id)}>"

    def count(self, tenant: str) -> int:
        """Open sessions of a tenant."""
        return self._count.get(tenant, 0)

    def open(
        self, identifier: str, principal: Principal, endpoint: Endpoint, *, version: str, now: float
    ) -> Session:
        """Begin a session.

        Raises:
            Overloaded: the tenant has as many as it may.
        """
        self.expire(now)
        if self.count(principal.tenant) >= self._per_tenant:
            message = f"the tenant has {self._per_tenant} open sessions, the most it may have"
            raise Overloaded(message, retry_after=60.0)
        session = Session(identifier, principal, endpoint, version, now)
        self._by_id[identifier] = session
        self._count[principal.tenant] = self.count(principal.tenant) + 1
        return session

    def use(self, identifier: str, principal: Principal, endpoint: Endpoint, *, now: float) -> Session:
        """The session of an id, kept alive by this use.

        Raises:
            SessionNotFound: ended, expired, never made, or another's.
        """
        self.expire(now)
        session = self._by_id.get(identifier)
        if session is None or session.principal != principal or session.endpoint.server != endpoint.server:
            raise SessionNotFound
        session.used_at = now
        self._by_id.move_to_end(identifier)
        return session

    def end(self, session: Session) -> None:
        """End a session and cancel what it has in flight."""
        if self._by_id.pop(session.id, None) is None:
            return
        self._count[session.principal.tenant] -= 1
        for cancel in list(session.cancel.values()):
            cancel()

    def expire(self, now: float) -> None:
        """End every session that was idle for too long; one with a call in flight is not idle."""
        while self._by_id:
            session = next(iter(self._by_id.values()))
            if session.used_at > now - self._idle:
                return
            if session.cancel:
                session.used_at = now
                self._by_id.move_to_end(session.id)
            else:
                self.end(session)
