"""The packets between the fork server and a worker's init, over the gate, a socket only those two hold.

JSON, init's side first: `{"failed": [step, errno, detail]}`, `{"poised": [Landlock ABI, what it refused]}` (sent by the
worker, whose pid the kernel attaches), `{"confined": true}` (by init), `{"listening": true}` with one descriptor (by
init, before the worker goes on), `{"running": true, "uncounted": why}`, `{"denied": {call: count}}` (since the last one),
`{"ended": [code, signal]}`; from the fork server `{"mapped": true}` once the user exists, the order, `{"go": true}`,
`{"signal": n}`, `{"end": true}`.

With a zygote: its init also says `{"stopped": true}` and `{"reaped": [pid, code, signal]}` and is told `{"stop": true}`
and `{"continue": true}`; the init of a worker says `{"assembled": true}`, is told `{"hide": true}`, says
`{"hidden": true}`, is told a second order, and says `{"sealed": true}` (see `_zygote_init`).
"""

import array
import json
import socket
from dataclasses import dataclass
from typing import cast

from sandbox.rootfs import Source
from sandbox.spec import SandboxSpec

MAX_PACKET_BYTES = 256 * 1024
_MAX_DESCRIPTORS = 80
STREAMS = 3


@dataclass(frozen=True, slots=True)
class Order:
    """What init is told: the specification, the steps, and the descriptors that come along.

    `uid` is the worker's user on this machine; `root` the template's tree, -1 without one.
    """

    spec: SandboxSpec
    layers: frozenset[str]
    confine: tuple[str, ...]
    withdraw: tuple[str, ...]
    finish: tuple[str, ...]
    uid: int
    streams: tuple[int, ...]
    root: int
    sources: tuple[Source, ...]

    def descriptors(self) -> list[int]:
        """Every descriptor of the order, in the order in which they travel."""
        root = [self.root] if self.root >= 0 else []
        return [*self.streams, *root, *(source.fd for source in self.sources)]


def send(gate: socket.socket, order: Order) -> None:
    """Hand the order over; the sender's own descriptors stay its own. Raises `OSError`."""
    socket.send_fds(gate, [packet(order)], order.descriptors())


def packet(order: Order) -> bytes:
    """The order as it travels, but for its descriptors."""
    message = {
        "spec": order.spec.to_wire(),
        "layers": sorted(order.layers),
        "confine": order.confine,
        "withdraw": order.withdraw,
        "finish": order.finish,
        "uid": order.uid,
        "has_root": order.root >= 0,
        "targets": [[source.target, source.is_directory] for source in order.sources],
    }
    return json.dumps(message).encode()


def say_listening(gate: socket.socket, listener: int) -> None:
    """Hand the worker's way out to the fork server; the sender's own descriptor stays its own. Raises `OSError`."""
    socket.send_fds(gate, [json.dumps({"listening": True}).encode()], [listener])


@dataclass(frozen=True, slots=True)
class Received:
    """An order as it came: its packet and its descriptors, all of them close-on-exec. `streams` are the worker's."""

    packet: bytes
    descriptors: tuple[int, ...]
    streams: int

    def pass_on(self, to: socket.socket) -> None:
        """Let the worker have the order, and the standard streams."""
        socket.send_fds(to, [self.packet], self.descriptors[: self.streams])

    def read(self) -> Order:
        """The order for init, with everything."""
        return _read(self.packet, self.descriptors, self.streams)

    def read_as_worker(self) -> Order:
        """The order for the worker, who has only the streams."""
        return _read(self.packet, self.descriptors[: self.streams], self.streams)


def receive(channel: socket.socket, streams: int = STREAMS) -> Received | None:
    """Wait for the order; None when the other side ends or has no use for this process.

    `streams` of the descriptors are the worker's own: the standard streams, and a zygote's channel after them.
    """
    # socket.recv_fds has no way to say that they are to be closed on exec.
    descriptors = array.array("i")
    space = socket.CMSG_LEN(_MAX_DESCRIPTORS * descriptors.itemsize)
    packet, ancillary, _, _ = channel.recvmsg(MAX_PACKET_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    for _, kind, data in ancillary:
        if kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data)
    return Received(packet, tuple(descriptors), streams) if packet else None


def _read(packet: bytes, descriptors: tuple[int, ...], streams: int) -> Order:
    value = json.loads(packet)
    targets = cast("list[tuple[str, bool]]", value["targets"])
    rest = list(descriptors[streams:])
    root = rest.pop(0) if value["has_root"] and rest else -1
    return Order(
        spec=SandboxSpec.from_wire(value["spec"]),
        layers=frozenset(value["layers"]),
        confine=tuple(value["confine"]),
        withdraw=tuple(value["withdraw"]),
        finish=tuple(value["finish"]),
        uid=value["uid"],
        streams=descriptors[:streams],
        root=root,
        sources=tuple(
            Source(fd, target, is_directory=is_directory)
            for fd, (target, is_directory) in zip(rest, targets, strict=False)
        ),
    )
