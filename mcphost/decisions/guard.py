"""Which `Host` and `Origin` a request may carry: the wall against DNS rebinding.

A web page that rebinds its own name to our address reaches us with that name in `Host` and `Origin`
(2026-07-28, basic/transports/streamable-http, "Security & Endpoint"). An address in place of a name cannot be
rebound, so any address is accepted in `Host`; names have to be known.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from mcphost.errors import BadHttp

_ANY_PORT: Final = "*"

# A host and perhaps a port, and nothing else: no user, no path, no blank (RFC 9110, section 7.2; RFC 6454,
# section 6.1). Two programs could read more than that in two ways.
_HOST: Final = r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::[0-9]{0,5})?"
_HOST_HEADER: Final = re.compile(_HOST)
_ORIGIN_HEADER: Final = re.compile(rf"[a-z][a-z0-9+.-]*://{_HOST}")


class Guard:
    """Judges requests by where they say they were sent, and from where."""

    def __init__(self, *, hosts: Iterable[str], origins: Iterable[str]) -> None:
        """`hosts` are names, with `:port` where the port matters; `origins` as browsers send them."""
        self._hosts = frozenset(host.lower().removesuffix(f":{_ANY_PORT}") for host in hosts)
        self._origins = frozenset(origin.lower() for origin in origins)

    def __repr__(self) -> str:
        return f"<Guard {len(self._hosts)} hosts, {len(self._origins)} origins>"

    def lists(self, origin: str) -> bool:
        """Whether an origin is among those that were named; pages of this machine need not be."""
        return origin.lower() in self._origins

    def check(self, host: str | None, origin: str | None) -> None:
        """Pass, or refuse.

        Raises:
            BadHttp: 400 without a usable Host, 403 for one or for an Origin that is not allowed.
        """
        host = (host or "").lower()
        name = _hostname(_HOST_HEADER, host)
        if name is None:
            raise BadHttp(400, "a Host header is required")
        if not (_is_local(name) or _is_address(name) or name in self._hosts or host in self._hosts):
            raise BadHttp(403, "this Host is not served here; add it to runtime.allowedHosts")
        if origin is None or origin.lower() in self._origins:
            return
        # A page served from this machine calling this machine is no rebinding.
        source = _hostname(_ORIGIN_HEADER, origin.lower())
        if source is None or not (_is_local(name) and _is_local(source)):
            raise BadHttp(403, "this Origin may not call; add it to runtime.allowedOrigins")


def _hostname(pattern: re.Pattern[str], value: str) -> str | None:
    found = pattern.fullmatch(value)
    return None if found is None else found["v6"] or found["name"]


def _is_local(name: str) -> bool:
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
