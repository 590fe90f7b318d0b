"""What to do about a layer that is missing, by what is in the way and by where we are. Data, and one lookup.

Each text is a whole sentence for the operator of that very place. `{unit}` is the systemd unit, `{layer}` the layer.
`deploy/` is the folder of that name in this project's source.
"""

from typing import Literal

from sandbox.doctor.place import Kind, Place

Obstacle = Literal[
    "old-kernel",
    "namespaces-switched-off",
    "namespaces-not-for-users",
    "apparmor",
    "call-filter",
    "kernel-without",
    "proc-covered",
    "landlock-not-in-boot-list",
    "no-groups",
    "groups-read-only",
    "groups-not-ours",
    "groups-not-divisible",
    "no-loop-devices",
    "no-program",
    "root-without-privilege",
    "users-not-mapped",
    "apparmor-profile",
    "no-notifications",
    "another-listener",
    "no-zygote",
    "left-out",
]

_SYSCTL = "set it for good in /etc/sysctl.d/"
_NODE = "on the node, which pods cannot change"

# (obstacle, place) before (obstacle, None).
_TEXTS: dict[tuple[Obstacle, Kind | None], str] = {
    ("old-kernel", None): "Run a newer kernel: {layer} needs Linux {needs} or later.",
    ("old-kernel", "docker"): (
        "Run a newer kernel on the host, which containers share: {layer} needs Linux {needs} or later."
    ),
    ("old-kernel", "kubernetes"): (
        "Choose nodes with a newer kernel (nodeSelector): {layer} needs Linux {needs} or later."
    ),
    ("namespaces-switched-off", None): (
        f"sysctl -w user.max_user_namespaces=15000; {_SYSCTL}."
    ),
    ("namespaces-switched-off", "docker"): (
        f"On the host, not in the container: sysctl -w user.max_user_namespaces=15000; {_SYSCTL}."
    ),
    ("namespaces-switched-off", "kubernetes"): (
        f"Have user.max_user_namespaces set to 15000 {_NODE}; with `hostUsers: false` the node needs it too."
    ),
    ("namespaces-not-for-users", None): (
        f"sysctl -w kernel.unprivileged_userns_clone=1; {_SYSCTL}. Or start the runtime as root."
    ),
    ("namespaces-not-for-users", "docker"): (
        f"On the host: sysctl -w kernel.unprivileged_userns_clone=1; {_SYSCTL}."
    ),
    ("namespaces-not-for-users", "kubernetes"): (
        f"Have kernel.unprivileged_userns_clone set to 1 {_NODE}."
    ),
    ("apparmor", None): (
        "AppArmor takes all privilege from user namespaces of ordinary users: give the runtime's interpreter a profile "
        "with the rule `userns,` (deploy/apparmor-mcphost), or start the runtime as root, or "
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0."
    ),
    ("apparmor", "systemd-unit"): (
        "AppArmor takes all privilege from user namespaces of ordinary users: load deploy/apparmor-mcphost and name it in "
        "{unit} (`systemctl edit {unit}`, `[Service]`, `AppArmorProfile=mcphost`), or take `User=` out of the unit."
    ),
    ("apparmor", "docker"): (
        "AppArmor takes all privilege from user namespaces: on the host, load deploy/apparmor-mcphost and start the "
        "container with --security-opt apparmor=mcphost."
    ),
    ("apparmor", "podman"): (
        "AppArmor takes all privilege from user namespaces: on the host, load deploy/apparmor-mcphost and start the "
        "container with --security-opt apparmor=mcphost."
    ),
    ("apparmor", "kubernetes"): (
        "AppArmor takes all privilege from user namespaces: load deploy/apparmor-mcphost on the nodes and set "
        "securityContext.appArmorProfile {type: Localhost, localhostProfile: mcphost}."
    ),
    ("call-filter", None): (
        "A system call filter over this process refuses it: start the runtime outside of that filter."
    ),
    ("call-filter", "systemd-unit"): (
        "The unit's own filter refuses it: `systemctl edit {unit}` and take RestrictNamespaces=, "
        "RestrictSUIDSGID= (and DynamicUser=, which brings it along), ProtectHostname= and SystemCallFilter= back, as "
        "deploy/mcphost.service has them."
    ),
    ("call-filter", "docker"): (
        "The engine's own filter refuses it: start the container with --security-opt seccomp=deploy/seccomp.json."
    ),
    ("call-filter", "podman"): (
        "The engine's own filter refuses it: start the container with --security-opt seccomp=deploy/seccomp.json."
    ),
    ("call-filter", "container"): (
        "The engine's own filter refuses it: give the container the profile deploy/seccomp.json."
    ),
    ("call-filter", "kubernetes"): (
        "The container runtime's own filter refuses it: put deploy/seccomp.json onto the nodes below "
        "/var/lib/kubelet/seccomp and set securityContext.seccompProfile "
        "{type: Localhost, localhostProfile: mcphost.json} (deploy/kubernetes)."
    ),
    ("kernel-without", None): (
        "This kernel refuses or does not have {layer}; no switch of it is known to be in the way. Look at the reason, "
        "and run a kernel that is built with it (Linux {needs} or later)."
    ),
    ("proc-covered", None): (
        "Something is mounted over parts of /proc, and the kernel makes no new /proc for a user namespace then: take "
        "those mounts away."
    ),
    ("proc-covered", "systemd-unit"): (
        "The unit covers parts of /proc: `systemctl edit {unit}` and set ProtectKernelTunables=no, "
        "ProtectKernelLogs=no, ProtectProc=default, ProcSubset=all, as deploy/mcphost.service has them."
    ),
    ("proc-covered", "docker"): (
        "The engine covers parts of /proc: start the container with --security-opt systempaths=unconfined."
    ),
    ("proc-covered", "podman"): (
        "The engine covers parts of /proc: start the container with --security-opt unmask=ALL."
    ),
    ("proc-covered", "container"): (
        "The engine covers parts of /proc: have it mask nothing there."
    ),
    ("proc-covered", "kubernetes"): (
        "The container runtime covers parts of /proc: set securityContext.procMount: Unmasked"
        " and, in the pod, hostUsers: false (deploy/kubernetes/unmasked.yaml)."
    ),
    ("landlock-not-in-boot-list", None): (
        "Landlock is built in but not switched on: add `landlock,` to the front of lsm= on the kernel's command line "
        "(after the names in /sys/kernel/security/lsm) and boot again."
    ),
    ("landlock-not-in-boot-list", "docker"): (
        "Landlock is not switched on in the host's kernel: add `landlock,` to lsm= on the host's kernel command line."
    ),
    ("landlock-not-in-boot-list", "kubernetes"): (
        "Landlock is not switched on on this node: choose nodes that have `landlock` in lsm= on their kernel's command "
        "line."
    ),
    ("no-groups", None): (
        "Mount control groups: on a machine with systemd boot with systemd.unified_cgroup_hierarchy=1, else "
        "mount -t cgroup2 none /sys/fs/cgroup."
    ),
    ("no-groups", "docker"): (
        "The container sees no control groups: start it with --cgroupns=private "
        "--security-opt writable-cgroups=true (Docker Engine 28 or later, cgroup v2)."
    ),
    ("no-groups", "podman"): (
        "The container sees no control groups: start it with --cgroupns=private "
        "--security-opt unmask=/sys/fs/cgroup (cgroup v2)."
    ),
    ("no-groups", "kubernetes"): (
        "The container sees no control groups; bound the whole pod by resources.limits instead."
    ),
    ("groups-read-only", None): (
        "The control groups are mounted read-only here: remount them writable for the runtime."
    ),
    ("groups-read-only", "systemd-unit"): (
        "The unit makes control groups read-only: `systemctl edit {unit}`, ProtectControlGroups=no and Delegate=yes."
    ),
    ("groups-read-only", "docker"): (
        "The engine mounts control groups read-only: start the container with --cgroupns=private "
        "--security-opt writable-cgroups=true (Docker Engine 28 or later, cgroup v2). Until then bound the whole "
        "container by --memory, --cpus and --pids-limit."
    ),
    ("groups-read-only", "podman"): (
        "The engine mounts control groups read-only: start the container with --cgroupns=private "
        "--security-opt unmask=/sys/fs/cgroup (cgroup v2). Until then bound the whole container by --memory, --cpus "
        "and --pids-limit."
    ),
    ("groups-read-only", "container"): (
        "The engine mounts control groups read-only: have it mount the container's own writable (cgroup v2 with a "
        "cgroup namespace); until then bound the whole container."
    ),
    ("groups-read-only", "kubernetes"): (
        "The container runtime mounts control groups read-only: on the node set `cgroup_writable = true` for the "
        "runtime handler in containerd's configuration (containerd 2.1 or later, cgroup v2). Until then bound the whole "
        "pod by resources.limits."
    ),
    ("groups-not-ours", None): (
        "This user may not make control groups: start the runtime in a scope of its own, "
        "`systemd-run --user --scope -p Delegate=yes mcphost run ...`, or run it as root or by deploy/mcphost.service."
    ),
    ("groups-not-ours", "systemd-unit"): (
        "The unit was not given its part of the tree: `systemctl edit {unit}`, `[Service]`, `Delegate=yes`."
    ),
    ("groups-not-ours", "docker"): (
        "The container's own group belongs to another user: start it with --cgroupns=private and a command that hands "
        "/sys/fs/cgroup to the runtime's user first, or bound the whole container by --memory, --cpus and --pids-limit."
    ),
    ("groups-not-ours", "podman"): (
        "The container's own group belongs to another user: run Podman rootless with --cgroupns=private, or bound the "
        "whole container by --memory, --cpus and --pids-limit."
    ),
    ("groups-not-ours", "kubernetes"): (
        "The container's own group belongs to another user; bound the whole pod by resources.limits."
    ),
    ("groups-not-divisible", None): (
        "Other processes sit in the runtime's own group, so that it cannot be divided: start it in one of its own, "
        "`systemd-run --scope -p Delegate=yes mcphost run ...`, or by deploy/mcphost.service."
    ),
    ("groups-not-divisible", "systemd-unit"): (
        "Other processes sit in the unit's own group: `systemctl edit {unit}`, `[Service]`, `Delegate=yes`, and start "
        "nothing beside the runtime in it."
    ),
    ("groups-not-divisible", "docker"): (
        "Other processes sit in the container's own group: make the runtime the container's only program (no shell "
        "around it), with --cgroupns=private."
    ),
    ("groups-not-divisible", "kubernetes"): (
        "Other processes sit in the container's own group: make the runtime the container's only program."
    ),
    ("no-loop-devices", None): (
        "Sized volumes are images on loop devices: start the runtime as root with /dev/loop-control and modprobe loop."
    ),
    ("no-loop-devices", "systemd-unit"): (
        "Sized volumes are images on loop devices: `systemctl edit {unit}`, `[Service]`, "
        "`DeviceAllow=/dev/loop-control rw` and `DeviceAllow=block-loop rw`, without `User=`."
    ),
    ("no-loop-devices", "docker"): (
        "Containers are given no loop devices: put stateDir on a volume that has a size of its own."
    ),
    ("no-loop-devices", "podman"): (
        "Containers are given no loop devices: put stateDir on a volume that has a size of its own."
    ),
    ("no-loop-devices", "kubernetes"): (
        "Pods are given no loop devices: put stateDir on a PersistentVolumeClaim, or an emptyDir with a sizeLimit."
    ),
    ("no-program", None): "Install {needs}.",
    ("root-without-privilege", None): (
        "Being root without CAP_SYS_ADMIN is less than being nobody: start the runtime as a user that is not root, who "
        "makes a user namespace instead, or give it that Linux capability."
    ),
    ("root-without-privilege", "systemd-unit"): (
        "The unit takes CAP_SYS_ADMIN from root: `systemctl edit {unit}`, CapabilityBoundingSet= as "
        "deploy/mcphost.service has it, or `User=` with an ordinary user."
    ),
    ("root-without-privilege", "docker"): (
        "Root in a container is less than an ordinary user there: start the container with --user 65532:65532."
    ),
    ("root-without-privilege", "kubernetes"): (
        "Root in a pod is less than an ordinary user there: set securityContext.runAsUser: 65532."
    ),
    ("users-not-mapped", None): (
        "The user namespace this process is in knows one user, so there is none to give to a worker: have it map a range "
        "of users, or start the runtime as a user that is not root."
    ),
    ("users-not-mapped", "systemd-unit"): (
        "The unit's user namespace knows one user, so there is none to give to a worker: `systemctl edit {unit}`, "
        "PrivateUsers=no."
    ),
    ("users-not-mapped", "docker"): (
        "The container's user namespace knows one user, so there is none to give to a worker: map a range of users "
        "(/etc/subuid), or start the container with --user 65532:65532."
    ),
    ("apparmor-profile", None): (
        "The AppArmor profile over this process refuses it: give it one that allows `userns,`, `mount,`, `umount,` and "
        "`pivot_root,` (deploy/apparmor-mcphost)."
    ),
    ("apparmor-profile", "docker"): (
        "The engine's AppArmor profile refuses mounts: on the host, load deploy/apparmor-mcphost and start the container "
        "with --security-opt apparmor=mcphost."
    ),
    ("apparmor-profile", "kubernetes"): (
        "The container runtime's AppArmor profile refuses mounts: load deploy/apparmor-mcphost on the nodes and set "
        "securityContext.appArmorProfile {type: Localhost, localhostProfile: mcphost}."
    ),
    ("no-zygote", None): (
        "Start such servers by exec, or the runtime as root with the Linux capabilities that deploy/mcphost.service names."
    ),
    ("no-zygote", "systemd-unit"): (
        "Start such servers by exec, or give the unit CapabilityBoundingSet= as deploy/mcphost.service has it, without "
        "`User=`: `systemctl edit {unit}`."
    ),
    ("another-listener", None): (
        "Somebody listens to this process's system calls already, and the kernel allows one listener: start the runtime "
        "outside of that, or go without counts (denied calls are denied all the same)."
    ),
    ("no-notifications", None): "Run a kernel that has seccomp's user notification (Linux 5.0 or later).",
    ("left-out", None): "See {needs}, without which it cannot be.",
}  # fmt: skip

# Where a place has no text of its own, that of the place it resembles most.
_RESEMBLES: dict[Kind, Kind] = {"podman": "docker", "container": "docker", "kubernetes": "docker"}


def remedy(obstacle: Obstacle, place: Place, *, layer: str, needs: str = "") -> str:
    """The text for one obstacle to `layer` in one place; `needs` is the kernel version, program or layer it asks for."""
    kind: Kind | None = place.kind
    while kind is not None and (obstacle, kind) not in _TEXTS:
        kind = _RESEMBLES.get(kind)
    text = _TEXTS[obstacle, kind] if kind is not None else _TEXTS[obstacle, None]
    return text.replace("{unit}", place.unit).replace("{layer}", layer).replace("{needs}", needs)
