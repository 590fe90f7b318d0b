"""Where the runtime listens, and under which names it may be asked for."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

from mcphost.policy.faults import Fault

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
                        r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*")  # fmt: skip
_ADDRESS_ALLOWED = "host:port, an IPv6 host in brackets"
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP endpoint; port 0 asks the kernel for a free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """The endpoint that `127.0.0.1:8080`, `[::1]:8080` or `localhost:8080` names."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise Fault("is not an address to listen on", allowed=_ADDRESS_ALLOWED)
    host = found["v6"] or found["host"]
    if not _is_host(host, v6=found["v6"] is not None):
        raise Fault("the host is neither an IP address nor a host name", allowed=_ADDRESS_ALLOWED)
    port = int(found["port"])
    if port > _MAX_PORT:
        raise Fault("the port is too large", allowed=f"0 to {_MAX_PORT}")
    return Address(host, port)


def check_url(text: str) -> str:
    """An http or https URL that paths can be appended to, without a slash at its end."""
    try:
        url = urlsplit(text)
        usable = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        usable = False
    else:
        usable = usable and not (url.query or url.fragment or "@" in url.netloc) and text.isprintable()
    if not usable or " " in text:
        raise Fault("is not a URL that clients can use", allowed="http(s)://host[:port][/path]")
    return text.rstrip("/")


def check_host(text: str) -> str:
    """A value of the Host header: a name or address, with a port, without, or with any (`:*`)."""
    bare = text.removesuffix(":*")
    with_port = bare if _ADDRESS.fullmatch(bare) else f"{bare}:0"
    try:
        parse_address(with_port)
    except Fault:
        raise Fault("is not a host", allowed="host, host:port or host:*") from None
    return text.lower()


def check_origin(text: str) -> str:
    """A value of the Origin header (RFC 6454, section 6.1): scheme, host and port, nothing behind."""
    found = re.fullmatch(r"([a-z][a-z0-9+.-]*)://([^/?#@\s]+)", text)
    if found is None:
        raise Fault("is not an origin", allowed="scheme://host[:port], in lower case, without a path")
    return text


def _is_host(host: str, *, v6: bool) -> bool:
    try:
        return (ipaddress.ip_address(host).version == 6) == v6  # noqa: PLR2004 - the version of IPv6 is 6
    except ValueError:
        return not v6 and _HOST_NAME.fullmatch(host) is not None and not host.replace(".", "").isdigit()


def _read_address(value: object) -> object:
    return parse_address(value) if isinstance(value, str) else value


ListenAddress = Annotated[
    Address,
    BeforeValidator(_read_address),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": f"^{re.sub('[?]P<[a-z0-9]+>', '?:', _ADDRESS.pattern)}$"}),
]
PublicUrl = Annotated[
    str, AfterValidator(check_url), WithJsonSchema({"type": "string", "pattern": "^https?://[^?#@\\s]+$"})
]
HostPattern = Annotated[str, AfterValidator(check_host)]
Origin = Annotated[str, AfterValidator(check_origin)]
