"""What a server's workers are run with: plain values, compiled from the policy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from mcphost.decisions.placing import Scope
from mcphost.decisions.restart import RestartPolicy
from mcphost.protocol.handshake import EraChoice
from sandbox import Egress, SandboxSpec

SHARED = ""  # the tenant of a worker that serves all tenants


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a server must offer to be ready."""

    capabilities: frozenset[str] = frozenset()
    tools: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `tools` overrides `call` by the server's own tool name."""

    start: float
    call: float
    stop: float
    tools: Mapping[str, float] = field(default_factory=dict)

    def for_tool(self, tool: str) -> float:
        """How long a call of a tool may take."""
        return self.tools.get(tool, self.call)


@dataclass(frozen=True, slots=True)
class Idle:
    """Seconds after which a process that nobody uses is ended.

    `lease`: one beside the main one, which keeps its memory for a start that would take about a second. `awaited`: one
    that waits for the next round of its call; a user may be thinking. `session`: the workers of a session that is not
    ended by its client, which most never do.
    """

    lease: float = 300.0
    awaited: float = 600.0
    session: float = 1800.0


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """One server of the policy, as its workers need it.

    `sandbox` gives the spec for a tenant's worker (`SHARED` for all); it reads that tenant's secrets, so it is
    asked at each start and its answer is not kept. It may raise PolicyError. `egress` is what its workers may reach;
    None for no network at all.
    """

    name: str
    scope: Scope
    start: Literal["eager", "lazy"]
    era: EraChoice
    sandbox: Callable[[str], SandboxSpec]
    timeouts: Timeouts
    restart: RestartPolicy
    expect: Expectation
    concurrency: int
    message_bytes: int
    egress: Egress | None = None
    warm: int = 0  # processes kept ahead of need
    # Processes beside the main one, for calls that need one to themselves. 0 only in tests: all calls share the main
    # process then, which is told of everything that a client can be asked, and what names no call is mostly nobody's.
    leases: int = 4
    idle: Idle = field(default_factory=Idle)
    queue_seconds: float = 10.0  # how long a call waits for a slot of the main process

    def tenant_of(self, tenant: str) -> str:
        """Whose worker a tenant's call goes to."""
        return SHARED if self.scope == "shared" else tenant
