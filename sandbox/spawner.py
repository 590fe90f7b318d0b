"""The runtime's side of the fork server: one process started from here, one socket, no threads and no event loop.

The runtime needs no privilege of its own and holds none: it sends specifications and descriptors, and receives what
became of them. Everything that touches the kernel's confinements happens in the process started here (`_spawnd`).
"""

import contextlib
import errno
import os
import re
import select
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Self

from sandbox import ancillary, syscalls
from sandbox.cgroups import tree
from sandbox.errors import SandboxError, SandboxSetupFailed, SpawnerBusy, SpawnerGone, SpecInvalid
from sandbox.features import Features, exposes_spawner
from sandbox.messages import (
    MAX_PACKET_BYTES,
    PROTOCOL_VERSION,
    Event,
    Kill,
    KillReason,
    MalformedMessage,
    Prepare,
    Request,
    Signal,
    Spawn,
    Spawned,
    SpawnFailed,
    decode_event,
    decode_hello,
    encode_request,
)
from sandbox.spec import SandboxSpec

# A fork server greets after about 0.1 s; the bound is for a machine that swaps.
START_TIMEOUT_SECONDS = 20.0
# Killing a full house of workers and removing their groups is tens of milliseconds.
CLOSE_TIMEOUT_SECONDS = 10.0
# Workers of a fork server that was killed are dead within milliseconds; their groups then only wait to be removed.
_SWEEP_SECONDS = 2.0
# One comes with a start that asked for it; more are accepted only to be closed.
_MAX_DESCRIPTORS = 4

# The package's own folder goes last, so that nothing beside it can stand in for a module of the standard library.
_BOOT = "import sys; sys.path.append(sys.argv[1]); from sandbox._spawnd import main; main(int(sys.argv[2]), sys.argv[3])"


class Spawner:
    """A running fork server. Owned by whoever called `start`, who must `close` it.

    Not thread-safe: one event loop owns it. Its workers cannot outlive it, and it cannot outlive this process.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", channel: socket.socket, pidfd: int) -> None:
        self._process = process
        self._channel = channel
        self._closed = False
        self.pid = process.pid
        self.pidfd = pidfd
        self.features = Features(())

    def __repr__(self) -> str:
        return f"<Spawner pid={self.pid} {'closed' if self._closed else 'open'}>"

    @classmethod
    def start(cls, *, name: str = "mcphost") -> Self:
        """Start a fork server and wait, at most `START_TIMEOUT_SECONDS`, until it can take requests.

        Where workers have this process's user and no namespaces of their own, this process is made unreadable to that
        user (PR_SET_DUMPABLE): no core file, no debugger, and files of /proc/self that belong to root.

        Raises:
            SpecInvalid: `name`, a part of its control groups' names, is not 1-32 of a-z, 0-9 and hyphens.
            SpawnerGone: it ended or did not answer in time; nothing of it is left.
        """
        if not re.fullmatch(r"[a-z0-9-]{1,32}", name):
            raise SpecInvalid(f"spawner name {name!r} is not 1-32 of a-z, 0-9 and hyphens")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", _BOOT]
            arguments = [str(Path(__file__).resolve().parent.parent), str(theirs.fileno()), name]
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command + arguments,
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        spawner = cls(process, ours, os.pidfd_open(process.pid))
        try:
            spawner._greet()
        except BaseException:
            spawner.close()
            raise
        return spawner

    def _greet(self) -> None:
        self._channel.settimeout(START_TIMEOUT_SECONDS)
        try:
            packet = self._channel.recv(MAX_PACKET_BYTES)
            if not packet:
                raise SpawnerGone("the fork server ended at its start; its standard error says why")
            hello = decode_hello(packet)
        except (OSError, MalformedMessage) as error:
            raise SpawnerGone(f"the fork server did not start: {error}") from None
        if hello.version != PROTOCOL_VERSION:
            raise SpawnerGone(f"the fork server speaks version {hello.version}, not {PROTOCOL_VERSION}")
        self.features = Features(hello.features, hello.without_proc)
        if exposes_spawner(self.features, os.geteuid()):
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        self._channel.setblocking(False)

    def fileno(self) -> int:
        """The socket to watch for readability; readable means that `receive` has something to say."""
        return self._channel.fileno()

    def spawn(self, request: int, spec: SandboxSpec, stdin_fd: int, stdout_fd: int, stderr_fd: int) -> None:
        """Ask for a worker. The answer is a `Spawned` or `SpawnFailed` of the same `request` number.

        The descriptors are copied; the caller keeps its own and should close them once the request is sent.

        Raises:
            SpecInvalid: the specification does not fit into one packet.
            SpawnerBusy: the socket is full.
            SpawnerGone: there is nobody to ask.
        """
        self._send(Spawn(request, spec), [stdin_fd, stdout_fd, stderr_fd])

    def prepare(self, spec: SandboxSpec) -> None:
        """Have the zygote of such workers ready before the first is asked for; nothing for a spec without one.

        Only what all of them share is sent. Whether it could be done shows when a worker is asked for.

        Raises:
            SpecInvalid, SpawnerBusy, SpawnerGone: as `spawn`.
        """
        if spec.zygote is not None:
            self._send(Prepare(replace(spec, env=())), [])

    def signal(self, worker: int, signum: int) -> None:
        """Send a signal to the worker's first process. An unknown worker is ignored."""
        self._send(Signal(worker, signum), [])

    def kill(self, worker: int, reason: KillReason = "killed") -> None:
        """End the worker and everything it started, whatever it does against that. An unknown worker is ignored.

        `reason` comes back with its `Exited`, unless the worker had ended by itself before.
        """
        self._send(Kill(worker, reason), [])

    def receive(self) -> list[Event]:
        """What happened since the last time; empty when nothing did. Never blocks.

        A `listener` in a `Spawned` is the caller's from here on. A worker whose listener was lost on the way, because
        this process has no descriptors left, is killed and comes out as `SpawnFailed`.

        Raises:
            SpawnerGone: the fork server has ended, and nothing is left to be received.
        """
        events: list[Event] = []
        try:
            while (event := self._next_event()) is not None:
                events.append(event)
        except SpawnerGone:
            if events:
                return events  # the next call says it again
            raise
        return events

    def _next_event(self) -> Event | None:
        descriptors: list[int] = []
        try:
            packet, descriptors = ancillary.receive(self._channel, MAX_PACKET_BYTES, _MAX_DESCRIPTORS)
            if not packet:
                raise SpawnerGone("the fork server has ended, and its workers with it")
            return self._with_listener(decode_event(packet), descriptors)
        except BlockingIOError:
            return None
        except OSError as error:
            raise SpawnerGone(f"the fork server cannot be heard any more: {error.strerror}") from None
        except MalformedMessage as error:
            # Said for good: what comes after it cannot be trusted either.
            self._channel.shutdown(socket.SHUT_RDWR)
            raise SpawnerGone(f"the fork server does not make sense: {error}") from None
        finally:
            for fd in descriptors:
                os.close(fd)

    def _with_listener(self, event: Event, descriptors: list[int]) -> Event:
        """The event with the descriptor that came along taken out of `descriptors`."""
        if not isinstance(event, Spawned) or event.listener is None:
            return event
        if descriptors:
            return replace(event, listener=descriptors.pop(0))
        with contextlib.suppress(SandboxError):
            self.kill(event.worker)
        return SpawnFailed(event.request, SandboxSetupFailed("receive-listener", errno.EMFILE))

    def close(self) -> None:
        """End every worker and the fork server; blocks for at most `CLOSE_TIMEOUT_SECONDS`. Idempotent.

        Afterwards no process, cgroup or mount of theirs is left, also where the fork server was killed before.
        """
        if self._closed:
            return
        self._closed = True
        self._channel.close()
        waiter = select.poll()
        waiter.register(self.pidfd, select.POLLIN)
        if not waiter.poll(CLOSE_TIMEOUT_SECONDS * 1000):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self._process.wait()
        os.close(self.pidfd)
        tree.sweep(wait_seconds=_SWEEP_SECONDS)
        tree.restore()

    def _send(self, request: Request, descriptors: list[int]) -> None:
        packet = encode_request(request)
        if len(packet) > MAX_PACKET_BYTES:
            raise SpecInvalid(f"the request has {len(packet)} bytes, more than {MAX_PACKET_BYTES}")
        try:
            socket.send_fds(self._channel, [packet], descriptors)
        except BlockingIOError:
            raise SpawnerBusy("the fork server has not yet taken the requests before this one") from None
        except (BrokenPipeError, ConnectionResetError):
            raise SpawnerGone("the fork server has ended, and its workers with it") from None
        except OSError as error:
            raise SandboxError(f"the request could not be sent: {error.strerror}") from None
