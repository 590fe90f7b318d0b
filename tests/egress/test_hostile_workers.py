"""A worker with a way out tries every other way, each again with the layer that stopped it left out."""

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from egress.conftest import counted, proxied
from egress.site import DNS, HTTPS
from harness import until
from mcphost.workers.egress import Bounds
from sandbox import Limits, Mount, SandboxSpec, SandboxUnsupported, Spawner, run

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]

PYTHON = os.path.realpath(f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}")
MOUNTS = tuple(
    Mount(source=path, target=path) for path in dict.fromkeys(["/usr", os.path.realpath(sys.base_prefix)])
)
TRY = """
import errno, socket, sys
from socket import *
address, address6, loopback, abstract = sys.argv[2:]
def tcp(host, port, family=AF_INET):
    s = socket.socket(family, SOCK_STREAM); s.settimeout(5); s.connect((host, port))
def udp(host, port, family=AF_INET):
    socket.socket(family, SOCK_DGRAM).sendto(b"x", (host, port))
def unix(name):
    socket.socket(AF_UNIX, SOCK_STREAM).connect(name)
def take(port, option):
    s = socket.socket(); s.setsockopt(SOL_SOCKET, option, 1); s.bind(("127.0.0.1", port)); s.listen()
import socket
try:
    exec(sys.argv[1])
    print("done")
except gaierror as error:
    print("no address")
except OSError as error:
    print(errno.errorcode.get(error.errno, error))
"""


@pytest.fixture(scope="module")
def spawner() -> Iterator[Spawner]:
    with contextlib.closing(Spawner.start(name="egress-hostile")) as spawner:
        yield spawner


@pytest.fixture
def bait() -> Iterator[tuple[str, str]]:
    """A port and an abstract socket of this machine, as other programs have them."""
    name = f"mcphost-bait-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as port, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0{name}")
        abstract.listen()
        yield str(port.getsockname()[1]), name


@pytest.fixture
def attempt(spawner: Spawner, lab, bait) -> Callable[..., str]:
    def make(code: str, *disable: str, network: str = "proxy") -> str:
        spec = SandboxSpec(
            name="hostile",
            argv=(PYTHON, "-I", "-S", "-c", TRY, code, lab.address, lab.address6, *bait),
            mounts=MOUNTS,
            limits=Limits(memory_bytes=256 << 20, pids=64),
            network=network,  # type: ignore[arg-type]
            disable=frozenset(disable),
        )
        done = run(spec, spawner=spawner)
        assert done.ended.code == 0, (done.ended, done.stderr.decode())
        return done.stdout.decode().strip()

    return make


DIRECT = f"tcp(address, {HTTPS})"
DIRECT6 = f"tcp(address6, {HTTPS}, AF_INET6)"
# Connects by sending (tcp(7), TCP_FASTOPEN), which Landlock does not see: the empty network is what stops it.
EARLY = f"socket.socket(AF_INET, SOCK_STREAM).sendto(b'x', 0x20000000, (address, {HTTPS}))"
ASK = f"udp(address, {DNS})"
ASK6 = f"udp(address6, {DNS}, AF_INET6)"
SECCOMP, LANDLOCK, BOTH = ("seccomp",), ("landlock",), ("seccomp", "landlock")


@pytest.mark.parametrize(
    ("code", "disable", "seen"),
    [
        (DIRECT, (), "EACCES"),
        (DIRECT, LANDLOCK, "ENETUNREACH"),
        ("tcp(address, 3128)", (), "ENETUNREACH"),
        (EARLY, (), "ENETUNREACH"),
        (EARLY, LANDLOCK, "ENETUNREACH"),
        (DIRECT6, (), "EACCES"),
        (DIRECT6, LANDLOCK, "ENETUNREACH"),
        ("tcp('169.254.169.254', 80)", (), "EACCES"),
        ("tcp('169.254.169.254', 80)", LANDLOCK, "ENETUNREACH"),
        (ASK, (), "EAFNOSUPPORT"),
        (ASK, SECCOMP, "ENETUNREACH"),
        (ASK6, (), "EAFNOSUPPORT"),
        (ASK6, SECCOMP, "ENETUNREACH"),
        ("udp('127.0.0.53', 53)", (), "EAFNOSUPPORT"),
        ("getaddrinfo('api.example.test', 443)", (), "no address"),
        ("tcp('127.0.0.1', int(loopback))", (), "EACCES"),
        ("tcp('127.0.0.1', int(loopback))", LANDLOCK, "ECONNREFUSED"),
        ("unix('\\0' + abstract)", (), "ECONNREFUSED"),
        ("unix('\\0' + abstract)", BOTH, "ECONNREFUSED"),
        ("socket.socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP)", (), "EAFNOSUPPORT"),
        ("socket.socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP)", SECCOMP, "EACCES"),
        ("socket.socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)", (), "EAFNOSUPPORT"),
        ("socket.socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)", SECCOMP, "EPERM"),
        ("socket.socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6)", (), "EAFNOSUPPORT"),
        ("socket.socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6)", SECCOMP, "EPERM"),
        ("socket.socket(AF_PACKET, SOCK_RAW)", (), "EAFNOSUPPORT"),
        ("socket.socket(AF_PACKET, SOCK_RAW)", SECCOMP, "EPERM"),
        ("socket.socket(AF_NETLINK, SOCK_RAW)", (), "EAFNOSUPPORT"),
        ("socket.socket(AF_NETLINK, SOCK_RAW)", SECCOMP, "done"),
        ("socket.socket(AF_VSOCK, SOCK_STREAM)", (), "EAFNOSUPPORT"),
        ("socket.socket(AF_INET, SOCK_STREAM, 262)", (), "EAFNOSUPPORT"),
        ("socket.socket(AF_INET, SOCK_STREAM, 132)", (), "EAFNOSUPPORT"),
        ("take(8080, SO_REUSEADDR)", (), "EACCES"),
        ("take(8080, SO_REUSEADDR)", LANDLOCK, "done"),
        ("take(3128, SO_REUSEPORT)", (), "EACCES"),
    ],
)  # fmt: skip
def test_no_other_way_leads_out(attempt, code, disable, seen):
    assert attempt(code, *disable) == seen


@pytest.mark.parametrize(
    "code", [DIRECT, DIRECT6, EARLY, ASK, ASK6, "tcp('127.0.0.1', int(loopback))", "unix('\\0' + abstract)"]
)
def test_every_bait_is_there_to_be_had_without_the_layers(attempt, code):
    """The proof that the tests above can fail."""
    assert attempt(code, "seccomp", "landlock", "netns", network="none") == "done"


def test_without_a_way_out_there_is_no_socket_to_try_it_with(attempt):
    assert attempt("tcp('127.0.0.1', 3128)", network="none") == "EAFNOSUPPORT"
    assert attempt("tcp('127.0.0.1', 3128)", "seccomp", network="none") == "EACCES"
    assert attempt("tcp('127.0.0.1', 3128)", "seccomp", "landlock", network="none") == "ECONNREFUSED"


def test_a_way_out_without_a_network_namespace_is_refused_even_on_purpose(attempt):
    with pytest.raises(SandboxUnsupported) as caught:
        attempt("pass", "netns")
    assert [status.layer for status in caught.value.layers] == ["netns"]


def test_what_is_in_force_says_that_there_is_a_way_out(spawner):
    spec = SandboxSpec(name="says", argv=("/bin/true",), mounts=MOUNTS[:1], network="proxy")
    layers = {status.layer: status for status in run(spec, spawner=spawner).layers}
    assert layers["netns"].state == layers["seccomp"].state == layers["landlock"].state == "enforced"
    assert "port 3128" in layers["netns"].reason
    silent = run(replace(spec, network="none"), spawner=spawner).layers
    assert not any("3128" in status.reason for status in silent)


API = ["api.example.test:443"]


@pytest.mark.parametrize(
    "script",
    [
        "curl -sS --noproxy '*' https://api.example.test/hello",
        "unset HTTPS_PROXY https_proxy ALL_PROXY all_proxy; curl -sS https://api.example.test/hello",
        "curl -sS --proxy http://10.255.255.1:3128 --max-time 5 https://api.example.test/hello",
    ],
)
async def test_a_client_that_does_without_the_proxy_reaches_nothing(run, metrics, script):
    ran = await run("sh", "-c", script, egress=API)
    assert "hello" not in ran.text
    assert ran.code != 0
    assert counted(metrics) == {}


@pytest.mark.parametrize("address", ["169.254.169.254", "127.0.0.1", "10.0.0.1", "::1", "fd00:ec2::254"])
async def test_a_listed_name_does_not_lead_a_client_to_a_private_place(run, names, metrics, address):
    names.answers["api.example.test"] = [[address]]
    ran = await run("curl", "-sS", "https://api.example.test/hello", egress=API)
    assert "403" in ran.text
    assert counted(metrics) == {"address-refused": 1}


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        (["--connect-to", "other.example.test:443:api.example.test:443", "https://other.example.test/hello"], "other-name"),
        (["-H", "Host: other.example.test", "https://api.example.test/hello"], "done"),
        (["https://169.254.169.254/hello"], "not-listed"),
        (["https://api.example.test:9443/hello"], "not-listed"),
    ],
)  # fmt: skip
async def test_what_is_asked_of_the_proxy_counts_and_not_what_is_said_inside(
    run, names, metrics, arguments, outcome
):
    """A Host header inside TLS is the site's business; the name that TLS begins with is ours."""
    await run("curl", "-sS", *arguments, egress=API)
    assert outcome in counted(metrics)


FLOOD = """
import socket, time
held = []
for _ in range(230):
    one = socket.socket(); one.setblocking(False); one.connect_ex(("127.0.0.1", 3128)); held.append(one)
time.sleep(60)
"""


async def test_a_worker_that_opens_connections_by_the_hundred_holds_up_nobody(
    launcher, planned, run, names, metrics
):
    plan = planned("python", "-c", FLOOD, egress=API)
    process = await launcher.start(plan.sandbox.fill("flood", {}, ()))
    most = Bounds().connections
    async with proxied(process.take_listener(), plan.egress, names, metrics) as proxy:
        await until(lambda: proxy.open == most, "the bound is reached")
        ran = await run("curl", "-sS", "https://api.example.test/hello", egress=API)
        assert "hello api.example.test" in ran.text
        assert proxy.open == most
        process.kill()
        await process.wait_ended()
    for fd in (process.stdin, process.stdout, process.stderr):
        os.close(fd)
