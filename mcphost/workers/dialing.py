"""From a name to a connection: looked up by us, judged, and connected to at the very address that was judged.

Two addresses of a name are tried with a head start for the first (RFC 8305, section 5, without its sorting rules: the
C library's order is kept, families taking turns).
"""

import errno
import os
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from itertools import zip_longest
from typing import Final

import anyio
import anyio.from_thread
from anyio.lowlevel import current_token

from mcphost.workers.wires import INCOMING_KERNEL_BYTES, bound_buffers
from sandbox import Address, Egress, address_of

# More addresses than this are not looked at; a name with so many does not need them all.
MAX_ADDRESSES: Final = 8
# RFC 8305, section 8: recommended delay between connection attempts.
HEAD_START_SECONDS: Final = 0.25
# Look-ups of one worker at the same time. One that was given up goes on in its thread and keeps its place until the C
# library is done with it, so a name server that never answers holds no more threads than this.
MAX_LOOKUPS: Final = 4

_NO_WAY: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL})

Resolve = Callable[[str], list[str]]
"""Blocking: every address of a host name, as text. Raises `OSError` (`socket.gaierror`) where there is none."""


class AddressRefused(Exception):
    """Every address of the name is one that no worker may connect to; the text says why for one of them."""


def system_lookup(host: str) -> list[str]:
    """What this machine's own resolver says, /etc/hosts included (getaddrinfo(3))."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(place[0]) for *_, place in found]


class Dialer:
    """Connects one worker to what it may reach."""

    def __init__(self, egress: Egress, resolve: Resolve = system_lookup) -> None:
        self._egress = egress
        self._resolve = resolve
        self._lookups = anyio.Semaphore(MAX_LOOKUPS)

    async def addresses(self, host: str) -> list[Address]:
        """The addresses of a host that may be connected to. The caller bounds the wait.

        Raises:
            AddressRefused: there are some, but none of them may.
            OSError: there are none.
        """
        literal = address_of(host)
        found = [literal] if literal is not None else await self._look_up(host)
        refusals = [self._egress.refuses(address) or is_own(address) for address in found]
        allowed = [address for address, refusal in zip(found, refusals, strict=True) if refusal is None]
        if found and not allowed:
            raise AddressRefused(f"{found[0]} cannot be reached from here: {refusals[0]}")
        if not allowed:
            raise OSError(errno.ENOENT, "the name has no address")
        return _taking_turns(allowed)[:MAX_ADDRESSES]

    async def _look_up(self, host: str) -> list[Address]:
        await self._lookups.acquire()
        lookup = _Lookup(self._resolve, host, self._lookups.release)
        addresses = [address_of(text) for text in dict.fromkeys(await lookup.result())]
        return [address for address in addresses if address is not None]


class _Lookup:
    """One look-up in a thread of its own, which ends when the C library does, whoever still waits.

    A daemon, so that a name server that never answers does not hold up the end of the process either.
    """

    def __init__(self, resolve: Resolve, host: str, release: Callable[[], None]) -> None:
        """`release` is called in the loop once the thread is done, also where it could not be started."""
        self._resolve = resolve
        self._host = host
        self._release = release
        self._token = current_token()
        self._done = anyio.Event()
        self._texts: list[str] = []
        self._failure: Exception | None = None
        try:
            threading.Thread(target=self._run, name="lookup", daemon=True).start()
        except RuntimeError as error:
            release()
            raise OSError(errno.EAGAIN, "no thread for a look-up") from error

    async def result(self) -> list[str]:
        """The addresses. Raises what the look-up did."""
        await self._done.wait()
        if self._failure is not None:
            raise self._failure
        return self._texts

    def _run(self) -> None:
        try:
            self._texts = self._resolve(self._host)
        except Exception as error:  # noqa: BLE001 - the boundary of a thread: raised again where it is waited for
            self._failure = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            anyio.from_thread.run_sync(self._finish, token=self._token)

    def _finish(self) -> None:
        self._release()
        self._done.set()


async def dial(addresses: list[Address], port: int) -> tuple[socket.socket, Address]:
    """Connect to the first of `addresses` that answers; the caller owns the socket and bounds the wait.

    Raises:
        OSError: none did; the last one's reason.
    """
    winner: tuple[socket.socket, Address] | None = None
    failure = OSError(errno.EHOSTUNREACH, "no address")

    async def attempt(address: Address, failed: anyio.Event) -> None:
        nonlocal winner, failure
        try:
            made = await _connect(address, port)
        except OSError as error:
            failure = error
            failed.set()
            return
        if winner is not None:
            made.close()
            return
        winner = made, address
        tasks.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as tasks:
            for address in addresses:
                failed = anyio.Event()
                tasks.start_soon(attempt, address, failed)
                with anyio.move_on_after(HEAD_START_SECONDS):
                    await failed.wait()
    except BaseException:
        if winner is not None:
            winner[0].close()
        raise
    if winner is None:
        raise failure
    return winner


def is_own(address: Address) -> str | None:
    """Why an address of this very machine is refused, also a public one: what listens here is not the internet.

    Asks the routing table; a datagram socket that is connected sends nothing (ip(7)). What cannot be judged is refused.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))
            own = address_of(str(probe.getsockname()[0]))
    except OSError as error:
        # No way there at all is what connecting will say better.
        return None if error.errno in _NO_WAY else f"it cannot be judged: {error.strerror}"
    return "it is this machine's own" if own == address else None


async def _connect(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004
    with ExitStack() as undo:
        made = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
        made.setblocking(False)
        bound_buffers(made, incoming=INCOMING_KERNEL_BYTES)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = made.connect_ex((str(address), port))
        if number == errno.EINPROGRESS:
            await anyio.wait_writable(made)
            number = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
        undo.pop_all()
    return made


def _taking_turns(addresses: list[Address]) -> list[Address]:
    first = [address for address in addresses if address.version == addresses[0].version]
    second = [address for address in addresses if address.version != addresses[0].version]
    return [address for pair in zip_longest(first, second) for address in pair if address is not None]
