"""`mcphost run`: the runtime behind its own listeners, until a signal ends it."""

import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib.util import find_spec
from socket import socket
from typing import Final

import anyio

from mcphost.errors import StartRefused
from mcphost.policy import Address, Policy, load
from mcphost.runtime import Runtime
from mcphost.telemetry import logs
from mcphost.telemetry.logs import logger
from mcphost.telemetry.servicemanager import ServiceManager
from mcphost.transports.listener import Listener, bind

# Requests to the admin pages are short; none is worth waiting for.
ADMIN_DRAIN_SECONDS: Final = 1.0

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def serve(path: str) -> None:
    """Serve a policy until SIGTERM or SIGINT; a second signal cuts short what is still being waited for.

    Raises:
        PolicyError: the policy is wrong.
        StartRefused: what it asks for cannot be had here.
    """
    policy = load(path)
    raise_descriptor_limit()
    sink = logs.configure(policy.runtime.log.format, policy.runtime.log.level)
    options = {"use_uvloop": find_spec("uvloop") is not None}
    with ExitStack() as stack:
        stack.callback(sink.close)
        listening = stack.enter_context(_bound(policy.runtime.listen, "runtime.listen"))
        admin = None
        if policy.runtime.admin is not None:
            admin = stack.enter_context(_bound(policy.runtime.admin, "runtime.admin"))
        manager = ServiceManager.from_environ(os.environ, os.getpid())
        stack.callback(manager.close)
        anyio.run(_serve, policy, listening, admin, manager, backend_options=options)


def raise_descriptor_limit() -> None:
    """Take as many descriptors as we may (getrlimit(2)): the usual soft limit is there for select(2), unused here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def _bound(address: Address, key: str) -> Iterator[socket]:
    try:
        bound = bind(address.host, address.port)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartRefused(f"cannot listen on {address}: {reason}; change {key} or free the port") from None
    with closing(bound):
        yield bound


async def _serve(policy: Policy, listening: socket, admin: socket | None, manager: ServiceManager) -> None:
    with anyio.open_signal_receiver(*_STOP_SIGNALS) as signals:
        async with Runtime(policy) as runtime, anyio.create_task_group() as outer:
            outer.start_soon(_keep_alive, manager)
            admin_port = None
            if admin is not None:
                pages = Listener(runtime.admin(), admin, drain_seconds=ADMIN_DRAIN_SECONDS)
                admin_port = pages.port
                outer.start_soon(pages.serve)
            async with anyio.create_task_group() as inner:
                front = Listener(runtime.asgi, listening, drain_seconds=policy.runtime.drain)
                inner.start_soon(front.serve)
                url = _announce(policy, runtime, front.port, admin_port)
                manager.ready(
                    f"serving {len(policy.servers)} servers to {len(policy.tenants)} tenants at {url}"
                )
                await anext(signals)
                logger().info("draining", seconds=policy.runtime.drain)
                manager.stopping(f"finishing calls under way for at most {policy.runtime.drain:g} s")
                runtime.drain()
                front.stop()
                inner.start_soon(_hurry, signals, inner.cancel_scope)
                await front.wait_stopped()
                inner.cancel_scope.cancel()
            outer.cancel_scope.cancel()
    logger().info("stopped")


async def _keep_alive(manager: ServiceManager) -> None:
    """Say that the event loop turns, for as long as it does and somebody waits to hear it."""
    while manager.keep_alive_seconds is not None:
        manager.alive()
        await anyio.sleep(manager.keep_alive_seconds)


async def _hurry(signals: AsyncIterator[signal.Signals], scope: anyio.CancelScope) -> None:
    await anext(signals)
    scope.cancel()


def _announce(policy: Policy, runtime: Runtime, port: int, admin_port: int | None) -> str:
    """Log and print where clients connect; gives that address."""
    base = policy.runtime.public_url or f"http://{Address(policy.runtime.listen.host, port)}"
    admin = None
    if policy.runtime.admin is not None and admin_port is not None:
        admin = f"http://{Address(policy.runtime.admin.host, admin_port)}"
    logger().info("listening", url=f"{base}/mcp", admin=admin, pid=os.getpid())
    for shown in runtime.shown_tokens:
        sys.stdout.write(_welcome(f"{base}/mcp", shown.tenant, shown.text.reveal()))
    sys.stdout.flush()
    return f"{base}/mcp"


def _welcome(url: str, tenant: str, token: str) -> str:
    return f"""
MCP endpoint   {url}
Token          {token}
               for the tenant {tenant!r}; made just now, shown this once, gone when the runtime stops

Try it:

curl -s {url} \\
  -H 'Authorization: Bearer {token}' \\
  -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \\
  -H 'MCP-Protocol-Version: 2026-07-28' -H 'Mcp-Method: tools/list' \\
  -d '{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}'

In an MCP client:

{{"mcpServers": {{"mcphost": {{"type": "http", "url": "{url}", "headers": {{"Authorization": "Bearer {token}"}}}}}}}}

"""
