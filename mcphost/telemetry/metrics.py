"""Every metric, declared in one place, with labels that only the policy can make more of.

Tenant and server names come from the policy. A method is one of those known or `other`. A tool is one that its
server listed at start (at most `MAX_TOOLS` per server, none of a longer name than `MAX_TOOL_CHARACTERS`) or `other`:
never a string that a client chose. A system call is one that has a name in the sandbox's own table.
"""

import collections
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from mcphost.protocol.methods import KNOWN
from mcphost.telemetry.usage import Usage

MAX_TOOLS: Final = 64
# Past that a name is `other`: it stands in some twenty lines of every scrape. 2025-11-25, server/tools, "Tool Names".
MAX_TOOL_CHARACTERS: Final = 128
NONE: Final = ""  # label value where a request had no server (or no tenant yet)
OTHER: Final = "other"
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# From what a small native server needs to the largest cap that anyone sets; a factor of two each.
_MEMORY_BUCKETS: Final = tuple(float(2**power) for power in range(23, 35))


class Metrics:
    """The counters of one runtime, in a registry of their own so that a process may hold several."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        self._tools: dict[str, frozenset[str]] = {}
        self._layers_in: collections.Counter[tuple[str, str, str, str]] = collections.Counter()
        build = Gauge("mcphost_build_info", "The running version.", ["version"], registry=self.registry)
        build.labels(version).set(1)
        self._requests = self._counter(
            "mcp_requests", "MCP requests answered.", "method", "status", "tenant", "server"
        )
        self._tool_seconds = Histogram(
            "mcp_tool_duration_seconds",
            "Seconds from the acceptance of a tools/call to its answer.",
            ["tenant", "server", "tool"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._refused = self._counter("mcphost_refused", "HTTP requests refused.", "reason")
        self._audit_dropped = self._counter(
            "mcphost_audit_dropped", "Audit records that were not kept.", "kind"
        )
        self._parts_missing = self._counter(
            "mcphost_list_parts_missing",
            "Lists of many servers that lack a server's part.",
            "tenant",
            "server",
        )
        self._starts = self._counter("mcphost_worker_starts", "Worker starts.", "server", "tenant", "outcome")
        self._exits = self._counter("mcphost_worker_exits", "Worker exits.", "server", "tenant", "reason")
        self._cpu_seconds = self._used("cpu_seconds", "Cpu time of workers that ended, descendants included.")
        self._oom_kills = self._used("oom_kills", "Processes ended by the kernel for want of memory.")
        self._pids_denied = self._used("pids_denied", "Forks refused by a cap on processes.")
        self._throttled_seconds = self._used("throttled_seconds", "Seconds kept from the cpu by a cap.")
        self._peak_memory = Histogram(
            "mcphost_worker_peak_memory_bytes",
            "The most memory that each ended worker had.",
            ["server", "tenant"],
            buckets=_MEMORY_BUCKETS,
            registry=self.registry,
        )
        self._oddities = self._counter(
            "mcphost_worker_oddities",
            "Messages of workers that were passed over.",
            "server",
            "tenant",
            "what",
        )
        self._egress_bytes = self._counter(
            "mcphost_egress_bytes",
            "Bytes that workers sent and received through their proxy.",
            "server",
            "tenant",
            "direction",
        )
        self._egress_connections = self._counter(
            "mcphost_egress_connections",
            "Connections of workers to their proxy that have ended.",
            "server",
            "tenant",
            "outcome",
        )
        self._denied = self._counter(
            "mcphost_denied_calls", "System calls refused to workers.", "server", "tenant", "call"
        )
        self._states = Gauge(
            "mcphost_worker_state", "Worker sets in a state.", ["server", "tenant", "state"],
            registry=self.registry,
        )  # fmt: skip
        self._layers = Gauge(
            "mcphost_worker_layer", "Running main workers that have a layer in a state.",
            ["server", "tenant", "layer", "state"], registry=self.registry,
        )  # fmt: skip
        self._spares = Gauge(
            "mcphost_spare_workers", "Processes that wait to become a worker.", ["server", "tenant"],
            registry=self.registry,
        )  # fmt: skip
        self._leased = Gauge(
            "mcphost_leased_workers", "Processes beside main ones, for calls that need one to themselves.",
            ["server", "tenant"], registry=self.registry,
        )  # fmt: skip
        self._parked = Gauge(
            "mcphost_parked_calls", "Calls that wait for their clients to come back with answers.",
            ["server", "tenant"], registry=self.registry,
        )  # fmt: skip
        self._sessions = Gauge(
            "mcphost_sessions", "Open legacy sessions.", ["tenant"], registry=self.registry
        )

    def know_tools(self, server: str, tools: Iterable[str]) -> None:
        """Tools of a server that may appear as a label from now on."""
        known = self._tools.get(server, frozenset())
        new = sorted(tool for tool in set(tools) - known if len(tool) <= MAX_TOOL_CHARACTERS)
        self._tools[server] = known | set(new[: MAX_TOOLS - len(known)])

    def request(self, *, method: str, status: str, tenant: str, server: str) -> None:
        """Count one answered request; `status` is `ok`, `error` or the reason of a refusal or failure."""
        self._requests.labels(method if method in KNOWN else OTHER, status, tenant, server).inc()

    def tool(self, *, tenant: str, server: str, tool: str, seconds: float) -> None:
        """Record how long a tool took."""
        known = tool if tool in self._tools.get(server, ()) else OTHER
        self._tool_seconds.labels(tenant, server, known).observe(seconds)

    def refused(self, reason: str) -> None:
        """Count a request that was refused before it became a call."""
        self._refused.labels(reason).inc()

    def audit_dropped(self, kind: str) -> None:
        """Count an audit record that was not kept: of a `call`, an `act` or a `refusal`."""
        self._audit_dropped.labels(kind).inc()

    def part_missing(self, tenant: str, server: str) -> None:
        """Count a list that went out without what this server would have added."""
        self._parts_missing.labels(tenant, server).inc()

    def worker_started(self, server: str, tenant: str, outcome: str) -> None:
        """Count a start: `ready` or the code of what went wrong."""
        self._starts.labels(server, tenant, outcome).inc()

    def worker_exited(self, *, server: str, tenant: str, reason: str, usage: Usage) -> None:
        """Count an exit by its reason, and what the worker used over its life."""
        self._exits.labels(server, tenant, reason).inc()
        for counter, value in (
            (self._cpu_seconds, usage.cpu_seconds),
            (self._oom_kills, usage.oom_kills),
            (self._pids_denied, usage.pids_denied),
            (self._throttled_seconds, usage.throttled_seconds),
        ):
            counter.labels(server, tenant).inc(value or 0)
        if usage.peak_memory_bytes is not None:
            self._peak_memory.labels(server, tenant).observe(usage.peak_memory_bytes)

    def oddity(self, server: str, tenant: str, what: str) -> None:
        """Count a worker's message that was passed over."""
        self._oddities.labels(server, tenant, what).inc()

    def egress_bytes(self, server: str, tenant: str, direction: str, count: int) -> None:
        """Count what went through a worker's proxy: `sent` by the worker, or `received`."""
        self._egress_bytes.labels(server, tenant, direction).inc(count)

    def egress_connection(self, server: str, tenant: str, outcome: str) -> None:
        """Count a connection of a worker to its proxy at its end."""
        self._egress_connections.labels(server, tenant, outcome).inc()

    def denied_calls(self, server: str, tenant: str, call: str, count: int) -> None:
        """Count system calls that were refused to a worker."""
        self._denied.labels(server, tenant, call).inc(count)

    def worker_state(self, server: str, tenant: str, *, old: str | None, new: str | None) -> None:
        """Move a worker set from one state to another; None before its first and after its last."""
        if old is not None:
            self._states.labels(server, tenant, old).dec()
        if new is not None:
            self._states.labels(server, tenant, new).inc()

    def spare_workers(self, server: str, tenant: str, count: int) -> None:
        """Show how many spares of a worker set wait."""
        self._spares.labels(server, tenant).set(count)

    def worker_layers(
        self, server: str, tenant: str, *, old: Mapping[str, str], new: Mapping[str, str]
    ) -> None:
        """Show a running worker's layers, each with its state, in place of its `old` ones; none when it ended."""
        for layers, step in ((old, -1), (new, 1)):
            for layer, state in layers.items():
                self._layers_in[server, tenant, layer, state] += step
                if self._layers_in[server, tenant, layer, state]:
                    self._layers.labels(server, tenant, layer, state).set(
                        self._layers_in[server, tenant, layer, state]
                    )
                else:
                    self._layers.remove(server, tenant, layer, state)

    def leased_workers(self, server: str, tenant: str, step: int) -> None:
        """Count processes beside main ones up or down."""
        self._leased.labels(server, tenant).inc(step)

    def parked_calls(self, server: str, tenant: str, step: int) -> None:
        """Count calls whose clients are away up or down."""
        self._parked.labels(server, tenant).inc(step)

    def watch_sessions(self, tenant: str, count: Callable[[], float]) -> None:
        """Ask `count` for a tenant's open sessions at each scrape."""
        self._sessions.labels(tenant).set_function(count)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _used(self, name: str, help_text: str) -> Counter:
        return self._counter(f"mcphost_worker_{name}", help_text, "server", "tenant")

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, registry=self.registry)
