"""For whom a worker works: what decides which worker set a call goes to, and which process of it."""

from dataclasses import dataclass

from mcphost.protocol.asking import NOTHING, Declared


@dataclass(frozen=True, slots=True)
class Owner:
    """Who a call belongs to, as far as processes are kept apart.

    `session` and what follows count for `scope: session` only: the key of a legacy session, or of the principal
    where the client is modern and has none. `one_client` says that it is the former, so that whatever a worker of
    it says or asks belongs to that one client.
    """

    tenant: str
    session: str = ""
    declared: Declared = NOTHING
    one_client: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """What a call needs of its process.

    `declared` is what the client behind it can be asked; `logs` that it wants the log messages of its own work;
    `instance` names the process that something it brings along was minted by, empty for any.
    """

    declared: Declared = NOTHING
    logs: bool = False
    instance: str = ""
