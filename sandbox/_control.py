"""The fork server's end of the socket to the runtime: bounded packets in, a queue of events out, never blocking."""

import errno
import os
import select
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from sandbox.messages import MAX_PACKET_BYTES, Event, Spawned, encode_event

# A request carries three; more are accepted only to be closed.
_MAX_DESCRIPTORS = 16


# The machine is short of something (send(2), unix(7)); the runtime is not gone for that. It is asked again with the next
# turn, which comes at once, so that only a moment is waited out this way.
_TRANSIENT = frozenset({errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS})
_MAX_REFUSED = 1000


class Control:
    """The socket and what waits to be sent on it. `closed` once the runtime has closed its side or died.

    The queue holds at most three events per start, and starts are bounded by the number of workers; what there can be
    more of is said only when nothing is `waiting`.
    """

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._waiting: deque[tuple[bytes, list[int]]] = deque()
        self._refused = 0
        self.closed = False

    def fileno(self) -> int:
        return self._channel.fileno()

    @property
    def waiting(self) -> bool:
        """Whether the runtime is behind."""
        return bool(self._waiting)

    @property
    def interest(self) -> int:
        """What to poll for."""
        return select.POLLIN | (select.POLLOUT if self._waiting else 0)

    @contextmanager
    def receive(self) -> Iterator[tuple[bytes, list[int]]]:
        """The next packet and its descriptors, which are closed afterwards; an empty packet when there is none.

        A packet that was cut off comes out as an empty one; one whose descriptors were, without any, so that it is
        answered as lacking them.
        """
        descriptors: list[int] = []
        try:
            packet, descriptors, flags, _ = socket.recv_fds(self._channel, MAX_PACKET_BYTES, _MAX_DESCRIPTORS)
            self.closed = not packet and not descriptors
            cut_off = bool(flags & socket.MSG_TRUNC)
            lost_some = bool(flags & socket.MSG_CTRUNC)
        except BlockingIOError:
            packet, cut_off, lost_some = b"", False, False
        except OSError:
            packet, cut_off, lost_some = b"", False, False
            self.closed = True
        try:
            yield (b"" if cut_off else packet), ([] if lost_some else descriptors)
        finally:
            _close(descriptors)

    def say(self, event: Event) -> None:
        """Send `event`, now or when the socket has room; a descriptor in it is ours to close from here on."""
        listener = event.listener if isinstance(event, Spawned) else None
        self._waiting.append((encode_event(event), [] if listener is None else [listener]))
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        while self._waiting and not self.closed:
            packet, descriptors = self._waiting[0]
            try:
                socket.send_fds(self._channel, [packet], descriptors)
            except BlockingIOError:
                return
            except OSError as error:
                self._refused += 1
                if error.errno in _TRANSIENT and self._refused < _MAX_REFUSED:
                    return
                self.closed = True
                break
            self._refused = 0
            self._waiting.popleft()
            _close(descriptors)
        if self.closed:
            # Nobody is left to take them, and a worker's socket must not outlive the worker.
            while self._waiting:
                _close(self._waiting.popleft()[1])


def _close(descriptors: list[int]) -> None:
    for fd in descriptors:
        os.close(fd)
