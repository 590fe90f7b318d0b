"""Every error of the sandbox.

SandboxError
├── SpecInvalid          a specification that no kernel could apply; our caller's mistake
│   └── FilterInvalid    a list of system calls that cannot be meant; says which value is wrong
├── SandboxUnsupported   a required layer cannot be enforced here; nothing was started
├── SandboxSetupFailed   a step of a start failed; nothing was left running
├── SpawnerBusy          the request could not be queued now
└── SpawnerGone          the fork server is dead, and every worker with it

Messages never contain environment values, so that they are safe to log and to show.
"""

import errno as errno_module
import os
from typing import ClassVar

from sandbox.layers import LayerStatus


class SandboxError(Exception):
    """Root of this package's errors. `code` is stable; `retryable` says whether the same request may work later."""

    code: ClassVar[str] = "sandbox-error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class SpecInvalid(SandboxError):
    """The specification contradicts itself or leaves the limits of the format."""

    code = "sandbox-spec-invalid"


class FilterInvalid(SpecInvalid):
    """A profile of system calls is wrong at `path`, keys and indices from its top.

    `suggestion` is the nearest name; with `on_key` the last key of the path is meant and not its value.
    """

    code = "sandbox-filter-invalid"

    def __init__(
        self,
        path: tuple[str | int, ...],
        problem: str,
        *,
        suggestion: str | None = None,
        on_key: bool = False,
    ) -> None:
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        did_you_mean = f"; did you mean {suggestion}?" if suggestion else ""
        super().__init__(f"{place or 'the profile'}: {problem}{did_you_mean}")
        self.path = path
        self.problem = problem
        self.suggestion = suggestion
        self.on_key = on_key


class SandboxUnsupported(SandboxError):
    """A layer that was required cannot be enforced; `layers` holds each of them with its reason."""

    code = "sandbox-unsupported"

    def __init__(self, layers: tuple[LayerStatus, ...]) -> None:
        parts = "; ".join(f"{status.layer} is {status.state}: {status.reason}" for status in layers)
        super().__init__(f"required isolation is not available: {parts}")
        self.layers = layers


class SandboxSetupFailed(SandboxError):
    """The step named `step` failed. `errno` is the kernel's answer, 0 where there was none."""

    code = "sandbox-setup-failed"
    retryable = True

    def __init__(self, step: str, errno: int, detail: str = "") -> None:
        name = errno_module.errorcode.get(errno)
        # A number that is no errno may come from a process that was broken into; strerror(3) raises for the largest.
        cause = f"{os.strerror(errno)} ({name})" if name else f"error {errno}" if errno else "no answer"
        super().__init__(f"sandbox start failed at {step}: {detail + ': ' if detail else ''}{cause}")
        self.step = step
        self.errno = errno
        self.detail = detail


class SpawnerBusy(SandboxError):
    """The socket towards the fork server is full; the request was not sent."""

    code = "sandbox-spawner-busy"
    retryable = True


class SpawnerGone(SandboxError):
    """The fork server has ended. Its workers ended with it; a new one must be started."""

    code = "sandbox-spawner-gone"
    retryable = True
