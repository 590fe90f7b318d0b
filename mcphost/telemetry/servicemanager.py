"""Telling systemd how we are: ready, stopping, alive, and one line of status (sd_notify(3)).

The protocol is datagrams of `KEY=value` lines to the socket that NOTIFY_SOCKET names. Without that variable nothing
is sent. Nothing here waits: a manager that does not read loses news, and the runtime serves on.
"""

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Self

_MAX_STATUS_CHARACTERS: Final = 200  # `systemctl status` shows one line

# A keep-alive goes out twice within the time the manager waits for one (sd_watchdog_enabled(3) recommends half).
_KEEP_ALIVES_PER_TIMEOUT: Final = 2


class ServiceManager:
    """The service manager that started this process, or nobody. Close it at the end."""

    def __init__(self, channel: socket.socket | None, watchdog_seconds: float | None) -> None:
        self._channel = channel
        self.keep_alive_seconds = None if channel is None else watchdog_seconds
        """How often `alive` has to be said; None where nobody waits for it."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], pid: int) -> Self:
        """The manager that `environ` names. An address of a kind that is not known is as good as none."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls(None, None)
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        channel.setblocking(False)
        try:
            # A leading @ stands for the NUL of an abstract address (unix(7)).
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
        except OSError:
            channel.close()
            return cls(None, None)
        return cls(channel, _watchdog_seconds(environ, pid))

    def ready(self, status: str) -> None:
        """Start-up is over."""
        self._send("READY=1", _status(status))

    def stopping(self, status: str) -> None:
        """The end has begun."""
        self._send("STOPPING=1", _status(status))

    def alive(self) -> None:
        """The event loop turns."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Nothing more is sent."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _send(self, *lines: str) -> None:
        if self._channel is not None:
            with suppress(OSError):
                self._channel.send("\n".join(lines).encode())


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())[:_MAX_STATUS_CHARACTERS]}"


def _watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    """How often to say `alive`; None where the manager does not wait for it, or for another process."""
    with suppress(KeyError, ValueError):
        if int(environ.get("WATCHDOG_PID", pid)) == pid:
            microseconds = int(environ["WATCHDOG_USEC"])
            return microseconds / 1e6 / _KEEP_ALIVES_PER_TIMEOUT if microseconds > 0 else None
    return None
