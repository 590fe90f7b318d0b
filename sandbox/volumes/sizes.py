"""Finding out whether a volume can be held to a size, by making, mounting and asking one."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from sandbox import privileges, syscalls
from sandbox.errors import SandboxSetupFailed
from sandbox.spec import MIN_VOLUME_BYTES
from sandbox.volumes import images

_HELD = "by an ext4 image of that size, mounted through a loop device"
_NOT_ROOT = (
    "an ordinary user can neither attach an image nor mount it (loop(4), mount(2)); start the runtime as root, "
    "or take the size away and bound the file system"
)


def main(directory: str) -> None:
    """Print the state and the reason for `directory` as JSON. Changes this process for good."""
    sys.stdout.write(json.dumps(_try(directory)))


def _try(directory: str) -> tuple[str, str]:
    if os.geteuid() != 0:
        return "absent", _NOT_ROOT
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        place = Path(tempfile.mkdtemp(prefix=".size-trial-", dir=os.path.realpath(directory)))
    except OSError as error:
        return "absent", f"no private mount namespace, or no place in {directory}: {error.strerror}"
    try:
        mounted = place / "mounted"
        mounted.mkdir()
        images.attach(f"{place}/image", MIN_VOLUME_BYTES, str(mounted), privileges.WORKER_ID)
        images.detach(str(mounted))
    except (SandboxSetupFailed, OSError) as error:
        return "absent", str(error)
    else:
        return "enforced", _HELD
    finally:
        shutil.rmtree(place, ignore_errors=True)
