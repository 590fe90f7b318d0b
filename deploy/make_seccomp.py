"""Writes `seccomp.json`, the filter a container needs for the sandbox to work in it: `python make_seccomp.py`.

Three groups of calls: what workers may make (the sandbox's own default profile, under which each worker is put again),
what the fork server makes them with, and what the runtime and the container engine's own start need beside. Anything
else is refused, so the container stays about as far from the kernel as under its engine's default filter.
"""

import json
import sys
from pathlib import Path

PROFILES = Path(__file__).parent.parent / "sandbox" / "seccomp" / "profiles"

# What an engine's default filter refuses to a container without CAP_SYS_ADMIN (kcmp: without CAP_SYS_PTRACE), and workers
# are made by. kcmp is how the fork server sees that a worker shares no memory with the zygote it was forked from.
NAMESPACES = (
    "clone3", "kcmp", "mount", "mount_setattr", "move_mount", "open_tree", "pivot_root", "sethostname", "setns", "umount2",
    "unshare",
)  # fmt: skip

# What giving up privilege takes, and an engine's init too; the runtime's own descriptors, processes and limits.
BESIDE = (
    "chroot", "capget", "capset", "flock", "getgroups", "ioprio_set", "landlock_add_rule", "landlock_create_ruleset",
    "landlock_restrict_self", "mknod", "mknodat", "pidfd_open", "pidfd_send_signal", "seccomp", "setfsgid", "setfsuid",
    "setgid", "setgroups", "setpgid", "setpriority", "setregid", "setresgid", "setresuid", "setreuid", "setrlimit",
    "setuid", "sync", "syncfs", "sync_file_range",
)  # fmt: skip

# include/linux/socket.h: workers are left AF_UNIX by their own filter, and a way to a proxy where they have one.
SOCKET_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
# Linux, uname26 with or without random addresses off, and the question for the present one (personality(2)).
PERSONALITIES = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)

# In x86_64 the 32-bit and x32 calls are left out, as no worker may make them either.
ARCHITECTURES = ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")
_CONDITIONAL = frozenset({"personality", "socket"})
_EPERM = 1


def profile() -> dict[str, object]:
    """The filter in the form of the OCI runtime specification (config-linux.md, Seccomp), which every engine reads."""
    default = json.loads((PROFILES / "default.json").read_text("utf-8"))
    variants = json.loads((PROFILES / "variants.json").read_text("utf-8"))
    workers = {*default["allow"], *(each["call"] for each in default["conditions"])}
    workers |= {call for variant in variants.values() for call in variant.get("allow", ())}
    workers -= {*_CONDITIONAL, *NAMESPACES}
    beside = set(BESIDE) - workers
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "architectures": list(ARCHITECTURES),
        "syscalls": [
            _allowed(sorted(workers), "what workers may make, each under a narrower filter of its own"),
            _allowed(sorted(NAMESPACES), "what workers' namespaces and root file systems are made by"),
            _allowed(sorted(beside), "giving up privilege, the runtime itself, and the engine's own start"),
            *(_allowed(["socket"], name, 0, family) for name, family in SOCKET_FAMILIES.items()),
            *(_allowed(["personality"], "an ordinary one", 0, value) for value in PERSONALITIES),
        ],
    }


def _allowed(names: list[str], comment: str, index: int | None = None, value: int = 0) -> dict[str, object]:
    rule: dict[str, object] = {"names": names, "action": "SCMP_ACT_ALLOW", "comment": comment}
    if index is not None:
        rule["args"] = [{"index": index, "value": value, "op": "SCMP_CMP_EQ"}]
    return rule


def text() -> str:
    """The file as it is committed."""
    return json.dumps(profile(), indent=1) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("seccomp.json").write_text(text(), "utf-8")
    sys.stdout.write("seccomp.json written\n")
