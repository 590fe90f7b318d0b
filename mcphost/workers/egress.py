"""The CONNECT proxy of one worker: it accepts on the worker's own loopback and connects to what the policy lists.

What is allowed is decided in `sandbox` (see its `egress` for the theory); here it is done. The listening socket came out
of the worker's network namespace, so every connection on it is that worker's. One task accepts, one carries each
connection, and all of them end with the worker. Everything a worker can make us hold is bounded by `Bounds`: what does
not fit waits in the kernel, on the worker's side.

A connection is told no in HTTP where HTTP is still spoken; once the tunnel is open, TLS has begun, and a refusal is its
end.
"""

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Literal

import anyio
import anyio.abc

from mcphost.decisions.ratelimit import Rate, RateLimiter
from mcphost.telemetry.logs import logger
from mcphost.telemetry.metrics import Metrics
from mcphost.workers.dialing import AddressRefused, Dialer, dial
from mcphost.workers.lifetime import background_tasks
from mcphost.workers.wires import Wire, bound_buffers
from sandbox import (
    UNRECOGNIZED_NAME,
    Address,
    ClientHello,
    ConnectReader,
    ConnectRefused,
    ConnectRequest,
    Egress,
    HelloReader,
    HelloRefused,
    RetryWatch,
    answer,
    name_refusal,
)

Outcome = Literal[
    "done", "broken", "idle", "ended", "internal",
    "bad-request", "plain-http", "too-slow", "not-listed", "address-refused", "no-address", "unreachable", "timeout",
    "not-tls", "other-name",
]  # fmt: skip

Direction = Literal["sent", "received"]

# New connections of one worker; each costs the runtime's only thread about a millisecond.
PACE: Final = Rate(per_second=50.0, burst=200)
# Lines about connections that one worker can cause; the metrics count every connection all the same.
LOGGED: Final = Rate(per_second=10.0, burst=100)
# Errors of accept(2) that are about one connection that is gone, or about the machine being short of something.
_GONE: Final = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EINTR, errno.EAGAIN})
_SHORT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
SHORT_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one worker may use of the proxy. Seconds are those of one step, `idle` those without a byte either way."""

    connections: int = 64  # each is two descriptors, two pieces of memory and at most 2 MiB of the kernel's
    pace: Rate = PACE
    head_seconds: float = 10.0
    lookup_seconds: float = 10.0
    connect_seconds: float = 10.0
    hello_seconds: float = 10.0
    idle_seconds: float = 300.0
    linger_seconds: float = 1.0  # after a refusal, for the client to read it


@dataclass(slots=True)
class _Seen:
    """What there will be to say of a connection at its end."""

    host: str = ""
    port: int = 0
    address: str = ""
    outcome: Outcome = "ended"
    why: str = ""
    sent: int = 0
    received: int = 0


class _Refused(Exception):
    """Not carried. With a `status` the client is told in HTTP, with `alert` in TLS."""

    def __init__(self, outcome: Outcome, why: str, *, status: int = 0, alert: bytes = b"") -> None:
        super().__init__(why)
        self.outcome = outcome
        self.why = why
        self.farewell = answer(status, why) if status else alert


class EgressProxy:
    """Serves one worker. Owns its listening socket."""

    def __init__(
        self,
        listener: int,
        dialer: Dialer,
        egress: Egress,
        *,
        labels: tuple[str, str],
        metrics: Metrics,
        bounds: Bounds | None = None,
    ) -> None:
        """`labels` are the server and the tenant, for logs and metrics."""
        self._listener = socket.socket(fileno=listener)
        self._listener.setblocking(False)
        bound_buffers(self._listener)  # every accepted socket has them from here
        self._dialer = dialer
        self._egress = egress
        self._labels = labels
        self._metrics = metrics
        self._bounds = bounds or Bounds()
        self._slots = anyio.Semaphore(self._bounds.connections)
        self._pace = RateLimiter(self._bounds.pace)
        self._logged = RateLimiter(LOGGED)
        self._unlogged = 0
        self._held: set[socket.socket] = set()

    def __repr__(self) -> str:
        return f"<EgressProxy {'/'.join(self._labels)} {self.open} open>"

    @property
    def open(self) -> int:
        """Connections that are being carried or refused."""
        return len(self._held)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve for as long as the block lasts; at its end every connection is closed, and the socket with them."""
        try:
            async with background_tasks() as tasks:
                tasks.start_soon(self._accept, tasks)
                yield
        finally:
            self._listener.close()
            for accepted in self._held:
                accepted.close()  # its task was cancelled before it began

    async def _accept(self, tasks: anyio.abc.TaskGroup) -> None:
        while True:
            await self._slots.acquire()
            if wait := self._pace.wait_for(anyio.current_time()):
                await anyio.sleep(wait)
                self._pace.wait_for(anyio.current_time())
            accepted = await self._next()
            self._held.add(accepted)
            tasks.start_soon(self._attend, accepted)

    async def _next(self) -> socket.socket:
        while True:
            await anyio.wait_readable(self._listener)
            try:
                accepted, _ = self._listener.accept()
            except OSError as error:
                if error.errno in _SHORT:
                    if not self._logged.wait_for(anyio.current_time()):
                        logger().warning("egress_short_of_descriptors", **self._keys, error=error.strerror)
                    await anyio.sleep(SHORT_SECONDS)
                elif error.errno not in _GONE:
                    raise
                continue
            accepted.setblocking(False)
            return accepted

    async def _attend(self, accepted: socket.socket) -> None:
        near, seen, started = Wire(accepted), _Seen(), anyio.current_time()
        try:
            await self._carry(near, seen)
        except _Refused as refused:
            seen.outcome, seen.why = refused.outcome, refused.why
            await self._say_no(near, refused.farewell)
        except OSError as error:
            seen.outcome, seen.why = "broken", error.strerror or ""
        except Exception:  # noqa: BLE001 - the boundary of one connection: its bug must not end the others
            seen.outcome = "internal"
            logger().exception("egress_broke", **self._keys)
        finally:
            near.close()
            self._held.discard(accepted)
            self._slots.release()
            self._tell(seen, anyio.current_time() - started)

    async def _say_no(self, near: Wire, farewell: bytes) -> None:
        """Tell the client, and see to it that it can read it; bounded, for it may not want to."""
        with anyio.move_on_after(self._bounds.linger_seconds):
            try:
                await near.send(farewell)
            except OSError:
                return
            await near.linger()

    async def _carry(self, near: Wire, seen: _Seen) -> None:
        request = await self._request(near)
        seen.host, seen.port = request.host, request.port
        if not self._egress.allows(request.host, request.port):
            why = f"{request.host}:{request.port} is not on the egress list of this server"
            raise _Refused("not-listed", why, status=403)
        far, address = await self._connect(request)
        seen.address = str(address)
        try:
            await near.send(answer(200))
            hello = await self._hello(near, request)
            watch = RetryWatch(request.host)
            watch.from_client(hello.after)
            await far.send(hello.raw)
            self._count(seen, "sent", len(hello.raw))
            await self._relay(near, far, seen, watch)
        except HelloRefused as refused:
            raise _Refused("other-name", str(refused)) from None
        finally:
            far.close()

    async def _request(self, near: Wire) -> ConnectRequest:
        reader = ConnectReader()
        try:
            with anyio.fail_after(self._bounds.head_seconds):
                while data := await near.receive():
                    if (request := reader.feed(data)) is not None:
                        return request
        except ConnectRefused as refused:
            outcome: Outcome = "plain-http" if refused.status == 405 else "bad-request"  # noqa: PLR2004
            raise _Refused(outcome, refused.reason, status=refused.status) from None
        except TimeoutError:
            raise _Refused("too-slow", "the request did not come in time", status=400) from None
        raise _Refused("bad-request", "the connection ended before its request did")

    async def _connect(self, request: ConnectRequest) -> tuple[Wire, Address]:
        try:
            with anyio.fail_after(self._bounds.lookup_seconds):
                addresses = await self._dialer.addresses(request.host)
        except TimeoutError:
            raise _Refused("timeout", f"looking up {request.host} took too long", status=504) from None
        except AddressRefused as refused:
            raise _Refused("address-refused", f"{request.host}: {refused}", status=403) from None
        except (OSError, UnicodeError):
            raise _Refused("no-address", f"{request.host} has no address", status=502) from None
        try:
            with anyio.fail_after(self._bounds.connect_seconds):
                made, address = await dial(addresses, request.port)
        except TimeoutError:
            raise _Refused("timeout", f"{request.host} did not answer in time", status=504) from None
        except OSError as error:
            raise _Refused(
                "unreachable", f"{request.host} cannot be reached: {error.strerror}", status=502
            ) from None
        return Wire(made), address

    async def _hello(self, near: Wire, request: ConnectRequest) -> ClientHello:
        """The client's first message, which must be for the host it asked us for."""
        reader = HelloReader()
        data = request.rest
        try:
            with anyio.fail_after(self._bounds.hello_seconds):
                while (hello := reader.feed(data)) is None:
                    if not (data := await near.receive()):
                        raise _Refused("not-tls", "the connection ended before TLS began")
        except HelloRefused as refused:
            raise _Refused("not-tls", str(refused)) from None
        except TimeoutError:
            raise _Refused("too-slow", "TLS did not begin in time") from None
        if why := name_refusal(hello.name, request.host):
            raise _Refused("other-name", why, alert=UNRECOGNIZED_NAME)
        return hello

    async def _relay(self, near: Wire, far: Wire, seen: _Seen, watch: RetryWatch) -> None:
        """Both directions until both have ended, each by itself; or one breaks, or neither has moved for long."""
        idle = self._bounds.idle_seconds
        with anyio.CancelScope(deadline=anyio.current_time() + idle) as patience:
            async with anyio.create_task_group() as tasks:

                async def pump(source: Wire, goal: Wire, direction: Direction) -> None:
                    look = watch.from_client if direction == "sent" else watch.from_server
                    try:
                        while data := await source.receive():
                            patience.deadline = anyio.current_time() + idle
                            look(data)
                            await goal.send(data)
                            patience.deadline = anyio.current_time() + idle
                            self._count(seen, direction, len(data))
                        goal.end()
                    except OSError as error:
                        seen.outcome, seen.why = "broken", error.strerror or ""
                        tasks.cancel_scope.cancel()
                    except HelloRefused as refused:
                        seen.outcome, seen.why = "other-name", str(refused)
                        tasks.cancel_scope.cancel()

                tasks.start_soon(pump, near, far, "sent")
                tasks.start_soon(pump, far, near, "received")
        if patience.cancelled_caught:
            seen.outcome = "idle"
        elif seen.outcome == "ended":
            seen.outcome = "done"

    def _count(self, seen: _Seen, direction: Direction, count: int) -> None:
        if direction == "sent":
            seen.sent += count
        else:
            seen.received += count
        self._metrics.egress_bytes(*self._labels, direction, count)

    def _tell(self, seen: _Seen, seconds: float) -> None:
        self._metrics.egress_connection(*self._labels, seen.outcome)
        if self._logged.wait_for(anyio.current_time()):
            self._unlogged += 1
            return
        more: dict[str, object] = {"why": seen.why} if seen.why else {}
        if self._unlogged:
            more["unlogged"], self._unlogged = self._unlogged, 0
        logger().info(
            "egress_finished",
            **self._keys,
            host=seen.host,
            port=seen.port,
            address=seen.address,
            outcome=seen.outcome,
            sent=seen.sent,
            received=seen.received,
            seconds=round(seconds, 3),
            **more,
        )

    @property
    def _keys(self) -> dict[str, object]:
        return {"server": self._labels[0], "tenant": self._labels[1]}
