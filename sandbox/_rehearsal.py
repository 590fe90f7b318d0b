"""What a start does, done once ahead on made-up values and without any effect.

After a fork both sides share their pages, and the first write to each is a fault and a copy; CPython writes to whatever
it only looks at. A few hundred of these were a third of a start. So a spare reads an order before there is one, and the
fork server goes through a request after it has made a spare, while nobody waits for either.
"""

from contextlib import suppress
from functools import cache

from sandbox import _order, _readback, privileges, rlimits
from sandbox.cgroups.groups import Group
from sandbox.features import Features
from sandbox.messages import Spawn, Spawned, decode_request, encode_event, encode_request
from sandbox.spec import Limits, Mount, SandboxSpec
from sandbox.steps import Plan, decide


@cache
def _spec() -> SandboxSpec:
    mounts = (Mount(source="/usr", target="/usr"),)
    limits = Limits(memory_bytes=1 << 30, pids=64, cpu_millis=1000)
    return SandboxSpec(name="rehearsal", argv=("x",), env=(("A", "b"),), mounts=mounts, limits=limits)


@cache
def _request() -> bytes:
    return encode_request(Spawn(0, _spec()))


@cache
def _packet() -> bytes:
    return _order.packet(_made_up(Plan(frozenset(), (), ("a",), ("a",), ("a",), ("a",))))


def _made_up(plan: Plan) -> _order.Order:
    return _order.Order(_spec(), plan.layers, plan.confine, plan.withdraw, plan.finish, 0, (), -1, ())


def prepare() -> None:
    """In the fork server, before its first fork: find out what every init would find out again."""
    _request()
    _packet()
    privileges.known_capabilities()


def as_spare() -> None:
    """In an init, and in a worker to be, before they wait."""
    rlimits.wanted(_order.Received(_packet(), (), 0).read().spec.limits, grouped=True)


def as_fork_server(spare: int, group: Group, features: Features) -> None:
    """In the fork server, after it has made the init `spare`, whose state is read and forgotten."""
    request = decode_request(_request())
    if not isinstance(request, Spawn):
        raise TypeError(request)
    plan = decide(request.spec, features)
    _order.packet(_made_up(plan))
    with suppress(OSError):
        found = _readback.statuses(spare, request.spec, plan, group, _readback.Evidence(0, None))
        encode_event(Spawned(0, 0, spare, found))
