"""Attacks on processes: the canary is one of the machine's, run by the very user that the worker is on the machine."""

import ctypes
import os
import re
import resource
import signal
import struct
from contextlib import suppress

from attacks.attack import Canaries, Rows
from attacks.hostile import CLONE_NEWUSER, become_root, call, libc, read, try_call

rows = Rows("processes")

_NEEDS_PIDNS = "the same user's processes stay in reach of this call; needs a pid namespace"

# signal(7): ignored by default, so that nobody but the canary takes notice.
HARMLESS = signal.SIGWINCH


@rows("pidns", "landlock:6")
def signal_a_process_of_the_host(c: Canaries) -> object:
    os.kill(c["pid"], HARMLESS)
    return True


@rows("pidns", "landlock:6")
def signal_a_process_group_of_the_host(c: Canaries) -> object:
    os.killpg(c["pid"], HARMLESS)
    return True


@rows("pidns", "landlock:6")
def signal_a_thread_of_the_host(c: Canaries) -> object:
    return call("tgkill", c["pid"], c["pid"], int(HARMLESS)) == 0


@rows("pidns", "landlock:6")
def queue_a_signal_to_a_process_of_the_host(c: Canaries) -> object:
    info = struct.pack("=iii4xii8x", int(HARMLESS), 0, -1, os.getpid(), os.getuid()) + bytes(96)
    return call("rt_sigqueueinfo", c["pid"], int(HARMLESS), info) == 0


@rows("pidns", "landlock:6")
def signal_a_process_of_the_host_by_a_descriptor(c: Canaries) -> object:
    signal.pidfd_send_signal(os.pidfd_open(c["pid"]), HARMLESS)
    return True


@rows("pidns", "landlock:6", witness="SIGURG")
def signal_everyone_at_once(_: Canaries) -> object:
    os.kill(-1, signal.SIGURG)
    return True


@rows("rootfs", "landlock")
def see_processes_of_the_host(c: Canaries) -> object:
    return str(c["pid"]) in os.listdir("/proc") and read(f"/proc/{c['pid']}/cmdline")


@rows("rootfs", "landlock")
def read_the_status_of_a_process_of_the_host(c: Canaries) -> object:
    return b"Uid:" in read(f"/proc/{c['pid']}/status")


@rows("rootfs", "landlock", "userns")
def read_the_environment_of_a_process_of_the_host(c: Canaries) -> object:
    return c["text"].encode() in read(f"/proc/{c['pid']}/environ")


@rows("rootfs", "landlock", "userns")
def read_the_memory_map_of_a_process_of_the_host(c: Canaries) -> object:
    return read(f"/proc/{c['pid']}/maps")


@rows("rootfs", "landlock", "userns")
def read_the_memory_of_a_process_of_the_host(c: Canaries) -> object:
    with open(f"/proc/{c['pid']}/mem", "rb", buffering=0) as file:
        file.seek(c["address"])
        return file.read(len(c["text"])) == c["text"].encode()


@rows("rootfs", "landlock", "userns")
def write_the_memory_of_a_process_of_the_host(c: Canaries) -> object:
    with open(f"/proc/{c['pid']}/mem", "r+b", buffering=0) as file:
        file.seek(c["address"] + 100)
        return file.write(b"x")


@rows("rootfs", "landlock", "userns")
def go_to_the_root_of_a_process_of_the_host(c: Canaries) -> object:
    return read(f"/proc/{c['pid']}/root{c['secret']}")


@rows("rootfs", "landlock", "userns")
def go_to_the_directory_of_a_process_of_the_host(c: Canaries) -> object:
    return os.listdir(f"/proc/{c['pid']}/cwd/")


@rows("rootfs", "landlock", "userns")
def open_a_descriptor_of_a_process_of_the_host(c: Canaries) -> object:
    return read(f"/proc/{c['pid']}/fd/{c['fd']}")


@rows("rootfs", "landlock", "userns")
def list_the_mapped_files_of_a_process_of_the_host(c: Canaries) -> object:
    return os.listdir(f"/proc/{c['pid']}/map_files")


@rows("rootfs", "landlock")
def have_a_process_of_the_host_killed_first_when_memory_ends(c: Canaries) -> object:
    with open(f"/proc/{c['pid']}/oom_score_adj", "w", encoding="ascii") as file:
        return file.write("900")


@rows("rootfs", "landlock")
def be_killed_last_when_memory_ends(_: Canaries) -> object:
    """The fork server has set a score above the usual one."""
    before = int(read("/proc/self/oom_score_adj"))
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(before // 2 - 1))
    return int(read("/proc/self/oom_score_adj")) < before


def _remote(address: int) -> tuple[bytes, ctypes.Array]:
    mine = ctypes.create_string_buffer(64)
    return struct.pack("=QQ", ctypes.addressof(mine), 32) + struct.pack("=QQ", address, 32), mine


@rows("seccomp", "pidns", "landlock", "userns")
def copy_memory_out_of_a_process_of_the_host(c: Canaries) -> object:
    vectors, mine = _remote(c["address"])
    call("process_vm_readv", c["pid"], vectors[:16], 1, vectors[16:], 1, 0)
    return mine.raw.startswith(c["text"][:32].encode())


@rows("seccomp", "pidns", "landlock", "userns")
def copy_memory_into_a_process_of_the_host(c: Canaries) -> object:
    vectors, _ = _remote(c["address"] + 128)
    return call("process_vm_writev", c["pid"], vectors[:16], 1, vectors[16:], 1, 0) > 0


@rows("seccomp", "pidns", "landlock", "userns")
def trace_a_process_of_the_host(c: Canaries) -> object:
    return call("ptrace", 0x4206, c["pid"], 0, 0) == 0  # PTRACE_SEIZE, which does not stop it


@rows("seccomp", "pidns", "landlock", "userns")
def take_a_descriptor_from_a_process_of_the_host(c: Canaries) -> object:
    taken = call("pidfd_getfd", os.pidfd_open(c["pid"]), c["fd"], 0)
    return os.pread(taken, 100, 0)


@rows("seccomp", "pidns", "landlock", "userns")
def compare_oneself_with_a_process_of_the_host(c: Canaries) -> object:
    return call("kcmp", os.getpid(), c["pid"], 1, 0, 0) >= 0


@rows("pidns", "landlock", "userns")
def ask_for_the_locks_of_a_process_of_the_host(c: Canaries) -> object:
    head, length = ctypes.create_string_buffer(8), ctypes.create_string_buffer(8)
    return call("get_robust_list", c["pid"], head, length) == 0


@rows("seccomp")
def advise_the_kernel_about_memory_by_a_descriptor(_: Canaries) -> object:
    page = ctypes.create_string_buffer(8192)
    vector = struct.pack("=QQ", ctypes.addressof(page) & ~4095, 4096)
    return try_call("process_madvise", os.pidfd_open(os.getpid()), vector, 1, 20, 0)


@rows("seccomp", "pidns")
def slow_a_process_of_the_host_down(c: Canaries) -> object:
    return call("setpriority", 0, c["pid"], 5) == 0


@rows("seccomp")
def slow_down_everything_of_the_same_user(_: Canaries) -> object:
    return call("setpriority", 2, os.getuid(), 19) == 0


@rows("seccomp", "pidns")
def push_the_disk_access_of_a_process_of_the_host_back(c: Canaries) -> object:
    return call("ioprio_set", 1, c["pid"], (2 << 13) | 7) == 0


@rows("pidns", "seccomp")
def tie_a_process_of_the_host_to_one_cpu(c: Canaries) -> object:
    os.sched_setaffinity(c["pid"], os.sched_getaffinity(c["pid"]))
    return True


@rows("pidns", "seccomp")
def lower_a_limit_of_a_process_of_the_host(c: Canaries) -> object:
    soft, hard = resource.prlimit(c["pid"], resource.RLIMIT_NOFILE)
    resource.prlimit(c["pid"], resource.RLIMIT_NOFILE, (soft, hard))
    return True


@rows("pidns", degraded=_NEEDS_PIDNS)
def learn_the_session_of_a_process_of_the_host(c: Canaries) -> object:
    return os.getsid(c["pid"]) >= 0


@rows("pidns", degraded=_NEEDS_PIDNS)
def open_a_descriptor_for_a_process_of_the_host(c: Canaries) -> object:
    return os.pidfd_open(c["pid"])


@rows("seccomp")
def ask_for_a_scheduling_class_of_its_own(_: Canaries) -> object:
    return call("sched_setscheduler", 0, 3, struct.pack("=i", 0)) == 0  # SCHED_BATCH


@rows("seccomp")
def become_a_real_time_process(_: Canaries) -> object:
    return try_call("sched_setscheduler", 0, 1, struct.pack("=i", 1))


@rows("seccomp")
def ask_for_a_deadline_of_its_own(_: Canaries) -> object:
    return try_call("sched_setattr", 0, struct.pack("=IIQiIQQQ", 48, 6, 0, 0, 0, 10**7, 10**9, 10**9), 0)


@rows("seccomp")
def run_before_everybody_else(_: Canaries) -> object:
    return try_call("setpriority", 0, 0, -5)


@rows("rlimits")
def raise_its_own_limit_on_descriptors(_: Canaries) -> object:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(300)]
    for fd in held:
        os.close(fd)
    return True


@rows("rlimits")
def leave_a_core_dump(c: Canaries) -> object:
    """Where core_pattern names a file, it comes to lie in the working directory; a program there would be run by root."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    os.chdir(c["data"])
    pid = os.fork()
    if pid == 0:
        os.abort()
    _, status = os.waitpid(pid, 0)
    for name in os.listdir("."):
        if name.startswith("core"):
            os.unlink(name)
    return os.WCOREDUMP(status)


@rows("seccomp", "userns")
def gain_capabilities_by_a_user_namespace(_: Canaries) -> object:
    become_root()
    return any(
        line.startswith(b"CapEff:") and int(line.split()[1], 16)
        for line in read("/proc/self/status").splitlines()
    )


@rows("seccomp", "userns")
def be_born_in_a_user_namespace(_: Canaries) -> object:
    pid = call("clone", CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return True


@rows("seccomp", "userns")
def be_born_in_a_user_namespace_by_clone3(_: Canaries) -> object:
    pid = call("clone3", struct.pack("=8Q", CLONE_NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0), 64)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return True


@rows("seccomp", "userns")
def set_a_clock_of_its_own_by_a_time_namespace(_: Canaries) -> object:
    become_root(0x80)
    return True


@rows("seccomp", "pidns", "userns", "landlock", needs=("namespaces",))
def join_namespaces_of_a_process_of_the_host_by_a_descriptor(c: Canaries) -> object:
    return call("setns", os.pidfd_open(c["namespace_pid"]), CLONE_NEWUSER) == 0


@rows("seccomp", "rootfs", "userns", "landlock", needs=("namespaces",))
def join_namespaces_of_a_process_of_the_host_by_proc(c: Canaries) -> object:
    place = os.open(f"/proc/{c['namespace_pid']}/ns/user", os.O_RDONLY)
    return call("setns", place, CLONE_NEWUSER) == 0


@rows("seccomp")
def switch_address_randomisation_off_for_itself(_: Canaries) -> object:
    return call("personality", 0x0040000) >= 0


@rows("start")
def find_secrets_of_the_runtime_in_the_environment(c: Canaries) -> object:
    return c["text"] in "".join(os.environ.values())


@rows("start")
def find_secrets_of_the_runtime_in_its_own_memory(c: Canaries) -> object:
    """What the process was before it became this program is gone. The pattern does not contain what it looks for."""
    pattern = re.compile(b"".join(b"[%c]" % code for code in c["leaked"]))
    with (
        open("/proc/self/maps", encoding="ascii") as maps,
        open("/proc/self/mem", "rb", buffering=0) as memory,
    ):
        for line in maps:
            span, access = line.split()[:2]
            first, last = (int(word, 16) for word in span.split("-"))
            if access.startswith("rw") and last - first < 64 << 20:
                with suppress(OSError, ValueError):
                    memory.seek(first)
                    if pattern.search(memory.read(last - first)):
                        return True
    return False


@rows("start", needs=("root",))
def be_the_user_root(_: Canaries) -> object:
    return 0 in os.getresuid()


@rows("start")
def stay_in_the_session_of_the_runtime(c: Canaries) -> object:
    return c["session"] == os.getsid(0)


@rows("utsns", degraded="a container's name is not the machine's; needs a name of its own")
def read_the_machines_name(c: Canaries) -> object:
    return os.uname().nodename == c["hostname"]


@rows("cgroupns", needs=("groups",))
def read_the_path_of_its_control_group(_: Canaries) -> object:
    return b"sandbox." in read("/proc/self/cgroup")


@rows("seccomp")
def name_the_machine(_: Canaries) -> object:
    return try_call("sethostname", b"attacked", 8)


@rows("seccomp")
def name_the_machines_domain(_: Canaries) -> object:
    return try_call("setdomainname", b"attacked", 8)


@rows("seccomp", "userns")
def change_root_as_root_of_its_own(_: Canaries) -> object:
    become_root()
    os.chroot("/tmp")
    return libc is not None
