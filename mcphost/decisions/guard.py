"""Which `Host` and `Origin` a request may carry: the wall against DNS rebinding.

A web page that rebinds its own name to our address reaches us with that name in `Host` and `Origin`
(2026-07-28, basic/transports/streamable-http, "Security & Endpoint"). An address in place of a name cannot be
rebound, so any address is accepted in `Host`; names have to be known.
"""

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from mcphost.errors import BadHttp

_ANY_PORT = "*"


class Guard:
    """Judges requests by where they say they were sent, and from where."""

    def __init__(self, *, hosts: Iterable[str], origins: Iterable[str]) -> None:
        """`hosts` are names, with `:port` where the port matters; `origins` as browsers send them."""
        self._hosts = frozenset(host.lower().removesuffix(f":{_ANY_PORT}") for host in hosts)
        self._origins = frozenset(origin.lower() for origin in origins)

    def __repr__(self) -> str:
        return f"<Guard {len(self._hosts)} hosts, {len(self._origins)} origins>"

    def check(self, host: str | None, origin: str | None) -> None:
        """Pass, or refuse.

        Raises:
            BadHttp: 400 without a usable Host, 403 for one or for an Origin that is not allowed.
        """
        name = _hostname(f"//{host}")
        if not host or name is None:
            raise BadHttp(400, "a Host header is required")
        local = name == "localhost" or _is_loopback(name)
        if not (local or _is_address(name) or name in self._hosts or host.lower() in self._hosts):
            raise BadHttp(403, "this Host is not served here; add it to runtime.allowedHosts")
        if origin is None or origin.lower() in self._origins:
            return
        # A page served from this machine calling this machine is no rebinding.
        source = _hostname(origin)
        if not (local and source is not None and (source == "localhost" or _is_loopback(source))):
            raise BadHttp(403, "this Origin may not call; add it to runtime.allowedOrigins")


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return _is_address(name) and ipaddress.ip_address(name).is_loopback
