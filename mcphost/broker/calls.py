"""Calls of one item: a tool, a prompt, a resource, or the completion of an argument of one."""

from dataclasses import dataclass

from msgspec import Raw

from mcphost import errors
from mcphost.broker.client import Notify
from mcphost.broker.endpoints import servers_of
from mcphost.broker.request import Around, Request
from mcphost.broker.roundtrip import roundtrip
from mcphost.errors import DownstreamProtocolError, Forbidden
from mcphost.protocol import bridge, catalog, downstream, jsonrpc
from mcphost.protocol.jsonrpc import Fields
from mcphost.protocol.methods import COMPLETE, NAMED
from mcphost.workers.hearing import Hearer, Question


@dataclass(frozen=True, slots=True)
class Target:
    """One item of one server: the server, and the item's name as the server knows it."""

    server: str
    name: str


class Calls:
    """Answers the methods on one item."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self._pool = around.pool

    async def answer(self, request: Request) -> Raw:
        """The server's result, in the client's era and under the endpoint's names."""
        inbound, caller = request.inbound, request.caller
        params = dict(inbound.params)
        if inbound.method == COMPLETE:
            target = self._completed(request, params)
        else:
            key = NAMED[inbound.method].key
            target = self._target(request, key, jsonrpc.text(params.get(key)))
            params[key] = jsonrpc.raw(target.name)
        request.record.server, request.record.name = target.server, target.name
        if not request.tenant.permissions.allows(target.server, target.name):
            raise Forbidden(f"not allowed: {target.server}/{target.name}")
        timeouts = self._pool.servers[target.server].timeouts
        seconds = timeouts.for_tool(target.name) if inbound.method == "tools/call" else timeouts.call
        request.record.tool_called = inbound.method == "tools/call"
        eras, result = await roundtrip(
            self._around,
            request,
            target.server,
            params,
            limit=seconds,
            hearer=_progress(request),
        )
        if caller.server is None:
            result = catalog.rewrite_uris(target.server, result)
        return bridge.to_client(inbound.method, result, eras, server_info=self._around.info)

    def _target(self, request: Request, key: str, name: str | None) -> Target:
        if name is None:
            raise DownstreamProtocolError(errors.INVALID_PARAMS, f"params.{key} must be a string")
        if request.caller.server is not None:
            return Target(request.caller.server, name)
        found = catalog.split(key, name, servers_of(self._pool, request))
        if found is None:
            what = "tool or prompt" if key == "name" else "resource"
            raise DownstreamProtocolError(errors.INVALID_PARAMS, f"unknown {what}: {name[:200]}")
        return Target(*found)

    def _completed(self, request: Request, params: Fields) -> Target:
        """The item whose argument is to be completed; its name inside `params` becomes the server's own."""
        try:
            ref = jsonrpc.fields(params.get("ref", jsonrpc.EMPTY_OBJECT), "params.ref")
        except jsonrpc.Malformed as error:
            raise DownstreamProtocolError(error.code, str(error)) from None
        key = "uri" if "uri" in ref else "name"
        target = self._target(request, key, jsonrpc.text(ref.get(key)))
        ref[key] = jsonrpc.raw(target.name)
        params["ref"] = jsonrpc.raw(ref)
        return target


class _ProgressOnly:
    """Hears the progress of a request and nothing else."""

    wants_progress = True
    wants_logs = False
    can_be_asked = False

    def __init__(self, token: Raw, notify: Notify) -> None:
        self._token = token
        self._notify = notify

    def progressed(self, params: Fields) -> None:
        self._notify(downstream.progress(params, self._token))

    def logged(self, params: Fields) -> None:
        """Never called: no logs are wanted."""

    def asked(self, question: Question) -> None:
        """Never called: nothing can be asked."""


def _progress(request: Request) -> Hearer | None:
    token = downstream.progress_token(request.inbound.meta)
    return None if token is None else _ProgressOnly(token, request.client.notify)
