"""The fork server's sized volumes: one mount for each image, however many workers use it at once.

Whatever may wait for a disk (making, checking, mounting, writing out) happens in a process of its own, which the poll
loop hears of by its process descriptor; a worker is given its order when all of its volumes are there.

The mounts live in a `Vault`, so they end with the fork server, however that happens.
"""

import json
import os
import select
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn, cast

from sandbox import privileges, syscalls
from sandbox.errors import SandboxSetupFailed
from sandbox.spec import SandboxSpec
from sandbox.volumes import images
from sandbox.volumes.vault import Vault

NEEDS_ROOT = (
    "a volume with a size needs root, mounts and a root file system of the worker's own; "
    "start as root, or take the size away"
)
_MAX_REPORT_BYTES = 4096

Outcome = tuple[int, list[int], SandboxSetupFailed | None]


@dataclass
class _Job:
    """A process at work on one image. Owned by `Volumes` from its fork until it has been reaped."""

    pid: int
    pidfd: int
    report: int


@dataclass
class _Image:
    path: str
    size_bytes: int
    place: str
    state: Literal["new", "mounting", "mounted", "unmounting"] = "new"
    holders: set[int] = field(default_factory=set)
    job: _Job | None = None


class Volumes:
    """Every image in use. A worker holds images from `claim` to `drop`, by its number."""

    def __init__(self, poll: select.poll, site: str | None, owner: int | None) -> None:
        """`owner` is the user that volumes belong to on disk; None where this process may not mount images."""
        self._poll = poll
        self._site = site
        self._owner = owner
        self._vault: Vault | None = None
        self._count = 0
        self._images: dict[str, _Image] = {}
        self._jobs: dict[int, _Image] = {}
        self._waiting: dict[int, list[int]] = {}

    def __contains__(self, pidfd: int) -> bool:
        return pidfd in self._jobs

    @property
    def busy(self) -> bool:
        """Whether a process is at work."""
        return bool(self._jobs)

    def claim(self, worker: int, spec: SandboxSpec, streams: list[int], *, has_root: bool) -> bool:
        """Take what `spec` needs; True when it is there already. Otherwise `streams` are copied and `finish` tells.

        Raises:
            SandboxSetupFailed: it cannot be had here, or not in this size. What was taken goes with `drop`.
        """
        wanted = [(each.source, each.size_bytes) for each in spec.kept() if each.size_bytes is not None]
        if wanted and (self._site is None or self._owner is None or not has_root):
            raise SandboxSetupFailed("attach-volume", 1, NEEDS_ROOT)
        try:
            for path, size_bytes in wanted:
                image = self._images.get(path) or self._add(path, size_bytes)
                if image.state == "unmounting" and not image.holders:
                    image.size_bytes = size_bytes
                if image.size_bytes != size_bytes:
                    why = f"{path} is in use with {image.size_bytes} bytes, not {size_bytes}"
                    raise SandboxSetupFailed("attach-volume", 16, why)
                image.holders.add(worker)
                self._go_on(image)
            if self._has_all(worker):
                return True
            self._waiting[worker] = [os.dup(fd) for fd in streams]
        except OSError as error:
            raise SandboxSetupFailed("attach-volume", error.errno or 0, str(error.strerror)) from None
        return False

    def open(self, path: str) -> int:
        """A detached copy of the tree of an image that is mounted; the caller closes it."""
        place = f"{self._images[path].place}/{images.TREE}"
        with cast("Vault", self._vault).visit():
            return syscalls.open_tree(-100, place)

    def finish(self, pidfd: int) -> list[Outcome]:
        """A process has ended. Gives the workers that go on or fail by it, with their streams, now the caller's."""
        image = self._jobs.pop(pidfd)
        failure = self._reap(image)
        mounting = image.state == "mounting"
        # One that was killed may have left the image mounted.
        image.state = "mounted" if (mounting if failure is None else self._is_mounted(image)) else "new"
        if failure is not None and not mounting and image.state == "mounted" and not image.holders:
            return []  # it stays so for the next worker, or until we end
        try:
            if mounting and failure is not None:
                raise failure
            self._go_on(image)
        except SandboxSetupFailed as error:
            failed: list[Outcome] = [
                (worker, self._waiting.pop(worker, []), error) for worker in sorted(image.holders)
            ]
            image.holders.clear()
            self._go_on(image)
            return failed
        ready = [worker for worker in list(self._waiting) if self._has_all(worker)]
        return [(worker, self._waiting.pop(worker), None) for worker in ready]

    def drop(self, worker: int) -> None:
        """The worker is gone: what nobody else uses is unmounted."""
        for fd in self._waiting.pop(worker, []):
            os.close(fd)
        for image in list(self._images.values()):
            if worker in image.holders:
                image.holders.remove(worker)
                self._go_on(image)

    def _add(self, path: str, size_bytes: int) -> _Image:
        if self._vault is None:
            self._vault = Vault(cast("str", self._site))
        self._count += 1
        place = f"{self._vault.base}/{self._count}"
        image = self._images[path] = _Image(path, size_bytes, place)
        return image

    def _go_on(self, image: _Image) -> None:
        """Whatever follows for an image, unless a process is at work on it.

        Raises:
            SandboxSetupFailed: it is to be mounted, and no process can be made.
        """
        owner, path, size_bytes, place = cast("int", self._owner), image.path, image.size_bytes, image.place
        if image.job is not None:
            return
        if image.holders and image.state == "new":
            self._begin(image, "mounting", lambda: _attach(path, size_bytes, place, owner))
        elif not image.holders and image.state == "mounted":
            with suppress(SandboxSetupFailed):  # it stays mounted then, for the next worker or until we end
                self._begin(image, "unmounting", lambda: _detach(place))
        elif not image.holders:
            del self._images[path]

    def _is_mounted(self, image: _Image) -> bool:
        with cast("Vault", self._vault).visit():
            return os.path.ismount(image.place)

    def _has_all(self, worker: int) -> bool:
        return all(image.state == "mounted" for image in self._images.values() if worker in image.holders)

    def _begin(
        self, image: _Image, state: Literal["mounting", "unmounting"], work: Callable[[], None]
    ) -> None:
        parent = os.getpid()
        report = report_end = -1
        try:
            report, report_end = os.pipe2(os.O_CLOEXEC)
            cloned = syscalls.clone(0)
            if cloned is None:
                _be_job(cast("Vault", self._vault), work, report_end, parent)
        except OSError as error:
            if report >= 0:
                os.close(report)
            raise SandboxSetupFailed("attach-volume", error.errno or 0, "no process can be made") from None
        finally:
            if report_end >= 0:
                os.close(report_end)
        image.job = _Job(cloned.pid, cloned.pidfd, report)
        image.state = state
        self._jobs[cloned.pidfd] = image
        self._poll.register(cloned.pidfd, select.POLLIN)

    def _reap(self, image: _Image) -> SandboxSetupFailed | None:
        job, image.job = cast("_Job", image.job), None
        self._poll.unregister(job.pidfd)
        os.waitpid(job.pid, 0)
        said = os.read(job.report, _MAX_REPORT_BYTES)
        os.close(job.pidfd)
        os.close(job.report)
        if said == b"[]":
            return None
        step, number, detail = (
            json.loads(said) if said else ("attach-volume", 0, "the process at work was killed")
        )
        return SandboxSetupFailed(step, number, detail)


def _attach(path: str, size_bytes: int, place: str, owner: int) -> None:
    Path(place).mkdir(mode=0o700, exist_ok=True)
    images.attach(path, size_bytes, place, owner)


def _detach(place: str) -> None:
    images.detach(place)
    Path(place).rmdir()


def _be_job(vault: Vault, work: Callable[[], None], report: int, parent: int) -> NoReturn:
    """Do the work and say how it went; holds nothing of the fork server's but its mounts."""
    said: list[object] = ["attach-volume", 0, "the process at work failed"]
    try:
        vault.enter()
        syscalls.close_range(0, report - 1)
        syscalls.close_range(report + 1)
        for _ in range(min(report, 3)):
            os.open("/dev/null", os.O_RDWR)
        privileges.die_with_parent()
        if os.getppid() == parent:
            work()
            said = []
    except SandboxSetupFailed as failure:
        said = [failure.step, failure.errno, failure.detail[:1000]]
    except BaseException as error:  # noqa: BLE001 - the process boundary: nothing may return into the fork server
        said = ["attach-volume", getattr(error, "errno", 0) or 0, type(error).__name__]
    finally:
        os.write(report, json.dumps(said).encode())
        os._exit(0)
