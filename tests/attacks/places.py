"""From here into a place and back with its report: makes what only root can, starts the trial there, cleans up."""

import contextlib
import json
import os
import secrets
import shutil
import stat
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from attacks import modes, targets

SECONDS = 600.0

# v2 is root as well, on a machine whose control groups are of version 2.
MODES = {
    "root": modes.Place(stand_ins=True),
    "user": modes.Place(user=modes.USER, stand_ins=True, delegated_groups=True),
    "degraded": modes.Place(container=True, stand_ins=True),
    "bubblewrap": modes.Place(user=modes.USER, stand_ins=True),
    "v2": modes.Place(stand_ins=True, delegated_groups=True),
}

_BOOT = "import sys; sys.path[:0] = sys.argv[1:2]; from attacks.trial import main; main()"
_CAP_NET_RAW = 1 << 13


def examine(mode: str, *, proofs: bool = True, only: str = "") -> dict[str, Any]:
    """The report of one mode. Needs root."""
    place = MODES[mode]
    base = Path(tempfile.mkdtemp(prefix="attacks-"))
    try:
        base.chmod(0o755)
        packages = modes.copy_package(base / "packages")
        _exhibit(base, 0 if place.user is None else place.user)
        kind = "bubblewrap" if mode == "bubblewrap" else "ours"
        arguments = [str(packages), str(base), kind, "yes" if proofs else "no", only]
        argv = modes.command(place, [modes.interpreter(place), "-I", "-c", _BOOT, *arguments])
        words = {"ATTACKS_TEXT": f"canary-{secrets.token_hex(12)}", "ATTACKS_LEAKED": secrets.token_hex(12)}
        done = subprocess.run(
            argv,
            env={"PATH": os.environ.get("PATH", ""), **words},
            cwd="/",
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{mode} ended with {done.returncode}: {done.stderr.decode()[-3000:]}")
        return json.loads(done.stdout)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _exhibit(base: Path, owner: int) -> None:
    """Programs that carry privilege, one that the worker's user owns, and a device node where it may write."""
    for name in ("data", "exhibits"):
        (base / name).mkdir(mode=0o755)
    for name in ("suid", "capable", "tool"):
        shutil.copyfile(targets.python(), base / "exhibits" / name)
        (base / "exhibits" / name).chmod(0o755)
    (base / "exhibits/suid").chmod(0o4755)
    # struct vfs_cap_data, version 2, effective (include/uapi/linux/capability.h)
    with contextlib.suppress(OSError):
        os.setxattr(
            base / "exhibits/capable",
            "security.capability",
            struct.pack("=5I", 0x02000001, _CAP_NET_RAW, 0, 0, 0),
        )
    with contextlib.suppress(OSError):
        os.mknod(base / "data/zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
        (base / "data/zero").chmod(0o666)
    for path in (base, base / "data", base / "exhibits/tool"):
        os.chown(path, owner, owner)
