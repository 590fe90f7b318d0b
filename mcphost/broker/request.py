"""What the parts of the broker work with: one request on its way through the broker, what becomes of it, and what all use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from msgspec import Raw

from mcphost.broker.calltime import AskingLimits
from mcphost.broker.client import Client
from mcphost.decisions.admission import Gate, ItemGates, Place
from mcphost.decisions.identity import Principal
from mcphost.decisions.permissions import NOTHING, Permissions
from mcphost.decisions.routing import EVERYTHING, Endpoint, Route
from mcphost.decisions.sealing import Sealer
from mcphost.decisions.turns import Party
from mcphost.protocol.envelope import Inbound
from mcphost.telemetry.metrics import NONE, Metrics
from mcphost.workers.owners import Owner
from mcphost.workers.pool import Pool


@dataclass(frozen=True, slots=True)
class Around:
    """What every part of the broker uses: the workers, who we are to others, seals, the numbers, and the time of day."""

    pool: Pool
    info: Raw
    sealer: Sealer
    metrics: Metrics
    asking: AskingLimits
    wall: Callable[[], float]


@dataclass(slots=True, eq=False)
class Tenant:
    """One tenant at run time: what it may do, by the id of the token that speaks for it, and what it is doing."""

    name: str
    permissions: Mapping[str, Permissions]
    gate: Gate
    items: ItemGates
    party: Party

    def permissions_of(self, principal: Principal) -> Permissions:
        """What a principal of this tenant may see and use: nothing where its token is not known."""
        return self.permissions.get(principal.token_id, NOTHING)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks and through which endpoint: that of one server, or (None) a route over several."""

    principal: Principal
    server: str | None
    route: Route = EVERYTHING

    @property
    def endpoint(self) -> str:
        """The path that names the endpoint, for what is bound to it."""
        return Endpoint(self.server, route=self.route.path).path


@dataclass(frozen=True, slots=True)
class Reply:
    """An answered request: a JSON-RPC message without line breaks, and the HTTP status that goes with it.

    `version` is the negotiated revision where the request was an `initialize`.
    """

    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    version: str | None = None


@dataclass(slots=True)
class Record:
    """What the log line and the metrics of one call are made from."""

    server: str = NONE
    name: str = ""
    status: str = "ok"
    version: str | None = None
    tool_called: bool = False
    request_id: str = ""  # empty where no record is kept
    bytes_out: int = 0
    extra: dict[str, object] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Request:
    """One judged request, who sent it, and the record that is kept of it. `place` is its own until it hands it on."""

    tenant: Tenant
    caller: Caller
    inbound: Inbound
    client: Client
    record: Record
    place: Place | None = None

    @property
    def permissions(self) -> Permissions:
        """What the client may see and use: the one answer for every method."""
        return self.tenant.permissions_of(self.caller.principal)

    @property
    def owner(self) -> Owner:
        """For whom a worker would work: the legacy session where there is one, else the principal."""
        session, tenant, declared = self.client.session, self.tenant.name, self.client.declared
        if session is not None:
            return Owner(tenant, session.key, declared, one_client=True)
        return Owner(tenant, self.caller.principal.token_id, declared)
