"""Denied calls, counted by a worker's init: the kernel asks it about each one, and it answers as the profile says.

The worker's filter leaves refusals to a listener (seccomp_unotify(2)) that init holds. init never lets a call through
and never reads the caller's memory, so nothing here can be raced. It runs in the worker's own group: who floods it
with denied calls spends its own CPU time. One notification is answered per turn of init's loop, so that signals and
ends are never behind a queue of them.
"""

import errno
import fcntl
import os
import struct
import time

from sandbox import syscalls

# How often counts are reported: often enough for a log, too seldom to be a load.
REPORT_SECONDS = 1.0

# include/uapi/linux/seccomp.h: SECCOMP_IOWR(0, struct seccomp_notif), SECCOMP_IOWR(1, struct seccomp_notif_resp), the
# same numbers on both machines (include/uapi/asm-generic/ioctl.h)
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
# struct seccomp_notif begins with id, pid, flags and the call's number; struct seccomp_notif_resp is id, val, error,
# flags. What a newer kernel has behind these stays zero.
_NOTIFICATION, _RESPONSE = struct.Struct("=QIIi"), struct.Struct("=QqiI")
_NOTIFICATION_BYTES, _RESPONSE_BYTES = 80, 24


class Denials:
    """The counts of one worker. Their table is bounded by the number of calls that have a name."""

    def __init__(self, listener: int, refusals: dict[int, tuple[str, int]]) -> None:
        sizes = syscalls.seccomp_notification_sizes()
        self._bytes = tuple(
            max(pair) for pair in zip(sizes, (_NOTIFICATION_BYTES, _RESPONSE_BYTES), strict=True)
        )
        self._listener = listener
        self._refusals = refusals
        self._unsaid: dict[str, int] = {}
        self._said_at = -REPORT_SECONDS

    def fileno(self) -> int:
        """To be polled; readable when a caller waits, hung up when nobody is left who could."""
        return self._listener

    def close(self) -> None:
        """Stop listening. The kernel then answers a denied call as one that it does not have."""
        os.close(self._listener)

    def take(self) -> None:
        """Answer one waiting caller and count its call. To be called when readable; does not wait then."""
        notification = bytearray(self._bytes[0])
        try:
            fcntl.ioctl(self._listener, _RECEIVE, notification)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.EINTR}:
                return  # the caller was killed, or a signal for us came first
            raise
        identity, _, _, number = _NOTIFICATION.unpack_from(notification)
        name, refusal = self._refusals.get(number, ("", errno.EPERM))
        response = bytearray(self._bytes[1])
        _RESPONSE.pack_into(response, 0, identity, 0, -refusal, 0)
        try:
            fcntl.ioctl(self._listener, _SEND, response)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
        if name:
            self._unsaid[name] = self._unsaid.get(name, 0) + 1

    def wait_milliseconds(self) -> float | None:
        """Until there is something to report; None while there is nothing."""
        if not self._unsaid:
            return None
        return max(0.0, self._said_at + REPORT_SECONDS - time.monotonic()) * 1000

    def report(self, *, at_once: bool = False) -> dict[str, int]:
        """What was counted since the last report, empty when that is nothing or the last one was too short ago."""
        if not self._unsaid or (self.wait_milliseconds() and not at_once):
            return {}
        counts, self._unsaid = self._unsaid, {}
        self._said_at = time.monotonic()
        return counts
