"""The path of one call, top to bottom: permission, admission, routing, worker, answer.

Takes and returns plain values. No HTTP here: a transport reads a request, authenticates it and gives an
`Inbound` message with its `Caller` and `Client`; what comes back is a `Reply`. Every failure on the way reaches
one place, `Broker.answer`, and becomes one wire error; however a call ends, it is one metric sample and one log
line.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import anyio
from msgspec import Raw

from mcphost import errors
from mcphost.broker import levels
from mcphost.broker.admitting import Admission
from mcphost.broker.auditing import Auditing
from mcphost.broker.calls import Calls, Returning
from mcphost.broker.client import Client, LegacySession
from mcphost.broker.faces import Faces
from mcphost.broker.listening import Listening
from mcphost.broker.listings import Listings
from mcphost.broker.lists import Lists
from mcphost.broker.mirroring import Mirroring
from mcphost.broker.patience import Patience
from mcphost.broker.request import Around, Caller, Record, Reply, Request, Tenant
from mcphost.broker.targets import Targets
from mcphost.broker.tasks import Tasks
from mcphost.broker.watching import Watching
from mcphost.decisions.routing import DEFAULT_ROUTES, Route
from mcphost.errors import DownstreamProtocolError, McpHostError, ServerError
from mcphost.protocol import downstream, jsonrpc
from mcphost.protocol.envelope import Inbound
from mcphost.protocol.jsonrpc import Fields
from mcphost.protocol.methods import COMPLETE, LISTEN, LISTS, NAMED, SUBSCRIPTIONS, TASKS
from mcphost.protocol.versions import Era
from mcphost.telemetry.logs import logger, printable
from mcphost.telemetry.metrics import NONE

__all__ = ["Around", "Auditing", "Broker", "Caller", "Client", "Reply", "Tenant"]


class Broker:
    """Brokers calls of many tenants to the workers of many servers."""

    def __init__(
        self,
        around: Around,
        tenants: Mapping[str, Tenant],
        routes: Mapping[str, Route] = DEFAULT_ROUTES,
        auditing: Auditing | None = None,
    ) -> None:
        """`routes` by their paths. Without `auditing` no audit is kept."""
        self._auditing = auditing
        self.routes = routes
        self._pool = around.pool
        self._metrics = around.metrics
        self._admission = Admission(around.wall)
        self._tenants = tenants
        patience = Patience()
        listings = Listings(around.pool, patience)
        self._faces = Faces(around, patience)
        self._lists = Lists(around, listings)
        targets = Targets(around.pool, listings)
        tasks = Tasks(around)
        self._calls = Calls(around, targets, Mirroring(listings), tasks)
        self._listening = Listening(around, targets, tasks, patience)
        self._watching = Watching(around, targets)

    def __repr__(self) -> str:
        return f"<Broker {len(self._tenants)} tenants, {len(self._pool.servers)} servers>"

    def serves(self, caller: Caller) -> bool:
        """Whether the caller's endpoint exists for it."""
        if caller.server is None:
            return True
        tenant = self._tenants[caller.principal.tenant]
        known = caller.server in self._pool.servers
        return known and tenant.permissions_of(caller.principal).sees(caller.server)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Take calls for as long as the block lasts; those whose clients are away end with it."""
        async with self._calls.open():
            yield

    async def answer(self, caller: Caller, inbound: Inbound, client: Client) -> Reply:
        """Answer one request of `client`, which may hear and be asked things before.

        Cancelling this coroutine cancels the call, at the worker too. Raises nothing else.
        """
        record = Record(server=caller.server or NONE)
        try:
            result = await self._performed(caller, inbound, client, record)
        except Exception as error:  # noqa: BLE001 - the one boundary: a bug in one call must not end others
            wire = errors.to_wire(error)
            status = wire.status
            if isinstance(error, DownstreamProtocolError | ServerError):
                status = _status(wire.code, inbound.era)
            return Reply(jsonrpc.encode_error(inbound.id, wire), status, wire.headers)
        return Reply(jsonrpc.encode_answer(inbound.id, result), version=record.version)

    def charge(self, caller: Caller) -> None:
        """Count what a client sends that is no request: it costs its tenant as much as one.

        Raises:
            RateLimited: the tenant sent as much as it may.
        """
        self._admission.charge(self._tenants[caller.principal.tenant])

    def begin_session(self, caller: Caller, client: Client) -> None:
        """A legacy session listens: from now on it is told of changed lists. Does nothing if it is already."""
        nothing = Inbound("legacy", jsonrpc.Message("notification", "", b"", Raw()), {}, {})
        tenant = self._tenants[caller.principal.tenant]
        self._watching.begin(Request(tenant, caller, nothing, client, Record()))

    def end_session(self, session: LegacySession) -> None:
        """A legacy session has ended, and with it what worked for it alone."""
        self._watching.end(session)
        self._pool.end_session(session.key)

    async def call_tool(self, caller: Caller, tool: str, arguments: Raw) -> Raw:
        """Call one tool for an embedding program: the same path, without a transport. Gives the raw result.

        Raises:
            McpHostError: any refusal or failure; `ServerError` is the server's own.
        """
        params: Fields = {"name": jsonrpc.raw(tool), "arguments": arguments}
        message = jsonrpc.Message("request", "tools/call", b"0", jsonrpc.raw(params))
        record = Record(server=caller.server or NONE)
        return await self._performed(caller, Inbound("legacy", message, params, {}), Client("legacy"), record)

    async def _performed(self, caller: Caller, inbound: Inbound, client: Client, record: Record) -> Raw:
        """The call, counted and logged once however it ends."""
        started = anyio.current_time()
        request = Request(self._tenants[caller.principal.tenant], caller, inbound, client, record)
        failure: Exception | None = None
        try:
            if self._auditing is not None:
                self._auditing.begin(record)
            result = await self._dispatch(request)
            record.bytes_out = len(bytes(result))
        except McpHostError as error:
            failure = error
            record.status = error.reason
            record.extra["error"] = printable(str(error))
            raise
        except Exception:
            record.status = "internal"
            logger().exception("call_broke", method=printable(inbound.method))
            raise
        except BaseException:
            record.status = "cancelled"
            raise
        else:
            return result
        finally:
            seconds = anyio.current_time() - started
            if self._auditing is not None:
                self._auditing.finish(request, failure, seconds)
            self._recorded(caller, inbound, record, seconds)

    def _recorded(self, caller: Caller, inbound: Inbound, record: Record, seconds: float) -> None:
        tenant = caller.principal.tenant
        self._metrics.request(
            method=inbound.method, status=record.status, tenant=tenant, server=record.server
        )
        if record.tool_called:
            self._metrics.tool(tenant=tenant, server=record.server, tool=record.name, seconds=seconds)
        logger().info(
            "call_finished",
            tenant=tenant,
            token=caller.principal.token_id,
            server=record.server,
            method=printable(inbound.method),
            name=printable(record.name),
            era=inbound.era,
            outcome=record.status,
            seconds=round(seconds, 6),
            **record.extra,
        )

    async def _dispatch(self, request: Request) -> Raw:
        """The method's answer. Everything but `ping` costs rate and a place among the calls under way."""
        legacy = request.inbound.era == "legacy"
        if request.inbound.method == "ping" and legacy:
            return jsonrpc.EMPTY_OBJECT
        levels.check(request.inbound)
        if request.inbound.method == LISTEN and not legacy:
            # It lasts, so it has a bound of its own and holds no place; opening one costs rate all the same.
            self._admission.charge(request.tenant)
            return await self._listening.answer(request)
        returning = self._calls.returning(request)
        if returning is not None and returning.holds_place:
            self._admission.charge(request.tenant)
        else:
            self._admission.admit(request)
        try:
            if request.inbound.method != "initialize":
                self._watching.begin(request)
            return await self._admitted(request, returning)
        finally:
            if request.place is not None:
                request.place.leave()

    async def _admitted(self, request: Request, returning: Returning | None) -> Raw:
        legacy = request.inbound.era == "legacy"
        match request.inbound.method:
            case "initialize" if legacy:
                face = await self._faces.of(request)
                request.record.version, result = downstream.initialize_result(request.inbound.params, face)
                await self._watching.begin_with(request)
                return result
            case "server/discover" if not legacy:
                return downstream.discover_result(await self._faces.of(request))
            case "logging/setLevel" if request.client.session is not None:
                return levels.keep(request.inbound, request.client.session)
            case method if method in LISTS:
                return await self._lists.answer(request, LISTS[method])
            case method if method in NAMED or method == COMPLETE or (method in TASKS and not legacy):
                return await self._calls.answer(request, returning)
            case method if method in SUBSCRIPTIONS and legacy:
                return await self._watching.answer(request)
            case method:
                raise DownstreamProtocolError(errors.METHOD_NOT_FOUND, f"no such method: {method[:100]}")


def _status(code: int, era: Era) -> int:
    """The HTTP status of a JSON-RPC error that was met while answering; the legacy binding uses 200."""
    return errors.MODERN_STATUS.get(code, 200) if era == "modern" else 200
