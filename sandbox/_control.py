"""The fork server's end of the socket to the runtime: bounded packets in, a queue of events out, never blocking."""

import os
import select
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from sandbox.messages import MAX_PACKET_BYTES, Event, encode_event

# A request carries three; more are accepted only to be closed.
_MAX_DESCRIPTORS = 16


class Control:
    """The socket and what waits to be sent on it. `closed` once the runtime has closed its side or died.

    The queue holds at most two events per start, and starts are bounded by the number of workers.
    """

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._waiting: deque[bytes] = deque()
        self.closed = False

    def fileno(self) -> int:
        return self._channel.fileno()

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
            for fd in descriptors:
                os.close(fd)

    def say(self, event: Event) -> None:
        """Send `event`, now or when the socket has room."""
        self._waiting.append(encode_event(event))
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        while self._waiting and not self.closed:
            try:
                self._channel.send(self._waiting[0])
            except BlockingIOError:
                return
            except OSError:
                self.closed = True
                return
            self._waiting.popleft()
