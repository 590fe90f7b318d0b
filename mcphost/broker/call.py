"""One call on an item, on its way to the item's server."""

from dataclasses import dataclass, field

from msgspec import Raw

from mcphost.broker.request import Request
from mcphost.decisions.handles import Bound, StateHandle, Who, bind
from mcphost.protocol.inputs import ASKABLE, RESPONSES, STATE
from mcphost.protocol.jsonrpc import Fields
from mcphost.workers.owners import Need


@dataclass(frozen=True, slots=True)
class Target:
    """One item of one server: the server, and the item's name as the server knows it."""

    server: str
    name: str


@dataclass(slots=True, eq=False)
class Call:
    """A request with its target; `params` hold the server's own names. `handle` is where a repeated request goes on."""

    request: Request
    target: Target
    params: Fields
    seconds: float
    handle: StateHandle | None = None
    rounds: Fields = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in ASKABLE or self.request.inbound.era == "legacy":
            return
        if RESPONSES in self.params:
            self.rounds[RESPONSES] = self.params[RESPONSES]
        if self.handle is not None:
            self.rounds[STATE] = Raw(self.handle.inner)

    @property
    def method(self) -> str:
        """The JSON-RPC method."""
        return self.request.inbound.method

    @property
    def may_be_parked(self) -> bool:
        """Whether its client may be asked something and go away meanwhile."""
        client = self.request.client
        return client.era == "modern" and bool(client.declared.parts) and self.method in ASKABLE

    @property
    def is_repeated(self) -> bool:
        """Whether it brings answers or a state, on which its result depends (2026-07-28, server/utilities/caching)."""
        return not {RESPONSES, STATE}.isdisjoint(self.request.inbound.params)

    @property
    def uri(self) -> Raw | None:
        """The resource that the client asked for, by its own name of it; None where it asked for something else."""
        return self.request.inbound.params.get("uri")

    @property
    def need(self) -> Need:
        """What it needs of a process: who can be asked, whether logs are wanted, and which process it is bound to."""
        client, party = self.request.client, self.request.tenant.party
        if self.is_shared:
            return Need(client.declared, party=party)
        instance = "" if self.handle is None else self.handle.place
        logs = client.log_level is not None
        return Need(client.declared, logs=logs, instance=instance, chain=True, party=party)

    @property
    def is_shared(self) -> bool:
        """Whether it hears nothing and asks nothing back, so that it needs no process to itself: a completion."""
        return self.method not in ASKABLE


def bound(request: Request) -> Bound:
    """What a state given in answer to a request is good for."""
    caller = request.caller
    who = Who(caller.principal.tenant, caller.principal.token_id, caller.endpoint)
    return bind(who, request.inbound.method, request.inbound.params)
