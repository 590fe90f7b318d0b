"""The packets between the fork server and a worker's init, over the gate, a socket only those two hold.

JSON, init's side first: `{"failed": [step, errno, detail]}`, `{"poised": [Landlock ABI, what it refused]}` (sent by the
worker, whose pid the kernel attaches), `{"running": true}`, `{"ended": [code, signal]}`; from the fork server the order,
`{"go": true}`, `{"signal": n}`.
"""

import json
import os
import socket
from dataclasses import dataclass
from typing import cast

from sandbox.rootfs import Source
from sandbox.spec import SandboxSpec

MAX_PACKET_BYTES = 256 * 1024
_MAX_DESCRIPTORS = 80
_STREAMS = 3


@dataclass(frozen=True, slots=True)
class Order:
    """What init is told: the specification, the steps, and the descriptors that come along.

    `uid` is the worker's user on this machine; `site` the directory over which its root is put together; `root` the
    template's tree, -1 without one.
    """

    spec: SandboxSpec
    layers: frozenset[str]
    confine: tuple[str, ...]
    finish: tuple[str, ...]
    uid: int
    site: str
    streams: tuple[int, ...]
    root: int
    sources: tuple[Source, ...]

    def descriptors(self) -> list[int]:
        """Every descriptor of the order, in the order in which they travel."""
        root = [self.root] if self.root >= 0 else []
        return [*self.streams, *root, *(source.fd for source in self.sources)]


def send(gate: socket.socket, order: Order) -> None:
    """Hand the order over; the sender's own descriptors stay its own. Raises `OSError`."""
    message = {
        "spec": order.spec.to_wire(),
        "layers": sorted(order.layers),
        "confine": order.confine,
        "finish": order.finish,
        "uid": order.uid,
        "site": order.site,
        "has_root": order.root >= 0,
        "targets": [[source.target, source.is_directory] for source in order.sources],
    }
    socket.send_fds(gate, [json.dumps(message).encode()], order.descriptors())


def receive(gate: socket.socket) -> Order | None:
    """Wait for the order; None when the fork server ends or has no use for this process."""
    packet, descriptors, _, _ = socket.recv_fds(gate, MAX_PACKET_BYTES, _MAX_DESCRIPTORS)
    if not packet:
        return None
    for fd in descriptors:
        os.set_inheritable(fd, False)
    value = json.loads(packet)
    targets = cast("list[tuple[str, bool]]", value["targets"])
    rest = descriptors[_STREAMS:]
    root = rest.pop(0) if value["has_root"] else -1
    return Order(
        spec=SandboxSpec.from_wire(value["spec"]),
        layers=frozenset(value["layers"]),
        confine=tuple(value["confine"]),
        finish=tuple(value["finish"]),
        uid=value["uid"],
        site=value["site"],
        streams=tuple(descriptors[:_STREAMS]),
        root=root,
        sources=tuple(
            Source(fd, target, is_directory=is_directory)
            for fd, (target, is_directory) in zip(rest, targets, strict=True)
        ),
    )
