"""Attacks on files: what is the machine's, another tenant's, or not meant to run."""

import ctypes
import errno
import fcntl
import os
import socket
import stat
import struct
from contextlib import suppress

from attacks.attack import Canaries, Reached, Rows
from attacks.hostile import AT_FDCWD, call, in_child, open_privileged, read, there, touch_kernel

rows = Rows("files")

ROOT_ONLY_SEES = (
    "a path can be looked up: Landlock rules over opening, not over names; needs a root of its own"
)


@rows("rootfs", "landlock")
def read_a_file_of_the_host_by_its_path(c: Canaries) -> object:
    return read(c["secret"]) == c["text"].encode()


@rows("rootfs", "landlock")
def read_another_tenants_data_by_its_path(c: Canaries) -> object:
    return read(c["neighbour"])


@rows("rootfs", degraded=ROOT_ONLY_SEES)
def learn_whether_a_file_of_the_host_exists(c: Canaries) -> object:
    return there(c["secret"])


@rows("rootfs", degraded=ROOT_ONLY_SEES, needs=("path:/etc/shadow",))
def find_the_shadow_file(_: Canaries) -> object:
    return open_privileged("/etc/shadow", os.O_RDONLY)


@rows("rootfs", degraded=ROOT_ONLY_SEES)
def find_the_home_of_root(_: Canaries) -> object:
    return open_privileged("/root", os.O_RDONLY)


@rows("rootfs", "landlock")
def read_the_hosts_list_of_users(c: Canaries) -> object:
    return c["passwd"].encode() in read("/etc/passwd")


@rows("rootfs", "landlock")
def list_the_hosts_root(c: Canaries) -> object:
    return set(c["root_names"]) <= set(os.listdir("/"))


@rows("rootfs", "landlock")
def create_a_file_on_the_host(c: Canaries) -> object:
    with open(f"{c['folder']}/made", "w", encoding="ascii") as file:
        file.write("x")
    os.unlink(f"{c['folder']}/made")
    return True


@rows("rootfs", "landlock")
def append_to_a_file_of_the_host(c: Canaries) -> object:
    with open(c["writable"], "ab") as file:
        return file.write(b"x")


@rows("rootfs", "landlock:3", "seccomp")
def truncate_a_file_of_the_host(c: Canaries) -> object:
    os.truncate(c["writable"], 0)
    return True


@rows("rootfs", "landlock")
def rename_a_file_of_the_host(c: Canaries) -> object:
    os.rename(c["writable"], c["writable"] + "-taken")
    os.rename(c["writable"] + "-taken", c["writable"])
    return True


@rows("rootfs", "landlock")
def delete_a_file_of_the_host(c: Canaries) -> object:
    os.unlink(c["deletable"])
    return True


@rows("rootfs", "seccomp")
def change_the_mode_of_a_file_of_the_host(c: Canaries) -> object:
    os.chmod(c["writable"], 0o666)
    return True


@rows("rootfs", "seccomp")
def set_the_times_of_a_file_of_the_host(c: Canaries) -> object:
    os.utime(c["writable"], (1, 1))
    return True


@rows("rootfs", "seccomp")
def set_an_extended_attribute_of_a_file_of_the_host(c: Canaries) -> object:
    try:
        os.setxattr(c["writable"], "user.attack", b"x")
    except OSError as error:
        # A file system without such attributes: it was found and asked all the same.
        return error.errno == errno.ENOTSUP
    return True


@rows("rootfs", "seccomp")
def watch_a_directory_of_the_host(c: Canaries) -> object:
    watcher = call("inotify_init1", 0)
    return call("inotify_add_watch", watcher, c["folder"].encode(), 0x100) >= 0


@rows("rootfs", "landlock")
def climb_out_by_dots(c: Canaries) -> object:
    return read("../" * 40 + c["secret"].lstrip("/"))


@rows("rootfs", "landlock")
def climb_out_by_the_root_link_of_proc(c: Canaries) -> object:
    return read(f"/proc/self/root/../../..{c['secret']}")


@rows("rootfs", "landlock")
def climb_out_by_the_cwd_link_of_proc(c: Canaries) -> object:
    return read("/proc/self/cwd/" + "../" * 20 + c["secret"].lstrip("/"))


@rows("rootfs", "landlock")
def climb_out_of_a_second_root(c: Canaries) -> object:
    """The old escape: keep a directory open, change root below it, walk up from the kept one."""
    jail = f"/tmp/{c['marker']}-jail"
    kept = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    with suppress(OSError):
        os.mkdir(jail)
        os.chroot(jail)
    os.fchdir(kept)
    for _ in range(40):
        os.chdir("..")
    with suppress(OSError):
        os.rmdir(jail)
    return read("." + c["secret"])


@rows("start")
def open_through_a_directory_left_open_by_the_spawner(c: Canaries) -> object:
    for fd in range(3, 1024):
        with suppress(OSError):
            place = os.open("../" * 30 + c["secret"].lstrip("/"), os.O_RDONLY, dir_fd=fd)
            return os.read(place, 100)
    return False


@rows("start")
def find_any_descriptor_left_open(_: Canaries) -> object:
    """Pipes excepted: the agent itself has made some."""
    found = []
    for fd in range(3, 1024):
        with suppress(OSError):
            if not stat.S_ISFIFO(os.fstat(fd).st_mode):
                found.append(fd)
    return found


@rows("rootfs", "landlock")
def follow_a_link_planted_in_the_data_directory(c: Canaries) -> object:
    link = f"{c['data']}/planted"
    with suppress(FileExistsError):
        os.symlink(c["secret"], link)
    try:
        return read(link)
    finally:
        os.unlink(link)


@rows("rootfs", "landlock")
def hard_link_a_file_of_the_host_into_the_data_directory(c: Canaries) -> object:
    os.link(c["secret"], f"{c['data']}/linked")
    os.unlink(f"{c['data']}/linked")
    return True


@rows("landlock", "seccomp")
def make_a_device_node(c: Canaries) -> object:
    path = f"{c['data']}/node"
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError as error:
        # Landlock says EACCES; EPERM is the kernel asking for CAP_MKNOD, after every wall (mknod(2)).
        if error.errno == errno.EPERM:
            raise Reached("devices are the kernel's to refuse") from None
        raise
    os.unlink(path)
    return True


@rows("rootfs", needs=("device-node",), degraded="needs a mount that makes nothing of device nodes")
def use_a_device_node_that_lies_in_the_data_directory(c: Canaries) -> object:
    return read(f"{c['data']}/zero", 4) == bytes(4)


def _runs(path: str, *arguments: str) -> bool:
    def become() -> bool:
        os.dup2(os.open("/dev/null", os.O_RDWR), 1)
        # By its own name, for a program that is many is told by that which to be.
        os.execv(path, ["true", *arguments])
        return False

    return in_child(become)


def _run_a_copy(c: Canaries, folder: str) -> object:
    path = f"{folder}/{c['marker']}-copied"
    with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o755), "wb") as file:
        file.write(read("/usr/bin/true", 1 << 22))
    try:
        return _runs(path)
    finally:
        os.unlink(path)


@rows("rootfs", "landlock")
def run_a_program_from_tmp(c: Canaries) -> object:
    return _run_a_copy(c, "/tmp")


@rows("rootfs", "landlock")
def run_a_program_from_shared_memory(c: Canaries) -> object:
    return _run_a_copy(c, "/dev/shm")


@rows("rootfs", "landlock")
def run_a_program_from_the_data_directory(c: Canaries) -> object:
    return _run_a_copy(c, c["data"])


@rows("rootfs", degraded="mapping a file executable is not Landlock's; needs a mount without execution")
def run_a_program_from_the_data_directory_by_the_loader(c: Canaries) -> object:
    """The loader is a program of the system; it maps the other one executable, which such a mount refuses."""
    path = f"{c['data']}/loaded"
    with open(path, "wb") as file:
        file.write(read(c["python"], 1 << 25))
    try:
        return _runs(c["loader"], path, "-I", "-S", "-c", "pass")
    finally:
        os.unlink(path)


@rows(accepted="an interpreter that is there anyway runs whatever it is given; memory is not more than that")
def run_a_program_from_memory(_: Canaries) -> object:
    fd = os.memfd_create("program")
    os.write(fd, read("/usr/bin/true", 1 << 22))

    def become() -> bool:
        os.execve(fd, ["true"], {})
        return False

    return in_child(become)


@rows(accepted="a lock on a file that two workers can read tells them one bit; so do caches and load")
def signal_another_worker_by_a_lock_on_a_shared_file(_: Canaries) -> object:
    with open("/usr/bin/true", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True


def _effective(path: str) -> bytes:
    answer, end = os.pipe()

    def become() -> bool:
        os.dup2(end, 1)
        os.execv(path, [path, "-I", "-S", "-c", "print(open('/proc/self/status').read(), flush=True)"])
        return False

    in_child(become)
    os.close(end)
    return os.read(answer, 65536)


@rows("no-new-privs", "rootfs", "userns", needs=("suid",))
def gain_a_user_by_a_set_user_id_program(c: Canaries) -> object:
    lines = _effective(f"{c['exhibits']}/suid").decode().splitlines()
    return any(line.startswith("Uid:") and line.split()[2] == "0" for line in lines)


@rows("no-new-privs", "rootfs", "capabilities", needs=("suid",))
def gain_a_capability_by_a_file_that_carries_it(c: Canaries) -> object:
    lines = _effective(f"{c['exhibits']}/capable").decode().splitlines()
    return any(line.startswith("CapEff:") and int(line.split()[1], 16) for line in lines)


@rows("rootfs", "landlock")
def overwrite_the_program_that_the_host_will_run_again(c: Canaries) -> object:
    """As in CVE-2019-5736: the host's own program is open as /proc/self/exe of whoever it started."""
    with open(f"{c['exhibits']}/tool", "r+b") as file:
        return file.write(b"#!")


@rows("rootfs", "landlock")
def read_what_sysfs_says_about_the_machine(_: Canaries) -> object:
    return read("/sys/kernel/uevent_seqnum")


@rows("rootfs", "landlock", needs=("group",))
def leave_the_control_group_by_its_files(c: Canaries) -> object:
    def move() -> bool:
        with open(c["group"], "w", encoding="ascii") as file:
            file.write("0")
        return True

    return in_child(move) or read(c["group"]) is None


@rows("rootfs")
def point_core_dumps_at_a_program(_: Canaries) -> object:
    return open_privileged("/proc/sys/kernel/core_pattern", os.O_WRONLY)


@rows("rootfs")
def switch_address_randomisation_off(_: Canaries) -> object:
    return open_privileged("/proc/sys/kernel/randomize_va_space", os.O_WRONLY)


@rows("rootfs")
def make_the_machine_forget_its_caches(_: Canaries) -> object:
    return open_privileged("/proc/sys/vm/drop_caches", os.O_WRONLY)


@rows("rootfs", needs=("path:/proc/sysrq-trigger",))
def reboot_by_sysrq(_: Canaries) -> object:
    return open_privileged("/proc/sysrq-trigger", os.O_WRONLY)


@rows("rootfs", needs=("path:/sys/kernel/uevent_helper",))
def have_a_program_run_by_kernel_events(_: Canaries) -> object:
    return open_privileged("/sys/kernel/uevent_helper", os.O_WRONLY)


@rows("rootfs", "landlock", needs=("read:/proc/kallsyms",))
def read_the_kernels_symbols(_: Canaries) -> object:
    return read("/proc/kallsyms", 100)


@rows("rootfs", "landlock", needs=("read:/proc/keys",))
def read_the_list_of_keys(_: Canaries) -> object:
    with open("/proc/keys", "rb") as file:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


@rows("rootfs", degraded=ROOT_ONLY_SEES, needs=("path:/proc/timer_list",))
def find_the_kernels_timers(_: Canaries) -> object:
    found = os.stat("/proc/timer_list")
    return open_privileged("/proc/timer_list", os.O_RDONLY) if stat.S_ISREG(found.st_mode) else False


@rows("rootfs", degraded=ROOT_ONLY_SEES, needs=("path:/dev/kvm",))
def find_the_virtual_machine_device(_: Canaries) -> object:
    return open_privileged("/dev/kvm", os.O_RDWR)


@rows("rootfs", needs=("disk",))
def find_a_disk(c: Canaries) -> object:
    return open_privileged(c["disk"], os.O_RDONLY)


@rows("rootfs", needs=("path:/dev/kmsg",))
def find_the_kernels_log(_: Canaries) -> object:
    return open_privileged("/dev/kmsg", os.O_RDONLY)


@rows("rootfs", needs=("path:/dev/fuse",))
def find_the_device_of_user_file_systems(_: Canaries) -> object:
    return open_privileged("/dev/fuse", os.O_RDWR)


@rows("rootfs", needs=("path:/dev/net/tun",))
def find_the_device_of_network_tunnels(_: Canaries) -> object:
    return open_privileged("/dev/net/tun", os.O_RDWR)


@rows("rootfs", needs=("path:/dev/vsock",))
def find_the_hypervisors_socket_device(_: Canaries) -> object:
    return open_privileged("/dev/vsock", os.O_RDWR)


@rows("rootfs", "seccomp")
def connect_to_a_socket_of_the_host_by_its_path(c: Canaries) -> object:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(c["unix"])
        return True


@rows("rootfs", "seccomp")
def be_handed_a_descriptor_over_a_socket(c: Canaries) -> object:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(3)
        client.connect(c["unix"])
        _, descriptors, _, _ = socket.recv_fds(client, 100, 1)
        return os.read(descriptors[0], 100)


@rows("seccomp")
def name_a_file_by_a_handle(_: Canaries) -> object:
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 136)
    return (
        call("name_to_handle_at", AT_FDCWD, b"/usr/bin/true", handle, ctypes.create_string_buffer(8), 0) == 0
    )


@rows("seccomp")
def open_a_file_by_a_guessed_handle(_: Canaries) -> object:
    """The escape called shocker: handles know no root and no mount."""
    touch_kernel("open_by_handle_at", 0, b"", 0)
    return False


@rows("rootfs", "landlock")
def fill_tmp_by_bytes(c: Canaries) -> object:
    return _fill(c, "/tmp", files=3, size=40 << 20)


@rows("rootfs", "landlock")
def fill_tmp_by_files(c: Canaries) -> object:
    return _fill(c, "/tmp", files=4500, size=0)


@rows("rootfs", "landlock")
def fill_shared_memory_by_bytes(c: Canaries) -> object:
    return _fill(c, "/dev/shm", files=3, size=40 << 20)


@rows("rootfs", "landlock")
def fill_shared_memory_by_files(c: Canaries) -> object:
    return _fill(c, "/dev/shm", files=4500, size=0)


def _fill(c: Canaries, place: str, *, files: int, size: int) -> bool:
    folder = f"{place}/{c['marker']}-filled"
    os.mkdir(folder)
    try:
        for number in range(files):
            fd = os.open(f"{folder}/{number}", os.O_CREAT | os.O_WRONLY)
            try:
                if size:
                    os.posix_fallocate(fd, 0, size)
            finally:
                os.close(fd)
        return True
    finally:
        for name in os.listdir(folder):
            os.unlink(f"{folder}/{name}")
        os.rmdir(folder)
