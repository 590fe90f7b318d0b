"""Attacks on the kernel's surface: calls that no such server needs and that exploits need often."""

import ctypes
import errno
import fcntl
import mmap
import os
import struct
import termios

from attacks.attack import Canaries, Rows
from attacks.hostile import (
    AT_FDCWD,
    CLONE_NEWCGROUP,
    CLONE_NEWNS,
    become_root,
    call,
    in_child,
    touch_kernel,
    try_call,
)

rows = Rows("kernel")

_INTEL = ("machine:x86_64",)


@rows("seccomp")
def set_up_a_ring_of_requests(_: Canaries) -> object:
    return try_call("io_uring_setup", 4, ctypes.create_string_buffer(120))


@rows("seccomp")
def enter_a_ring_of_requests(_: Canaries) -> object:
    return try_call("io_uring_enter", -1, 0, 0, 0, 0, 0)


@rows("seccomp")
def register_with_a_ring_of_requests(_: Canaries) -> object:
    return try_call("io_uring_register", -1, 0, 0, 0)


@rows("seccomp")
def set_up_the_old_kind_of_asynchronous_input(_: Canaries) -> object:
    return try_call("io_setup", 1, ctypes.create_string_buffer(8))


@rows("seccomp")
def load_a_program_into_the_kernel(_: Canaries) -> object:
    return try_call("bpf", 0, struct.pack("=4I", 2, 4, 4, 1) + bytes(112), 128)


@rows("seccomp")
def handle_page_faults_itself(_: Canaries) -> object:
    return try_call("userfaultfd", 1)


@rows("seccomp")
def count_events_of_the_processor(_: Canaries) -> object:
    attributes = struct.pack("=IIQ", 1, 128, 1) + bytes(24) + struct.pack("=Q", 0b1100000) + bytes(80)
    return try_call("perf_event_open", attributes, 0, -1, -1, 0)


@rows("seccomp")
def add_a_key_to_the_kernels_rings(_: Canaries) -> object:
    return try_call("add_key", b"user", b"attack", b"x", 1, -2)


@rows("seccomp")
def request_a_key_from_the_kernels_rings(_: Canaries) -> object:
    return try_call("request_key", b"user", b"attack", 0, -2)


@rows("seccomp")
def control_the_kernels_rings_of_keys(_: Canaries) -> object:
    return try_call("keyctl", 0, -2, 1)


def _mount(c: Canaries, kind: bytes) -> bool:
    become_root(CLONE_NEWNS | CLONE_NEWCGROUP)
    return call("mount", b"attack", c["tmp"].encode(), kind, 0, 0) == 0


@rows("seccomp", "userns", "landlock")
def mount_a_file_system(c: Canaries) -> object:
    return _mount(c, b"tmpfs")


@rows("seccomp", "userns", "landlock", needs=("groups-mount",))
def mount_the_control_groups(c: Canaries) -> object:
    """The way to release_agent, by which a program is run on the machine (CVE-2022-0492)."""
    return _mount(c, b"cgroup2")


@rows("seccomp", "userns", "landlock", needs=("kernel:6.7",))
def mount_the_table_of_program_formats(c: Canaries) -> object:
    return _mount(c, b"binfmt_misc")


@rows("seccomp", "userns", "landlock", needs=("filesystem:overlay",))
def mount_one_directory_over_another(c: Canaries) -> object:
    """Overlay mounts by users: CVE-2021-3493, CVE-2023-0386."""
    become_root(CLONE_NEWNS)
    options = b"lowerdir=/usr/bin:/usr/lib"
    return call("mount", b"attack", c["tmp"].encode(), b"overlay", 0, options) == 0


@rows("seccomp", "userns", "landlock")
def bind_one_directory_to_another(c: Canaries) -> object:
    become_root(CLONE_NEWNS)
    return call("mount", b"/usr/bin", c["tmp"].encode(), 0, 4096 | 16384, 0) == 0


@rows("seccomp", "userns", "landlock")
def take_a_mount_off(c: Canaries) -> object:
    become_root(CLONE_NEWNS)
    if call("mount", b"attack", c["tmp"].encode(), b"tmpfs", 0, 0):
        return False
    return call("umount2", c["tmp"].encode(), 2) == 0


@rows("seccomp", "userns", "landlock")
def change_how_mounts_spread(_: Canaries) -> object:
    become_root(CLONE_NEWNS)
    return call("mount", 0, b"/", 0, (1 << 18) | 16384, 0) == 0


@rows("seccomp", "userns", "landlock")
def turn_the_root_around(c: Canaries) -> object:
    become_root(CLONE_NEWNS)
    call("mount", b"attack", c["tmp"].encode(), b"tmpfs", 0, 0)
    os.chdir(c["tmp"])
    return call("pivot_root", b".", b".") == 0


@rows("seccomp", "userns")
def open_a_file_system_by_the_new_calls(_: Canaries) -> object:
    become_root(CLONE_NEWNS)
    place = call("fsopen", b"tmpfs", 0)
    call("fsconfig", place, 6, 0, 0, 0)
    return call("fsmount", place, 0, 0) >= 0


@rows("seccomp", "userns")
def open_an_existing_mount_by_the_new_calls(_: Canaries) -> object:
    become_root(CLONE_NEWNS)
    return call("open_tree", AT_FDCWD, b"/usr", 1 | 0x8000) >= 0


@rows("seccomp", "userns", "landlock")
def move_a_mount_by_the_new_calls(c: Canaries) -> object:
    become_root(CLONE_NEWNS)
    tree = call("open_tree", AT_FDCWD, b"/usr", 1 | 0x8000)
    return call("move_mount", tree, b"", AT_FDCWD, c["tmp"].encode(), 4) == 0


@rows("seccomp", "userns")
def set_attributes_of_mounts(_: Canaries) -> object:
    become_root(CLONE_NEWNS)
    return call("mount_setattr", AT_FDCWD, b"/", 0x8000, struct.pack("=4Q", 1, 0, 0, 0), 32) == 0


@rows("seccomp")
def pick_a_file_system_to_reconfigure(_: Canaries) -> object:
    return try_call("fspick", AT_FDCWD, b"/", 0)


@rows("seccomp", needs=("kernel:6.8",))
def ask_about_a_mount_by_its_number(_: Canaries) -> object:
    return try_call(
        "statmount", struct.pack("=IIQQQ", 32, 0, 1, 1, 0), ctypes.create_string_buffer(1024), 1024, 0
    )


@rows("seccomp", needs=("kernel:6.8",))
def list_mounts_by_number(_: Canaries) -> object:
    request = struct.pack("=IIQQQ", 32, 0, 0xFFFFFFFFFFFFFFFF, 0, 0)
    return try_call("listmount", request, ctypes.create_string_buffer(1024), 128, 0)


@rows("seccomp")
def join_a_namespace(_: Canaries) -> object:
    place = os.open("/proc/self/ns/net", os.O_RDONLY) if os.path.exists("/proc/self/ns/net") else -1
    return try_call("setns", place, 0)


def _privileged(title: str, name: str, *arguments: object) -> None:
    """An attack by a call that the kernel refuses to users; it is not made, lest it ever works."""

    def program(_: Canaries) -> object:
        touch_kernel(name, *arguments)
        return False

    program.__name__ = title
    rows("seccomp")(program)


_privileged("put_a_module_into_the_kernel", "init_module", b"", 0, b"")
_privileged("put_a_module_file_into_the_kernel", "finit_module", -1, b"", 0)
_privileged("take_a_module_out_of_the_kernel", "delete_module", b"none", 0)
_privileged("start_another_kernel", "kexec_load", 0, 0, 0, 0)
_privileged("start_another_kernel_from_a_file", "kexec_file_load", -1, -1, 0, b"", 0)
_privileged("restart_the_machine", "reboot", 0, 0, 0, 0)
_privileged("add_swap_space", "swapon", b"/none", 0)
_privileged("take_swap_space_away", "swapoff", b"/none")
_privileged("set_the_machines_time", "settimeofday", 0, 0)
_privileged("set_a_clock_of_the_machine", "clock_settime", 0, 0)
_privileged("steer_a_clock_of_the_machine", "clock_adjtime", 0, 0)
_privileged("steer_the_machines_time", "adjtimex", 0)
_privileged("switch_accounting_of_processes", "acct", 0)
_privileged("hang_a_terminal_up", "vhangup")
_privileged("look_a_directory_cookie_up", "lookup_dcookie", 0, 0, 0)
_privileged("read_the_kernels_log_by_its_call", "syslog", 10, 0, 0)
_privileged("mark_a_file_system_to_be_watched", "fanotify_mark", -1, 0, 0, 0, 0)
_privileged("move_pages_of_a_process_between_nodes", "migrate_pages", 0, 0, 0, 0)
_privileged("reap_the_memory_of_a_dying_process", "process_mrelease", -1, 0)


@rows("seccomp", needs=_INTEL)
def change_the_level_of_input_and_output(_: Canaries) -> object:
    return try_call("iopl", 0)


@rows("seccomp", needs=_INTEL)
def ask_for_ports_of_the_hardware(_: Canaries) -> object:
    return try_call("ioperm", 0, 1, 0)


@rows("seccomp", needs=_INTEL)
def write_a_segment_descriptor(_: Canaries) -> object:
    return try_call("modify_ldt", 0x11, struct.pack("=4I", 0, 0, 0, 0b101000), 16)


@rows("seccomp", needs=_INTEL)
def load_a_library_by_the_oldest_call(_: Canaries) -> object:
    return try_call("uselib", b"/none")


@rows("seccomp", needs=_INTEL)
def ask_about_a_file_system_by_its_device(_: Canaries) -> object:
    return try_call("ustat", os.stat("/usr").st_dev, ctypes.create_string_buffer(64))


@rows("seccomp", needs=_INTEL)
def ask_which_file_systems_there_are(_: Canaries) -> object:
    return try_call("sysfs", 3, 0, 0)


@rows("seccomp")
def change_a_quota(_: Canaries) -> object:
    return try_call("quotactl", (1 << 31) >> 8 << 8, 0, 0, 0)


@rows("seccomp")
def change_a_quota_by_a_descriptor(_: Canaries) -> object:
    return try_call("quotactl_fd", -1, 0, 0, 0)


@rows("seccomp")
def watch_whole_file_systems(_: Canaries) -> object:
    return try_call("fanotify_init", 0x200, 0)


@rows("seccomp")
def hide_memory_from_the_kernel(_: Canaries) -> object:
    return try_call("memfd_secret", 0)


@rows("seccomp")
def map_pages_into_a_pipe(_: Canaries) -> object:
    """vmsplice: where CVE-2008-0600 and Dirty Pipe's relatives begin."""
    _, end = os.pipe()
    page = ctypes.create_string_buffer(4096)
    return try_call("vmsplice", end, struct.pack("=QQ", ctypes.addressof(page), 16), 1, 0)


@rows("seccomp")
def bind_memory_to_a_node(_: Canaries) -> object:
    return try_call("mbind", 0, 0, 0, 0, 0, 0)


@rows("seccomp")
def choose_where_memory_comes_from(_: Canaries) -> object:
    return try_call("set_mempolicy", 0, 0, 0)


@rows("seccomp")
def ask_where_memory_comes_from(_: Canaries) -> object:
    return try_call("get_mempolicy", 0, 0, 0, 0, 0)


@rows("seccomp")
def move_pages_between_nodes(_: Canaries) -> object:
    return try_call("move_pages", 0, 0, 0, 0, 0, 0)


@rows("seccomp", needs=("kernel:6.8",))
def list_the_security_modules(_: Canaries) -> object:
    return try_call("lsm_list_modules", ctypes.create_string_buffer(256), struct.pack("=I", 256), 0)


@rows("seccomp")
def make_shared_memory_of_the_old_kind(_: Canaries) -> object:
    segment = call("shmget", 0, 4096, 0o1600)
    return call("shmctl", segment, 0, 0) == 0


@rows("seccomp", "ipcns", needs=("sysv",))
def attach_shared_memory_of_the_host(c: Canaries) -> object:
    return call("shmget", c["ipc"], 0, 0) >= 0


@rows("seccomp", "ipcns", needs=("sysv",))
def open_a_message_queue_of_the_host(c: Canaries) -> object:
    return call("msgget", c["ipc"], 0) >= 0


@rows("seccomp", "ipcns", needs=("sysv",))
def open_semaphores_of_the_host(c: Canaries) -> object:
    return call("semget", c["ipc"], 0, 0) >= 0


@rows("seccomp", "ipcns", "landlock", needs=("mqueue",))
def open_a_named_message_queue_of_the_host(c: Canaries) -> object:
    return call("mq_open", c["queue"].encode(), os.O_RDONLY, 0, 0) >= 0


@rows("seccomp", "rlimits", "landlock")
def make_a_named_message_queue(_: Canaries) -> object:
    name = f"attack-{os.getpid()}".encode()
    call("mq_open", name, os.O_CREAT | os.O_RDWR, 0o600, 0)
    return call("mq_unlink", name) == 0


@rows("seccomp")
def synchronise_every_file_system(_: Canaries) -> object:
    """Writes back all disks of the machine, for everybody; answered as done without being done."""
    try:
        touch_kernel("sync")
    except AssertionError:
        return False
    return True


def _machine_code(code: bytes) -> int:
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()


@rows("seccomp", needs=("ia32",))
def call_the_kernel_by_its_32_bit_table(_: Canaries) -> object:
    """int 0x80 with 20, getpid there; a filter that looks at numbers only would take it for writev."""
    return in_child(lambda: _machine_code(bytes.fromhex("b814000000cd80c3")) == os.getpid())


@rows("seccomp", needs=_INTEL)
def call_the_kernel_by_its_x32_numbers(_: Canaries) -> object:
    """Numbers with bit 30 set. Without a filter the kernel answers: with the call's result, or that it has none."""

    def ask() -> bool:
        try:
            return call(0x40000000 + 39) > 0
        except OSError as error:
            return error.errno == errno.ENOSYS

    return in_child(ask)


def _open_terminal(c: Canaries) -> tuple[int, int]:
    """A new terminal, from a file system of terminals of its own: the machine's may be out of reach for any worker."""
    become_root(CLONE_NEWNS)
    call("mount", b"attack", c["tmp"].encode(), b"devpts", 0, b"newinstance,ptmxmode=0666,mode=0666")
    master = os.open(f"{c['tmp']}/ptmx", os.O_RDWR | os.O_NOCTTY)
    number = ctypes.create_string_buffer(4)
    call("ioctl", master, 0x40045431, bytes(4))  # TIOCSPTLCK, unlock
    call("ioctl", master, 0x80045430, number)  # TIOCGPTN
    return master, os.open(f"{c['tmp']}/{struct.unpack('=i', number.raw)[0]}", os.O_RDWR | os.O_NOCTTY)


def _type_into_terminal(c: Canaries, request: int) -> bool:
    master, slave = _open_terminal(c)

    def type_it() -> bool:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for letter in b"x\n":
            call("ioctl", slave, ctypes.c_ulong(request), bytes([letter]))
        return os.read(slave, 10) == b"x\n"

    return in_child(type_it) and master >= 0


@rows("seccomp", "userns", "landlock")
def open_a_new_terminal(c: Canaries) -> object:
    return _open_terminal(c)


@rows("seccomp", "userns", "landlock", needs=("tiocsti",))
def type_into_a_terminal(c: Canaries) -> object:
    return _type_into_terminal(c, termios.TIOCSTI)


@rows("seccomp", "userns", "landlock", needs=("tiocsti",))
def type_into_a_terminal_with_high_bits_set(c: Canaries) -> object:
    """The kernel looks at 32 bits of the request (CVE-2017-5226, and CVE-2019-10063 for the filter against it)."""
    return _type_into_terminal(c, (1 << 32) | termios.TIOCSTI)


@rows("seccomp")
def pass_typing_off_as_another_request(_: Canaries) -> object:
    """Without any terminal: does the request get as far as being asked for one?"""
    try:
        return call("ioctl", 0, ctypes.c_ulong((1 << 32) | termios.TIOCSTI), b"x") >= 0
    except OSError as error:
        return error.errno == errno.ENOTTY


@rows("seccomp")
def paste_into_a_console(_: Canaries) -> object:
    try:
        return call("ioctl", 0, 0x541C, b"\x03") >= 0
    except OSError as error:
        return error.errno in {errno.ENOTTY, errno.EINVAL}


@rows("seccomp")
def change_tracing_of_itself(_: Canaries) -> object:
    return try_call("ptrace", 0, 0, 0, 0)


@rows("seccomp", needs=("kernel:6.8",))
def set_a_label_of_a_security_module(_: Canaries) -> object:
    return try_call("lsm_set_self_attr", 100, 0, 0, 0)
