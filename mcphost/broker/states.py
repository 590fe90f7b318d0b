"""The `requestState` that clients carry for us: sealed, and good for the request that it was given in answer to."""

from typing import Final

import anyio

from mcphost.broker.call import Call, bound
from mcphost.broker.request import Request
from mcphost.decisions import handles
from mcphost.decisions.handles import HandleRefused, StateHandle
from mcphost.decisions.sealing import MAX_HANDLE_CHARACTERS, SealBroken, Sealer
from mcphost.errors import INVALID_PARAMS, DownstreamProtocolError, UpstreamProtocolError
from mcphost.protocol import jsonrpc
from mcphost.protocol.inputs import ASKABLE, STATE

# How long a server's own state is taken back. It holds nothing of ours, and the server may end it sooner; signing in
# somewhere, which a server may send a user to do, takes its time.
STATE_SECONDS: Final = 3600.0

# A server's state, in bytes. It grows by a third when sealed, and must then still be one that we take back.
MAX_INNER_BYTES: Final = MAX_HANDLE_CHARACTERS // 2


class States:
    """Gives states out and takes them back."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def __repr__(self) -> str:
        return "<States>"

    def of_worker(self, call: Call, instance: str, inner: bytes) -> str:
        """A state that holds a server's own, to be given back to the process that made it.

        Raises:
            UpstreamProtocolError: the server's is too long.
        """
        if len(inner) > MAX_INNER_BYTES:
            raise UpstreamProtocolError(
                f"the server gave a requestState of more than {MAX_INNER_BYTES} bytes"
            )
        return self._seal(call, "worker", instance, inner, STATE_SECONDS)

    def of_parked(self, call: Call, identifier: str, seconds: float) -> str:
        """A state that stands for a call which waits for its client."""
        return self._seal(call, "parked", identifier, b"", seconds)

    def opened(self, request: Request) -> StateHandle | None:
        """The handle that a request comes back with; None if it comes with none.

        Raises:
            DownstreamProtocolError: it is none of ours, another's, another request's, or its time is over.
        """
        inbound = request.inbound
        if inbound.era == "legacy" or inbound.method not in ASKABLE or STATE not in inbound.params:
            return None
        sealed = jsonrpc.text(inbound.params[STATE])
        try:
            payload = self._sealer.open("state", sealed or "")
            return handles.decode(payload, bound(request), now=anyio.current_time())
        except (SealBroken, HandleRefused):
            raise refused() from None

    def _seal(self, call: Call, kind: handles.Kind, place: str, inner: bytes, seconds: float) -> str:
        handle = StateHandle(
            kind, call.target.server, place, inner, bound(call.request), anyio.current_time() + seconds
        )
        return self._sealer.seal("state", handles.encode(handle))


def refused() -> DownstreamProtocolError:
    """A state that is good for nothing here. Never says why, for it may be another's."""
    return DownstreamProtocolError(
        INVALID_PARAMS, "params.requestState is not valid for this request; begin again"
    )
