"""What a server's workers are run with: plain values, compiled from the policy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

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
class ServerSettings:
    """One server of the policy, as its workers need it.

    `sandbox` gives the spec for a tenant's worker (`SHARED` for all); it reads that tenant's secrets, so it is
    asked at each start and its answer is not kept. It may raise PolicyError. `egress` is what its workers may reach;
    None for no network at all.
    """

    name: str
    scope: Literal["shared", "tenant"]
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

    def tenant_of(self, tenant: str) -> str:
        """Whose worker a tenant's call goes to."""
        return SHARED if self.scope == "shared" else tenant
