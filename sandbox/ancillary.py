"""Descriptors that arrive over a socket (unix(7), SCM_RIGHTS), close-on-exec from their first moment.

`socket.recv_fds` takes flags and does not pass them on (Python up to 3.14), so it cannot say MSG_CMSG_CLOEXEC.
"""

import array
import socket


def receive(channel: socket.socket, most_bytes: int, most_descriptors: int) -> tuple[bytes, list[int]]:
    """One packet and the descriptors that came with it, all of them the caller's. Raises `OSError`."""
    found = array.array("i")
    space = socket.CMSG_SPACE(most_descriptors * found.itemsize)
    packet, ancillary, _, _ = channel.recvmsg(most_bytes, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return packet, list(found)
