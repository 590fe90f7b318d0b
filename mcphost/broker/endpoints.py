"""Which servers an endpoint stands for, under which names, and working on several of them at once."""

from collections.abc import Callable, Coroutine, Iterable

import anyio

from mcphost import errors
from mcphost.broker.request import Request
from mcphost.decisions.cursors import Audience
from mcphost.errors import DownstreamProtocolError
from mcphost.protocol.listening import ListKind
from mcphost.protocol.naming import BARE, Names
from mcphost.workers.pool import Pool


def servers_of(pool: Pool, request: Request) -> list[str]:
    """The servers behind the request's endpoint that its client may see, in the policy's order."""
    if request.caller.server is not None:
        return [request.caller.server]
    wanted = request.caller.route.servers
    names = pool.servers if wanted is None else wanted
    return [name for name in names if request.permissions.sees(name)]


def names_of(request: Request) -> Names:
    """How the request's endpoint names items. That of a single server shows them as they are."""
    return BARE if request.caller.server is not None else Names(request.caller.route.separator)


def audience_of(request: Request) -> Audience:
    """Who a cursor that is made for this request will serve."""
    return Audience(request.caller.principal, request.caller.endpoint, request.inbound.method)


def check_offered(request: Request, feature: str) -> None:
    """Refuse what the route does not show, as if no server had it.

    Raises:
        DownstreamProtocolError: -32601.
    """
    if request.caller.server is None and not request.caller.route.offers(feature):
        raise DownstreamProtocolError(errors.METHOD_NOT_FOUND, f"{feature} are not offered here")


def shown_lists(request: Request, kinds: Iterable[ListKind]) -> list[ListKind]:
    """Those of some lists that the request's endpoint shows."""
    caller = request.caller
    return [kind for kind in kinds if caller.server is not None or caller.route.offers(kind)]


async def together(work: Callable[[str], Coroutine[object, object, None]], names: list[str]) -> None:
    """Run `work` for every name at once and wait for all; one name needs no task."""
    if len(names) == 1:
        await work(names[0])
        return
    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(work, name)
