"""Gathering the facts that `place` and `diagnosis` decide by. What cannot be read is left out, never guessed."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from sandbox.doctor import place


def gather(environ: Mapping[str, str] = os.environ) -> place.Facts:
    """The facts of this process. Reads files of a few KiB and starts nothing."""
    mountinfo = _text("/proc/self/mountinfo") or ""
    version, read_only = place.groups_mounted(mountinfo)
    status = _fields(_text("/proc/self/status") or "")
    return place.Facts(
        marks=place.Marks(
            docker_file=Path("/.dockerenv").exists(),
            podman_file=Path("/run/.containerenv").exists(),
            kubernetes_variable="KUBERNETES_SERVICE_HOST" in environ,
            started_by_systemd="INVOCATION_ID" in environ or "NOTIFY_SOCKET" in environ,
            root_kind=place.root_kind(mountinfo),
            pid_namespace=_inode("/proc/self/ns/pid"),
            first_groups=_groups("/proc/1/cgroup"),
            own_groups=_groups("/proc/self/cgroup"),
        ),
        process=place.Process(
            uid=os.geteuid(),
            users=_mapped(_text("/proc/self/uid_map")),
            capabilities=_number(status.get("CapEff"), base=16),
            seccomp_mode=_number(status.get("Seccomp")),
            apparmor=(_text("/proc/self/attr/apparmor/current") or "").strip("\0\n "),
        ),
        kernel=place.Kernel(
            release=os.uname().release,
            security_modules=_security_modules(),
            max_user_namespaces=_number(_text("/proc/sys/user/max_user_namespaces")),
            unprivileged_userns_clone=_number(_text("/proc/sys/kernel/unprivileged_userns_clone")),
            apparmor_restricts_userns=_number(
                _text("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
            ),
        ),
        mounted=place.Mounted(
            proc_covers=place.proc_covers(mountinfo), groups_version=version, groups_read_only=read_only
        ),
    )


def with_attempts(facts: place.Facts, attempts: place.Attempts) -> place.Facts:
    """The same facts, and what came of attempts."""
    return replace(facts, attempts=attempts)


def _text(path: str) -> str | None:
    with suppress(OSError):
        return Path(path).read_text("utf-8", "replace")
    return None


def _number(text: str | None, *, base: int = 10) -> int | None:
    with suppress(ValueError):
        return None if text is None else int(text.strip(), base)
    return None


def _mapped(uid_map: str | None) -> int | None:
    with suppress(ValueError, IndexError):
        return None if uid_map is None else sum(int(line.split()[2]) for line in uid_map.splitlines())
    return None


def _inode(path: str) -> int | None:
    with suppress(OSError):
        return Path(path).stat().st_ino
    return None


def _fields(status: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in status.splitlines())}


def _groups(path: str) -> tuple[str, ...]:
    lines = (_text(path) or "").splitlines()
    return tuple(dict.fromkeys(line.split(":", 2)[2] for line in lines if line.count(":") >= 2))  # noqa: PLR2004


def _security_modules() -> tuple[str, ...] | None:
    """None where securityfs is not mounted, as inside most containers."""
    text = _text("/sys/kernel/security/lsm")
    return None if text is None else tuple(text.strip().split(","))
