"""Legacy sessions: what was agreed with a client, sealed into the id that it carries.

A session is no process and no authority: every request is authenticated by itself, and a session opens only for the
principal and endpoint it was made for. Anybody else gets the answer of an unknown id, as does every id that is forged,
cut, foreign or too old: nobody learns which.

The table is the authority over the ids that this process made. One that an earlier process made, or another with the
same key, is opened again from what it holds, if it is not too old and did not end here.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import Raw

from mcphost.decisions.ended import Ended
from mcphost.decisions.identity import Principal
from mcphost.decisions.routing import Endpoint
from mcphost.decisions.sealing import SealBroken, Sealer
from mcphost.errors import Overloaded, SessionNotFound

NONCE_BYTES: Final = 16  # 2025-11-25 wants ids that cannot be guessed; 128 random bits, besides the seal

# Proxies and servers take some 8 KiB of headers in all, so an id has to stay well below. With the longest names that
# a policy allows, and parts as large as the two bounds below, it stays below 2,048.
MAX_ID_CHARACTERS: Final = 2048
MAX_CAPABILITIES_BYTES: Final = 768
MAX_INFO_BYTES: Final = 256

# An id of another process opens for a day: how long it was idle is not known here, only when it was made.
MAX_AGE_SECONDS: Final = 24 * 3600.0

# A tenant that has all its sessions may begin another in place of the one that was idle longest, if that is so long: many
# clients begin one for each call and end none. A client whose pause was taken for its end begins a new session.
SPARED_SECONDS: Final = 60.0

MAX_SKEW_SECONDS: Final = 300.0  # how far the clocks of processes that share a key may differ


class Now(NamedTuple):
    """One moment: `monotonic` seconds for idle times, `wall` seconds for dates that other processes read."""

    monotonic: float
    wall: float


@dataclass(frozen=True, slots=True)
class Agreed:
    """What a client and we agreed on when the session began; its parts are as the client wrote them.

    `info` is null where the client told nothing of itself.
    """

    version: str
    capabilities: Raw
    info: Raw


class Terms(msgspec.Struct, frozen=True, array_like=True):
    """What an id holds. `issued_at` in wall seconds; `boot` tells the process that made it."""

    tenant: str
    token_id: str
    endpoint: str
    version: str
    capabilities: Raw
    info: Raw
    issued_at: float
    nonce: str
    boot: str

    def belongs_to(self, principal: Principal, endpoint: Endpoint) -> bool:
        """Whether the session was begun by this principal on this endpoint."""
        owner = (self.tenant, self.token_id, self.endpoint)
        return owner == (principal.tenant, principal.token_id, endpoint.path)


class Attached(Protocol):
    """What its user keeps with a session."""

    @property
    def is_busy(self) -> bool:
        """Whether something is under way, so that the session is not idle."""

    def end(self) -> None:
        """The session is over. Must not raise."""


K = TypeVar("K", bound=Attached)


@dataclass(slots=True, eq=False)
class Session(Generic[K]):
    """One `Mcp-Session-Id`, with what its user attached to it."""

    id: str
    terms: Terms
    attached: K
    used_at: float


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How many sessions a tenant may have, and after how many seconds without use one ends."""

    per_tenant: int
    idle_seconds: float


class Sessions(Generic[K]):
    """Every open session, least recently used first."""

    def __init__(
        self, limits: SessionLimits, sealer: Sealer, boot: str, attach: Callable[[Terms], K]
    ) -> None:
        """`boot` is random and this process's own; `attach` makes what is kept with a session that is opened again."""
        self._limits = limits
        self._sealer = sealer
        self._boot = boot
        self._attach = attach
        self._by_id: OrderedDict[str, Session[K]] = OrderedDict()
        self._count: dict[str, int] = {}
        self._ended: dict[str, Ended] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __repr__(self) -> str:
        return f"<Sessions {len(self._by_id)}>"

    def count(self, tenant: str) -> int:
        """Open sessions of a tenant."""
        return self._count.get(tenant, 0)

    def check_room(self, tenant: str, now: Now) -> None:
        """Make sure that one more session could be opened, in place of one that was idle for long if need be.

        Raises:
            Overloaded: the tenant has as many as it may, all of them in use.
        """
        self.expire(now.monotonic)
        most = self._limits.per_tenant
        if self.count(tenant) < most:
            return
        idle = self._longest_idle(tenant, before=now.monotonic - SPARED_SECONDS)
        if idle is None:
            raise Overloaded(
                f"the tenant has {most} open sessions, the most it may have", retry_after=SPARED_SECONDS
            )
        self.end(idle)

    def open(self, terms: Terms, attached: K, now: Now) -> Session[K]:
        """Begin a session on these terms, under an id that holds them.

        Raises:
            Overloaded: the tenant has as many as it may.
        """
        self.check_room(terms.tenant, now)
        return self._added(self._sealer.seal("session", msgspec.json.encode(terms)), terms, attached, now)

    def terms(self, principal: Principal, endpoint: Endpoint, agreed: Agreed, nonce: str, now: Now) -> Terms:
        """The terms of a new session of this process."""
        return Terms(
            principal.tenant,
            principal.token_id,
            endpoint.path,
            agreed.version,
            agreed.capabilities,
            agreed.info,
            round(now.wall, 3),
            nonce,
            self._boot,
        )

    def use(self, identifier: str, principal: Principal, endpoint: Endpoint, now: Now) -> Session[K]:
        """The session of an id, kept alive by this use.

        Raises:
            SessionNotFound: ended, expired, never made, or another's.
            Overloaded: an earlier process made it, and the tenant has as many as it may.
        """
        self.expire(now.monotonic)
        session = self._by_id.get(identifier)
        if session is None:
            session = self._reopened(identifier, principal, endpoint, now)
        elif not session.terms.belongs_to(principal, endpoint):
            raise SessionNotFound
        self.touch(session, now.monotonic)
        return session

    def touch(self, session: Session[K], now: float) -> None:
        """Count a session's idle time from now on, `now` monotonic; one that has ended stays so."""
        if session.id in self._by_id:
            session.used_at = now
            self._by_id.move_to_end(session.id)

    def end(self, session: Session[K]) -> None:
        """End a session and what its user attached to it."""
        if self._by_id.pop(session.id, None) is None:
            return
        terms = session.terms
        self._count[terms.tenant] -= 1
        if terms.boot != self._boot:
            self._ended.setdefault(terms.tenant, Ended()).add(terms.nonce, terms.issued_at)
        session.attached.end()

    def expire(self, now: float) -> None:
        """End every session that was idle for too long; a busy one is not idle. `now` is monotonic."""
        while self._by_id:
            session = next(iter(self._by_id.values()))
            if session.used_at > now - self._limits.idle_seconds:
                return
            if session.attached.is_busy:
                session.used_at = now
                self._by_id.move_to_end(session.id)
            else:
                self.end(session)

    def next_expiry(self, now: float) -> float:
        """The seconds after which, at the earliest, a session can have been idle for too long."""
        oldest = next(iter(self._by_id.values()), None)
        used_at = now if oldest is None else oldest.used_at
        return max(0.0, used_at + self._limits.idle_seconds - now)

    def _longest_idle(self, tenant: str, *, before: float) -> Session[K] | None:
        for session in self._by_id.values():
            if session.used_at > before:
                return None
            if session.terms.tenant == tenant and not session.attached.is_busy:
                return session
        return None

    def _reopened(self, identifier: str, principal: Principal, endpoint: Endpoint, now: Now) -> Session[K]:
        terms = self._unsealed(identifier)
        age = now.wall - terms.issued_at
        ended = self._ended.get(terms.tenant)
        if (
            terms.boot == self._boot
            or not terms.belongs_to(principal, endpoint)
            or not -MAX_SKEW_SECONDS <= age <= MAX_AGE_SECONDS
            or (ended is not None and ended.holds(terms.nonce, terms.issued_at))
        ):
            raise SessionNotFound
        self.check_room(terms.tenant, now)
        return self._added(identifier, terms, self._attach(terms), now)

    def _unsealed(self, identifier: str) -> Terms:
        if len(identifier) > MAX_ID_CHARACTERS:
            raise SessionNotFound
        try:
            return msgspec.json.decode(self._sealer.open("session", identifier), type=Terms)
        except (SealBroken, msgspec.DecodeError):
            raise SessionNotFound from None

    def _added(self, identifier: str, terms: Terms, attached: K, now: Now) -> Session[K]:
        session = Session(identifier, terms, attached, now.monotonic)
        self._by_id[identifier] = session
        self._count[terms.tenant] = self.count(terms.tenant) + 1
        return session
