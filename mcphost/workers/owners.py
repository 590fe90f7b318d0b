"""For whom a worker works: what decides which worker set a call goes to, and which process of it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from msgspec import Raw

from mcphost.decisions.turns import Party
from mcphost.protocol.asking import NOTHING, Declared
from mcphost.protocol.handshake import EraChoice

# Whatever any client can be asked; what a server is told of that all calls of all clients share (`leases` 0).
EVERYTHING: Final = Declared(
    (("elicitation", ("form", "url")), ("sampling", ("context", "tools")), ("roots", ()))
)

ANYBODY: Final = Party()


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
    `instance` names the process that something it brings along was minted by, empty for any. `chain` says that it is a
    call that may go through several rounds or have effects (tools/call, prompts/get, resources/read), so that with
    `scope: call` it has a process of its own. `party` is whose turn it takes among those who use the server, and
    `queueing` what is entered for as long as it waits for its turn, if it has to.
    """

    declared: Declared = NOTHING
    logs: bool = False
    instance: str = ""
    chain: bool = False
    party: Party = ANYBODY
    queueing: Callable[[], AbstractContextManager[None]] = field(default=nullcontext, compare=False)


@dataclass(frozen=True, slots=True)
class Terms:
    """How a process is spoken to from the beginning, which no later call can change.

    `declared` is what a legacy server is told it may ask, `logs` whether it is to log everything. `one_client` says
    that all its calls come from one client; `era` pins the era where it is known, else the settings choose.
    """

    client_info: Raw
    declared: Declared = NOTHING
    logs: bool = False
    one_client: bool = False
    era: EraChoice | None = None
