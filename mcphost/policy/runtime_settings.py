"""`runtime`: how this process listens, logs, limits and stops."""

from typing import Literal

from mcphost.policy.addresses import Address, HostPattern, ListenAddress, Origin, PublicUrl
from mcphost.policy.fields import AbsolutePath, Count, Items, Model
from mcphost.policy.secrets import SecretRef
from mcphost.policy.units import ByteSize, Duration, Timeout


class RuntimeLimits(Model):
    """Bounds on what clients can make the runtime hold."""

    body: ByteSize = 4 * 1024 * 1024
    """Largest body of a client's request."""

    sessions: Count = 1000
    """Most legacy sessions that one tenant can have open."""

    session_idle: Timeout = 1800.0
    """A legacy session that nothing used for this long is closed."""

    answer_time: Timeout = 600.0
    """How long a client may take to answer what a server asks it in the middle of a call."""

    parked: Count = 16
    """Most calls of one token that wait, without a request of the client's, for its answers."""

    queue_time: Timeout = 10.0
    """How long a call waits for its turn at a server that is busy; it does not count against `timeouts.call`."""


class LogSettings(Model):
    """What the runtime writes to standard error."""

    format: Literal["auto", "json", "console"] = "auto"
    """`auto` writes for a person on a terminal and JSON elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe events that are written."""


class RuntimeSettings(Model):
    """How the runtime listens, logs, limits and stops."""

    listen: ListenAddress = Address("127.0.0.1", 8080)
    """Where MCP clients connect: host:port, an IPv6 host in brackets."""

    public_url: PublicUrl | None = None
    """The URL under which clients reach `listen`, where a proxy stands in between."""

    admin: ListenAddress | None = Address("127.0.0.1", 9090)
    """Where health and metrics are served, without authentication; null for nowhere."""

    state_dir: AbsolutePath | None = None
    """The directory that holds each tenant's /data; null gives servers nothing that outlives a worker."""

    seal_key: SecretRef | None = None
    """What the ids of sessions and other handles are sealed with; without it, a key kept in `stateDir` or made at each start."""

    auth: Literal["token", "none"] = "token"
    """`none` serves anyone who can connect: for one tenant on a loopback address only."""

    allowed_hosts: Items[HostPattern] = ()
    """Host headers accepted beside those of `listen` and `publicUrl`; `host:*` for any port."""

    allowed_origins: Items[Origin] = ()
    """Origins of web pages that may call; none by default."""

    limits: RuntimeLimits = RuntimeLimits()
    """Bounds on what clients can make the runtime hold."""

    log: LogSettings = LogSettings()
    """What is written to standard error."""

    drain: Duration = 10.0
    """When stopping, how long calls under way may take to finish."""

    start_concurrency: Count = 4
    """How many workers are started at the same time."""
