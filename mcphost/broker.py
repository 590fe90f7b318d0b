"""The path of one call, top to bottom: permission, admission, routing, worker, answer.

Takes and returns plain values. No HTTP here: a transport reads a request, authenticates it and gives an
`Inbound` message with its `Caller`; what comes back is a `Reply`. Every failure on the way reaches one place,
`Broker.answer`, and becomes one wire error; however a call ends, it is one metric sample and one log line.
"""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Final

import anyio
from msgspec import Raw

from mcphost import errors
from mcphost.decisions.admission import Gate
from mcphost.decisions.identity import Principal
from mcphost.decisions.permissions import Permissions
from mcphost.errors import (
    CallTimeout,
    DownstreamProtocolError,
    Forbidden,
    McpHostError,
    ServerError,
    UpstreamProtocolError,
)
from mcphost.protocol import bridge, catalog, downstream, jsonrpc
from mcphost.protocol.bridge import Eras
from mcphost.protocol.downstream import Face
from mcphost.protocol.envelope import Inbound
from mcphost.protocol.jsonrpc import Fields
from mcphost.protocol.methods import COMPLETE, LISTS, NAMED, ListMethod
from mcphost.protocol.versions import Era
from mcphost.telemetry.logs import logger, printable
from mcphost.telemetry.metrics import NONE, Metrics
from mcphost.workers.connection import OnProgress
from mcphost.workers.pool import Pool
from mcphost.workers.worker import Worker

# The handshake methods wait for servers that are starting; this is what they may take beyond a start.
HANDSHAKE_SLACK_SECONDS: Final = 5.0

Notify = Callable[[bytes], None]


@dataclass(slots=True, eq=False)
class Tenant:
    """One tenant at run time: what it may do, and what it is doing."""

    name: str
    permissions: Permissions
    gate: Gate


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks and through which endpoint; `server` is None on the endpoint of all servers."""

    principal: Principal
    server: str | None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answered request: a JSON-RPC message without line breaks, and the HTTP status that goes with it.

    `version` is the negotiated revision where the request was an `initialize`.
    """

    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    version: str | None = None


@dataclass(slots=True)
class _Record:
    """What the log line and the metrics of one call are made from."""

    server: str = NONE
    name: str = ""
    status: str = "ok"
    version: str | None = None
    tool_called: bool = False
    extra: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Target:
    """One item of one server: the server, and the item's name as the server knows it."""

    server: str
    name: str


class Broker:
    """Brokers calls of many tenants to the workers of many servers."""

    def __init__(self, pool: Pool, tenants: Mapping[str, Tenant], *, info: Raw, metrics: Metrics) -> None:
        self._pool = pool
        self._tenants = tenants
        self._info = info
        self._metrics = metrics

    def __repr__(self) -> str:
        return f"<Broker {len(self._tenants)} tenants, {len(self._pool.servers)} servers>"

    def serves(self, caller: Caller) -> bool:
        """Whether the caller's endpoint exists for its tenant."""
        if caller.server is None:
            return True
        known = caller.server in self._pool.servers
        return known and self._tenants[caller.principal.tenant].permissions.sees(caller.server)

    async def answer(self, caller: Caller, inbound: Inbound, notify: Notify) -> Reply:
        """Answer one request. `notify` takes progress that comes before the answer.

        Cancelling this coroutine cancels the call, at the worker too. Raises nothing else.
        """
        record = _Record(server=caller.server or NONE)
        try:
            result = await self._performed(caller, inbound, notify, record)
        except Exception as error:  # noqa: BLE001 - the one boundary: a bug in one call must not end others
            wire = errors.to_wire(error)
            status = wire.status
            if isinstance(error, DownstreamProtocolError | ServerError):
                status = _status(wire.code, inbound.era)
            return Reply(jsonrpc.encode_error(inbound.id, wire), status, wire.headers)
        return Reply(jsonrpc.encode_answer(inbound.id, result), version=record.version)

    async def call_tool(self, caller: Caller, tool: str, arguments: Raw) -> Raw:
        """Call one tool for an embedding program: the same path, without a transport. Gives the raw result.

        Raises:
            McpHostError: any refusal or failure; `ServerError` is the server's own.
        """
        params: Fields = {"name": jsonrpc.raw(tool), "arguments": arguments}
        message = jsonrpc.Message("request", "tools/call", b"0", jsonrpc.raw(params))
        record = _Record(server=caller.server or NONE)
        return await self._performed(caller, Inbound("legacy", message, params, {}), _ignore, record)

    async def _performed(self, caller: Caller, inbound: Inbound, notify: Notify, record: _Record) -> Raw:
        """The call, counted and logged once however it ends."""
        started = anyio.current_time()
        try:
            return await self._dispatch(
                self._tenants[caller.principal.tenant], caller, inbound, notify, record
            )
        except McpHostError as error:
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
        finally:
            self._recorded(caller, inbound, record, anyio.current_time() - started)

    def _recorded(self, caller: Caller, inbound: Inbound, record: _Record, seconds: float) -> None:
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

    async def _dispatch(
        self, tenant: Tenant, caller: Caller, inbound: Inbound, notify: Notify, record: _Record
    ) -> Raw:
        """The method's answer. Everything but `ping` costs rate and a place among the calls under way."""
        legacy = inbound.era == "legacy"
        if inbound.method == "ping" and legacy:
            return jsonrpc.EMPTY_OBJECT
        tenant.gate.enter(anyio.current_time())
        try:
            match inbound.method:
                case "initialize" if legacy:
                    face = await self._face(tenant, caller)
                    record.version, result = downstream.initialize_result(inbound.params, face)
                    return result
                case "server/discover" if not legacy:
                    return downstream.discover_result(await self._face(tenant, caller))
                case method if method in LISTS:
                    return await self._list(tenant, caller, inbound, LISTS[method])
                case method if method in NAMED or method == COMPLETE:
                    return await self._one(tenant, caller, inbound, notify, record)
                case method:
                    raise DownstreamProtocolError(errors.METHOD_NOT_FOUND, f"no such method: {method[:100]}")
        finally:
            tenant.gate.leave()

    # --- what an endpoint is --------------------------------------------------------------------------

    def _servers(self, tenant: Tenant, caller: Caller) -> list[str]:
        if caller.server is not None:
            return [caller.server]
        return [name for name in self._pool.servers if tenant.permissions.sees(name)]

    async def _face(self, tenant: Tenant, caller: Caller) -> Face:
        """Capabilities and instructions of an endpoint. Servers that do not get ready are left out."""
        workers: dict[str, Worker] = {}
        names = self._servers(tenant, caller)

        async def wait(server: str) -> None:
            limit = self._pool.servers[server].timeouts.start + HANDSHAKE_SLACK_SECONDS
            with anyio.move_on_after(limit):
                try:
                    workers[server] = await self._pool.find(server, tenant.name).ready()
                except errors.WorkerUnavailable:
                    if caller.server is not None:
                        raise

        await _together(wait, names)
        if caller.server is not None and not workers:
            raise errors.WorkerUnavailable(f"the server {caller.server!r} did not get ready in time")
        facts = {name: workers[name].facts for name in names if name in workers}
        offered = catalog.capabilities(each.capabilities for each in facts.values())
        if caller.server is not None:
            own = facts[caller.server]
            return Face(offered, own.info, own.instructions)
        advice = catalog.instructions([(name, each.instructions) for name, each in facts.items()])
        return Face(offered, self._info, advice)

    # --- lists ----------------------------------------------------------------------------------------

    async def _list(self, tenant: Tenant, caller: Caller, inbound: Inbound, method: ListMethod) -> Raw:
        if caller.server is not None:
            return await self._list_one(tenant, caller.server, inbound, method)
        if "cursor" in inbound.params:
            # Many servers' lists are gathered whole, so no cursor of ours exists.
            raise DownstreamProtocolError(errors.INVALID_PARAMS, "unknown cursor")
        parts: dict[str, list[Fields]] = {}
        names = self._servers(tenant, caller)

        async def gather(server: str) -> None:
            try:
                parts[server] = await self._all_items(tenant, server, inbound.method, method)
            except McpHostError as error:
                # One failing server must not take the others' lists with it; the log says what is missing.
                logger().warning(
                    "list_part_missing", tenant=tenant.name, server=server, why=printable(str(error))
                )

        await _together(gather, names)
        items = [item for name in names for item in parts.get(name, ())]
        members: Fields = {method.member: jsonrpc.raw(items)}
        if inbound.era == "modern":
            members = bridge.modern_result(inbound.method, members, self._info)
        return jsonrpc.raw(members)

    async def _list_one(self, tenant: Tenant, server: str, inbound: Inbound, method: ListMethod) -> Raw:
        """One page, cut to what the tenant may see; the server's own cursor goes through as it is."""
        eras, result = await self._exchange(tenant, server, inbound, inbound.params)
        members, items = catalog.page(result, method)
        shown = catalog.visible(items, method, lambda name: tenant.permissions.allows(server, name), None)
        members[method.member] = jsonrpc.raw(shown)
        return bridge.to_client(inbound.method, jsonrpc.raw(members), eras, server_info=self._info)

    async def _all_items(self, tenant: Tenant, server: str, name: str, method: ListMethod) -> list[Fields]:
        workers = self._pool.find(server, tenant.name)
        seconds = workers.settings.timeouts.call
        try:
            with anyio.fail_after(seconds):
                with await workers.slot():
                    worker = await workers.ready()
                    if method.feature not in worker.facts.capabilities:
                        return []
                    items = await worker.list_all(name)
        except TimeoutError:
            raise CallTimeout(seconds) from None
        return catalog.visible(items, method, lambda item: tenant.permissions.allows(server, item), server)

    # --- one item -------------------------------------------------------------------------------------

    async def _one(
        self, tenant: Tenant, caller: Caller, inbound: Inbound, notify: Notify, record: _Record
    ) -> Raw:
        params = dict(inbound.params)
        if inbound.method == COMPLETE:
            target = self._completed(tenant, caller, params)
        else:
            key = NAMED[inbound.method].key
            target = self._target(tenant, caller, key, jsonrpc.text(params.get(key)))
            params[key] = jsonrpc.raw(target.name)
        record.server, record.name = target.server, target.name
        if not tenant.permissions.allows(target.server, target.name):
            raise Forbidden(f"not allowed: {target.server}/{target.name}")
        timeouts = self._pool.servers[target.server].timeouts
        seconds = timeouts.for_tool(target.name) if inbound.method == "tools/call" else timeouts.call
        record.tool_called = inbound.method == "tools/call"
        progress = self._progress(inbound, notify)
        eras, result = await self._exchange(
            tenant, target.server, inbound, params, limit=seconds, on_progress=progress
        )
        if caller.server is None:
            result = catalog.rewrite_uris(target.server, result)
        return bridge.to_client(inbound.method, result, eras, server_info=self._info)

    def _target(self, tenant: Tenant, caller: Caller, key: str, name: str | None) -> _Target:
        if name is None:
            raise DownstreamProtocolError(errors.INVALID_PARAMS, f"params.{key} must be a string")
        if caller.server is not None:
            return _Target(caller.server, name)
        found = catalog.split(key, name, self._servers(tenant, caller))
        if found is None:
            what = "tool or prompt" if key == "name" else "resource"
            raise DownstreamProtocolError(errors.INVALID_PARAMS, f"unknown {what}: {name[:200]}")
        return _Target(*found)

    def _completed(self, tenant: Tenant, caller: Caller, params: Fields) -> _Target:
        """The item whose argument is to be completed; its name inside `params` becomes the server's own."""
        try:
            ref = jsonrpc.fields(params.get("ref", jsonrpc.EMPTY_OBJECT), "params.ref")
        except jsonrpc.Malformed as error:
            raise DownstreamProtocolError(error.code, str(error)) from None
        key = "uri" if "uri" in ref else "name"
        target = self._target(tenant, caller, key, jsonrpc.text(ref.get(key)))
        ref[key] = jsonrpc.raw(target.name)
        params["ref"] = jsonrpc.raw(ref)
        return target

    def _progress(self, inbound: Inbound, notify: Notify) -> OnProgress | None:
        token = downstream.progress_token(inbound.meta)
        if token is None:
            return None
        return lambda params: notify(downstream.progress(params, token))

    async def _exchange(
        self,
        tenant: Tenant,
        server: str,
        inbound: Inbound,
        params: Fields,
        *,
        limit: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> tuple[Eras, Raw]:
        """One request to a tenant's worker within `limit` seconds (the server's own without one).

        Gives the eras that it crossed and the raw result.
        Waiting for a slot and for a starting worker counts against the deadline.
        """
        workers = self._pool.find(server, tenant.name)
        seconds = limit or workers.settings.timeouts.call
        try:
            with anyio.fail_after(seconds):
                with await workers.slot():
                    worker = await workers.ready()
                    eras = Eras(inbound.era, worker.facts.era)
                    message = await worker.request(
                        inbound.method,
                        lambda token: bridge.to_worker(
                            params,
                            inbound.meta,
                            eras,
                            token=token if on_progress is not None else None,
                            client_info=self._info,
                        ),
                        on_progress,
                    )
        except TimeoutError:
            raise CallTimeout(seconds) from None
        if message.kind == "error":
            error = bridge.error_to_client(jsonrpc.error_object(message.body), eras)
            raise ServerError(error.code, error.message, bytes(error.data))
        if not bytes(message.body).startswith(b"{"):
            raise UpstreamProtocolError("the server answered with a result that is no object")
        return eras, message.body


def _ignore(_: bytes) -> None:
    return None


def _status(code: int, era: Era) -> int:
    """The HTTP status of a JSON-RPC error that was met while answering; the legacy binding uses 200."""
    return errors.MODERN_STATUS.get(code, 200) if era == "modern" else 200


async def _together(work: Callable[[str], Coroutine[object, object, None]], names: list[str]) -> None:
    """Run `work` for every name at once and wait for all; one name needs no task."""
    if len(names) == 1:
        await work(names[0])
        return
    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(work, name)
