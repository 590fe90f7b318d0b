"""What the runtime and the fork server say to each other: one JSON object per packet, both directions, no I/O here.

Every packet is bounded by `MAX_PACKET_BYTES`. Decoding answers any bytes with a message or with `MalformedMessage`.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Final, Literal, cast

from sandbox.errors import SandboxSetupFailed, SandboxUnsupported, SpecInvalid
from sandbox.layers import LayerStatus
from sandbox.spec import SandboxSpec

# Below the kernel's default for one packet (net.core.wmem_default, 212,992 bytes, bookkeeping included).
MAX_PACKET_BYTES = 128 * 1024
PROTOCOL_VERSION = 1
# No descriptor has this number.
NOT_ARRIVED = -1

# What whoever asks for a kill means by it; it comes back as the reason of the exit.
KillReason = Literal["killed", "timeout", "protocol"]
Reason = Literal["exited", "signalled", "oom"] | KillReason

_KILL_REASONS: Final[dict[object, KillReason]] = {
    "killed": "killed",
    "timeout": "timeout",
    "protocol": "protocol",
}


class MalformedMessage(Exception):
    """These bytes are no message of this protocol."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a worker; three descriptors for its standard streams travel with the packet."""

    request: int
    spec: SandboxSpec


@dataclass(frozen=True, slots=True)
class Prepare:
    """Have the zygote of such workers ready before the first of them is asked for. Nothing is answered."""

    spec: SandboxSpec


@dataclass(frozen=True, slots=True)
class Signal:
    """Send `signum` to the worker's first process."""

    worker: int
    signum: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End the worker and everything it started, for `reason`. The first one counts."""

    worker: int
    reason: KillReason = "killed"


@dataclass(frozen=True, slots=True)
class Spawned:
    """The worker's program runs. `pid` is its init's, as this machine counts; `layers` was read from the kernel.

    `listener` is the descriptor of the socket on the worker's loopback, where it was to have one: non-blocking, and
    owned by whoever received this. It travels beside the packet; what was decoded alone has `NOT_ARRIVED` there.
    `uncounted` says why denied calls are not counted, and is empty where they are.
    """

    request: int
    worker: int
    pid: int
    layers: tuple[LayerStatus, ...]
    listener: int | None = None
    uncounted: str = ""


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The worker did not start, and nothing of it is left."""

    request: int
    error: SandboxSetupFailed | SandboxUnsupported


@dataclass(frozen=True, slots=True)
class Denied:
    """System calls refused to the worker since the last such event, by name. At most one a second for each worker."""

    worker: int
    calls: dict[str, int]


@dataclass(frozen=True, slots=True)
class Exited:
    """The worker and everything it started are gone. Counters are None where no cgroup kept them.

    `reason` is `exited` with a `code`; `signalled` by a `signal` that nobody here sent; `oom` where the kernel ended it
    for want of memory; else what the one who asked for the kill said. `pids_denied` is how many forks were refused by its
    cap; `throttled_seconds` how long it was kept from the cpu by its cap, in `throttled_periods` periods of 0.1 s.
    `denied_calls` is the sum of all `Denied`; what was refused in the last second before a kill may be missing.
    """

    worker: int
    reason: Reason
    code: int | None
    signal: int | None
    peak_memory_bytes: int | None
    cpu_seconds: float | None
    oom_kills: int
    pids_denied: int | None
    throttled_periods: int | None = field(default=None, kw_only=True)
    throttled_seconds: float | None = field(default=None, kw_only=True)
    denied_calls: dict[str, int] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True, slots=True)
class Hello:
    """The fork server is ready; `features` is what it found it can apply."""

    version: int
    features: tuple[LayerStatus, ...]
    without_proc: str = ""


Request = Spawn | Prepare | Signal | Kill
Event = Spawned | SpawnFailed | Denied | Exited


def encode_request(request: Request) -> bytes:
    """The packet for `request`."""
    match request:
        case Spawn(number, spec):
            return _pack({"spawn": {"request": number, "spec": spec.to_wire()}})
        case Prepare(spec):
            return _pack({"prepare": {"spec": spec.to_wire()}})
        case Signal(worker, signum):
            return _pack({"signal": {"worker": worker, "signum": signum}})
        case Kill(worker, reason):
            return _pack({"kill": {"worker": worker, "reason": reason}})


def decode_request(packet: bytes) -> Request:
    """The request in `packet`.

    Raises:
        MalformedMessage: it is none.
        SpecInvalid: it is a spawn whose specification is refused; its `request` attribute carries the number.
    """
    kind, body = _unpack(packet)
    match kind, body:
        case "spawn", {"request": int(number), "spec": spec, **rest} if not rest:
            try:
                return Spawn(number, SandboxSpec.from_wire(spec))
            except SpecInvalid as error:
                raise SpecRefused(number, error) from None
        case "prepare", {"spec": spec, **rest} if not rest:
            try:
                return Prepare(SandboxSpec.from_wire(spec))
            except SpecInvalid as error:
                raise MalformedMessage(error.message) from None
        case "signal", {"worker": int(worker), "signum": int(signum), **rest} if not rest:
            return Signal(worker, signum)
        case "kill", {"worker": int(worker), "reason": str(reason), **rest} if not rest:
            if reason in _KILL_REASONS:
                return Kill(worker, _KILL_REASONS[reason])
    raise MalformedMessage(f"no request of this form: {kind[:32]!r}")


class SpecRefused(Exception):
    """A spawn request whose specification is invalid; it is answered, not dropped."""

    def __init__(self, request: int, error: SpecInvalid) -> None:
        super().__init__(error.message)
        self.request = request
        self.error = error


def encode_hello(hello: Hello) -> bytes:
    """The fork server's first packet."""
    return _pack({"hello": asdict(hello)})


def decode_hello(packet: bytes) -> Hello:
    """The greeting in `packet`, or `MalformedMessage`."""
    match _unpack(packet):
        case "hello", {"version": int(version), "features": list(features), "without_proc": str(why)}:
            return Hello(version, _layers(features), why)
    raise MalformedMessage("not a greeting")


def encode_event(event: Event) -> bytes:
    """The packet for `event`."""
    return _pack(_event_body(event))


def _event_body(event: Event) -> dict[str, object]:
    match event:
        case Spawned(request, worker, pid, layers, listener, uncounted):
            body = {
                "request": request,
                "worker": worker,
                "pid": pid,
                "layers": [asdict(item) for item in layers],
                "listens": listener is not None,
                "uncounted": uncounted,
            }
            return {"spawned": body}
        case SpawnFailed(request, SandboxUnsupported() as error):
            return {"unsupported": {"request": request, "layers": [asdict(item) for item in error.layers]}}
        case SpawnFailed(request, SandboxSetupFailed() as error):
            body = {
                "request": request,
                "step": error.step,
                "errno": error.errno,
                "detail": error.detail[:1000],
            }
            return {"failed": body}
        case Denied():
            return {"denied": asdict(event)}
        case SpawnFailed() | Exited():
            return {"exited": asdict(event)}


def decode_event(packet: bytes) -> Event:
    """The event in `packet`, or `MalformedMessage`."""
    match _unpack(packet):
        case "spawned", {
            "request": int(request),
            "worker": int(worker),
            "pid": int(pid),
            "layers": list(layers),
            "listens": bool(listens),
            "uncounted": str(uncounted),
        }:
            listener = NOT_ARRIVED if listens else None
            return Spawned(request, worker, pid, _layers(layers), listener, uncounted)
        case "unsupported", {"request": int(request), "layers": list(layers)}:
            return SpawnFailed(request, SandboxUnsupported(_layers(layers)))
        case "failed", {
            "request": int(request),
            "step": str(step),
            "errno": int(errno),
            "detail": str(detail),
        }:
            return SpawnFailed(request, SandboxSetupFailed(step, errno, detail))
        case "denied", {"worker": int(worker), "calls": dict(calls)}:
            return Denied(worker, calls)
        case "exited", body:
            try:
                return Exited(**body)  # type: ignore[arg-type]  # our own process's message
            except TypeError:
                raise MalformedMessage("an exit with other fields") from None
    raise MalformedMessage("no event of this form")


def _layers(items: list[object]) -> tuple[LayerStatus, ...]:
    try:
        return tuple(LayerStatus(**cast("dict[str, str]", item)) for item in items)  # type: ignore[arg-type]  # ours
    except TypeError:
        raise MalformedMessage("a layer with other fields") from None


def _pack(value: dict[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("utf-8", "surrogateescape")


def _unpack(packet: bytes) -> tuple[str, dict[str, object]]:
    try:
        value = json.loads(packet)
    except (ValueError, RecursionError):
        raise MalformedMessage("not JSON") from None
    if not isinstance(value, dict) or len(value) != 1:
        raise MalformedMessage("not one named object")
    ((kind, body),) = value.items()
    if not isinstance(body, dict):
        raise MalformedMessage("no body")
    return kind, body
