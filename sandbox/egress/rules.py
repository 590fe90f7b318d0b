"""What a worker may reach: names and ports that are listed, at addresses that everybody may reach. Pure.

The theory. A worker with `network="proxy"` has a network namespace of its own with nothing in it but its loopback, on
which its init, before anything of the worker runs, opened one listening socket. The descriptor of that socket is
outside, with whoever started the worker; so every connection that arrives on it is that worker's, no name or password
has to say so, and no other worker can get there. Out there a proxy takes `CONNECT host:port` and decides with this
module and its neighbours, in this order:

1. `connect_request` reads the request: bounded, strict, one per connection.
2. `Egress.allows`: host and port are listed. The host is compared in one form only (`normal_host`).
3. The proxy looks the name up itself. What the worker believes about addresses plays no part.
4. `Egress.refuses`: an address that is not a public unicast one is refused after the lookup, so that a name cannot lead
   to loopback, a private network or a metadata service. The address that was judged is the one connected to: nothing is
   looked up a second time, so an answer that changes (DNS rebinding) changes nothing.
5. `tls_hello` reads the first bytes of the tunnel (and `tls_retry` a second hello): they must begin TLS for the very name
   that was asked for, so that
   another site at the same address cannot be had under an allowed name.

What this does not see: what is inside TLS. A site may serve another's content to whoever asks in a Host header behind
an agreed name (domain fronting), so whoever is listed is trusted to keep its sites apart.
"""

import ipaddress
import re
from dataclasses import dataclass

from sandbox.errors import SpecInvalid

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Where a worker finds the proxy, on its own loopback: the port that HTTP proxies commonly have.
EGRESS_HOST, EGRESS_PORT = "127.0.0.1", 3128

# What makes the worker's loopback the only way out; without one of them there would be another, or nobody would know.
EGRESS_LAYERS = frozenset({"netns", "seccomp", "landlock"})

# A list is looked through for every connection, and people have to be able to review it.
MAX_EGRESS_RULES = 256
MAX_EGRESS_NETWORKS = 64
_MAX_PORT = 65535
_MAX_HOST = 253  # RFC 1035, section 2.3.4, without the root's dot
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# Written differently in the two versions of IDNA (RFC 5892, and UTS 46 section 7, "deviation characters").
_DEVIATING = frozenset("\N{LATIN SMALL LETTER SHARP S}\N{GREEK SMALL LETTER FINAL SIGMA}\u200c\u200d")

# Addresses of cloud platforms that answer whoever connects with credentials or the machine's settings, and that no
# registry marks: AWS and GCP over IPv6, Azure's wire server, Alibaba, Oracle. The others are link-local.
METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("fd00:ec2::254", "fd20:ce::254", "168.63.129.16", "100.100.100.200", "192.0.0.192")
)

# This machine, its link, many machines at once, and IPv6 addresses that carry an IPv4 one: never, listed or not.
NEVER = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
        "::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16",
        "fe80::/10", "fec0::/10", "ff00::/8",
    )
)  # fmt: skip

# IANA's special-purpose registries (RFC 6890), read in 2026: what is not reachable from everywhere. `ipaddress` knows
# most of them, but which ones differs between versions of Python.
_NOT_GLOBAL_V4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
        "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    )
)  # fmt: skip
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_NOT_GLOBAL_V6 = tuple(
    ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)


@dataclass(frozen=True, slots=True)
class EgressRule:
    """One entry of a list. With `below` it means the names under `host`, any number of labels, and not `host` itself.

    `host` is in its normal form; an address is one that was written as such.
    """

    host: str
    port: int
    below: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.port <= _MAX_PORT:
            raise SpecInvalid(f"port {self.port} is not 1 to {_MAX_PORT}")

    def matches(self, host: str, port: int) -> bool:
        """Whether this entry covers a host in its normal form."""
        if port != self.port:
            return False
        return host.endswith(f".{self.host}") if self.below else host == self.host

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'*.' if self.below else ''}{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Egress:
    """What one worker may reach: `rules` by name, and `networks`, addresses that are allowed though not public."""

    rules: tuple[EgressRule, ...]
    networks: tuple[Network, ...] = ()

    def __post_init__(self) -> None:
        if len(self.rules) > MAX_EGRESS_RULES or len(self.networks) > MAX_EGRESS_NETWORKS:
            raise SpecInvalid(f"more than {MAX_EGRESS_RULES} rules or {MAX_EGRESS_NETWORKS} networks")

    def allows(self, host: str, port: int) -> bool:
        """Whether a host in its normal form is listed with this port."""
        return any(rule.matches(host, port) for rule in self.rules)

    def refuses(self, address: Address) -> str | None:
        """Why nothing may be connected to at `address`; None if it may."""
        return never(address) or (
            None if any(address in network for network in self.networks) else not_public(address)
        )


def parse_rule(text: str) -> EgressRule:
    """The entry that `host:port`, `*.host:port`, `1.1.1.1:443` or `[2606:4700::1111]:443` means.

    A host of other letters is turned into its `xn--` form. Whether an address may be reached is not judged here.

    Raises:
        SpecInvalid: it means nothing.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not host:
        raise SpecInvalid("is not host:port; a port has to be given, an IPv6 address stands in brackets")
    below = host.startswith("*.")
    name = normal_host(_ascii(host.removeprefix("*.")))
    if below and (address_of(name) is not None or "." not in name):
        raise SpecInvalid("a wildcard needs a name of at least two labels, such as *.example.com:443")
    return EgressRule(name, int(port), below)


def parse_network(text: str) -> Network:
    """A range of addresses that is to be allowed though it is not public.

    Raises:
        SpecInvalid: it is no range, has bits set beyond its prefix, or touches what is never allowed.
    """
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise SpecInvalid("is not a range of addresses such as 10.77.0.0/24 or fd12:3456::/64") from None
    for one in NEVER:
        if one.version == network.version and network.overlaps(one):
            raise SpecInvalid(
                f"touches {one}, which is never allowed (this machine, its link, metadata, multicast)"
            )
    return network


def normal_host(text: str) -> str:
    """The one form in which hosts are compared: lower case, no dot at the end; an address as `ipaddress` writes it.

    Raises:
        SpecInvalid: it is neither a host name (RFC 1123, section 2.1) nor an address.
    """
    if text.startswith("[") and text.endswith("]"):
        address = address_of(text[1:-1])
        if address is None or address.version != 6:  # noqa: PLR2004 - the version of IPv6 is 6
            raise SpecInvalid("has brackets around what is no IPv6 address")
        return str(address)
    name = text.lower().removesuffix(".")
    if address_of(name) is not None:
        if ":" in name or text.endswith("."):
            raise SpecInvalid("is an address in an unusual form")
        return name
    labels = name.split(".")
    if len(name) > _MAX_HOST or not name.isascii() or not all(_LABEL.fullmatch(label) for label in labels):
        raise SpecInvalid("is no host name: letters, digits and inner hyphens, in labels of at most 63")
    # What the C library would read as a number is no name (inet_aton(3): 127.1, 0x7f000001, 017700000001).
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        raise SpecInvalid("ends in a number, as no host name does, and is no address")
    return name


def address_of(host: str) -> Address | None:
    """The address that a host is, without a zone; None for a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return None if getattr(address, "scope_id", None) else address


def never(address: Address) -> str | None:
    """Why this address is refused whatever is listed; None if it need not be."""
    if address in METADATA:
        return "it is a metadata service"
    if getattr(address, "scope_id", None):
        return "it belongs to one link"
    for network in NEVER:
        if address in network:
            return f"it is in {network}"
    return None


def not_public(address: Address) -> str | None:
    """Why this address is no public unicast one; None if it is."""
    special: tuple[Network, ...] = _NOT_GLOBAL_V4
    if isinstance(address, ipaddress.IPv6Address):
        if address not in _GLOBAL_V6:
            return f"it is not in {_GLOBAL_V6}"
        special = _NOT_GLOBAL_V6
    for network in special:
        if address in network:
            return f"it is in {network}, which is not public"
    return None if address.is_global and not address.is_multicast else "it is not public"


def _ascii(host: str) -> str:
    if host.isascii():
        return host
    if _DEVIATING & set(host):
        raise SpecInvalid("has a letter that the two versions of IDNA write differently; give its xn-- form")
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        raise SpecInvalid("is no host name in any alphabet") from None
