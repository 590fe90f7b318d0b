"""Each layer by what a program inside can and cannot do, and again with that layer left out, to see the test can fail."""

import ctypes
import os
import socket
from pathlib import Path

import pytest

from sandbox import LAYERS, Mount

pytestmark = pytest.mark.kernel

USR = (Mount(source="/usr", target="/usr"),)

TRY = """
import errno
def attempt(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "done"
"""


def test_every_layer_is_enforced_and_read_back_with_the_defaults(python):
    done = python("")
    assert [(status.layer, status.state) for status in done.layers] == [
        (layer, "enforced") for layer in LAYERS
    ]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_left_out_on_purpose_is_reported_absent(shell, layer):
    # Without rlimits, which would hold the cap on processes in the place of a missing group.
    done = shell("true", mounts=USR, disable=frozenset({layer, "rlimits"}))
    assert {status.layer: status.state for status in done.layers}[layer] == "absent"


@pytest.mark.parametrize(("disable", "seen"), [((), "65533 1"), (("userns",), "4294967295")])
def test_the_user_namespace_knows_one_user_only(says, disable, seen):
    program = "import os; print(os.getuid(), open('/proc/self/uid_map').read().split()[2])"
    assert says(program, disable=frozenset(disable)).endswith(seen)


@pytest.mark.parametrize("disable", [(), ("userns",)])
def test_the_worker_is_a_user_of_this_machine_that_nobody_else_is(running, make_shell_spec, disable):
    with running(make_shell_spec("cat", disable=frozenset(disable))) as worker:
        status = Path(f"/proc/{worker.pid}/status").read_text().splitlines()
        ids = {word for line in status if line.startswith(("Uid:", "Gid:")) for word in line.split()[1:]}
    assert len(ids) == 1
    assert int(ids.pop()) >= 65536


def test_two_workers_at_once_are_two_users(running, make_shell_spec):
    with running(make_shell_spec("cat")) as one, running(make_shell_spec("cat")) as other:
        first, second = (Path(f"/proc/{worker.pid}/uid_map").read_text() for worker in (one, other))
    assert first != second


@pytest.mark.parametrize(("disable", "code"), [((), 1), (("rootfs",), 0), (("mountns",), 0)])
def test_a_file_of_the_host_does_not_exist_inside(shell, disable, code):
    assert shell("test -e /etc/shadow", mounts=USR, disable=frozenset(disable)).ended.code == code


@pytest.mark.parametrize(("disable", "seen"), [((), "ESRCH"), (("pidns",), "EPERM")])
def test_processes_of_the_host_do_not_exist_inside(says, disable, seen):
    program = TRY + "import os, sys; print(attempt(lambda: os.kill(int(sys.argv[1]), 0)))"
    assert says(program, str(os.getpid()), disable=frozenset(disable)) == seen


CONNECT = (
    TRY
    + "import socket, sys; print(attempt(lambda: socket.create_connection(('127.0.0.1', int(sys.argv[1])))))"
)


@pytest.mark.parametrize(
    ("disable", "seen"),
    [
        ((), "EAFNOSUPPORT"),
        (("seccomp",), "EACCES"),
        (("seccomp", "landlock"), "ECONNREFUSED"),
        (("seccomp", "landlock", "netns"), "done"),
    ],
)
def test_a_port_of_this_machine_is_behind_three_walls_each_of_which_holds_alone(
    says, listener, disable, seen
):
    port = str(listener.getsockname()[1])
    assert says(CONNECT, port, disable=frozenset(disable)) == seen


@pytest.mark.parametrize(("disable", "seen"), [(("seccomp",), "ENOENT"), (("seccomp", "ipcns"), "done")])
def test_shared_memory_of_the_host_does_not_exist_inside(says, disable, seen):
    libc = ctypes.CDLL(None, use_errno=True)
    key, create = 0x5A4D0001 + os.getpid(), 0o1000 | 0o666
    segment = libc.shmget(key, 4096, create)
    assert segment >= 0
    program = TRY + (
        "import ctypes, sys; libc = ctypes.CDLL(None, use_errno=True)\n"
        "def get():\n"
        "    if libc.shmget(int(sys.argv[1]), 4096, 0) < 0: raise OSError(ctypes.get_errno(), '')\n"
        "print(attempt(get))"
    )
    try:
        assert says(program, str(key), disable=frozenset(disable)) == seen
    finally:
        libc.shmctl(segment, 0, None)


def test_the_host_name_is_the_workers_own(says):
    program = "import socket; print(socket.gethostname())"
    assert says(program) == "test"
    assert says(program, disable=frozenset({"utsns"})) == socket.gethostname()


def test_the_control_group_is_the_root_of_what_the_worker_sees(says):
    program = (
        "print({line.strip().split(':')[2] for line in open('/proc/self/cgroup') if ':memory:' in line})"
    )
    assert says(program) == "{'/'}"
    assert "sandbox.tests" in says(program, disable=frozenset({"cgroupns"}))


STATUS = "print(dict(line.split(':') for line in open('/proc/self/status'))['{}'].strip())"


def test_no_exec_can_gain_privilege(says):
    assert says(STATUS.format("NoNewPrivs")) == "1"
    assert says(STATUS.format("NoNewPrivs"), disable=frozenset({"no-new-privs"})) == "0"


@pytest.mark.parametrize("name", ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
def test_no_linux_capability_is_left_in_any_set(says, name):
    assert int(says(STATUS.format(name)), 16) == 0


def test_without_the_capabilities_layer_the_bounding_set_is_full(says):
    assert int(says(STATUS.format("CapBnd"), disable=frozenset({"capabilities"})), 16) != 0


@pytest.mark.parametrize(("disable", "seen"), [((), "EMFILE"), (("rlimits",), "done")])
def test_open_files_are_capped(says, disable, seen):
    program = TRY + "print(attempt(lambda: [open('/dev/null') for _ in range(300)]))"
    assert says(program, disable=frozenset(disable)) == seen


@pytest.mark.parametrize(("disable", "seen"), [(("seccomp",), "EACCES"), (("seccomp", "landlock"), "done")])
def test_landlock_refuses_to_bind_a_port(says, disable, seen):
    program = TRY + "import socket; print(attempt(lambda: socket.socket().bind(('127.0.0.1', 0))))"
    assert says(program, disable=frozenset(disable)) == seen


@pytest.mark.parametrize(
    ("expression", "seen"),
    [
        ("open('/newfile', 'w')", "EROFS"),
        ("open('/usr/newfile', 'w')", "EROFS"),
        ("open('/etc/passwd', 'a')", "EACCES"),
        ("os.mknod('/tmp/disk', 0o60600, os.makedev(254, 0))", "EACCES"),
        ("os.chroot('/tmp')", "EPERM"),
        ("libc('sethostname', b'x', 1)", "EPERM"),
        ("libc('mount', b'tmpfs', b'/tmp', b'tmpfs', 0, None)", "EPERM"),
        ("libc('unshare', 0x10000000)", "EPERM"),
        ("libc('setns', 0, 0)", "EPERM"),
        ("libc('ptrace', 0, 0, 0, 0)", "EPERM"),
        ("libc('syscall', 425, 8, 0)", "ENOSYS"),
        ("libc('syscall', 435, 0, 0)", "ENOSYS"),
        ("libc('syscall', 999)", "ENOSYS"),
        ("libc('setpriority', 0, 0, -5)", "EPERM"),
        ("open('/proc/self/oom_score_adj', 'w')", "EROFS"),
        ("open('/proc/sys/kernel/hostname', 'w')", "EROFS"),
        ("os.listdir('/sys')", "ENOENT"),
        ("os.open('/dev/kvm', 2)", "ENOENT"),
        ("os.open('/proc/1/mem', 0)", "ENOENT"),
        ("open('/proc/1/cmdline').read()", "ENOENT"),
        ("os.sync()", "done"),
    ],
)  # fmt: skip
def test_what_a_hostile_program_tries_is_refused(says, expression, seen):
    program = TRY + (
        "import ctypes, os; c = ctypes.CDLL(None, use_errno=True)\n"
        "def libc(name, *arguments):\n"
        "    if getattr(c, name)(*arguments) < 0: raise OSError(ctypes.get_errno(), '')\n"
        f"print(attempt(lambda: {expression}))"
    )
    assert says(program) == seen


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm", "/data"])
def test_nothing_is_executed_from_a_writable_place(shell, tmp_path, place):
    script = f"cp /bin/true {place}/true && chmod 755 {place}/true && {place}/true"
    done = shell(script, data=str(tmp_path))
    assert done.ended.code == 126
    assert b"Permission denied" in done.stderr


def test_scratch_space_is_capped_by_bytes_and_by_inodes(says):
    fill = TRY + "print(attempt(lambda: open('/tmp/big', 'wb').write(bytes(80 << 20))))"
    assert says(fill) == "ENOSPC"
    many = TRY + "print(attempt(lambda: [open(f'/tmp/{n}', 'w').close() for n in range(5000)]))"
    assert says(many) == "ENOSPC"


def test_a_foreign_architecture_is_killed(python):
    # int 0x80 reaches the 32-bit table, which the filter must not let pass: 20 is getpid there.
    code = bytes.fromhex("b814000000cd80c3")
    program = (
        "import ctypes, mmap\n"
        f"code = {code!r}\n"
        "page = mmap.mmap(-1, 4096, prot=7); page.write(code)\n"
        "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()\n"
    )
    done = python(program)
    assert (done.ended.reason, done.ended.signal) == ("signalled", 31)


def test_a_terminal_cannot_be_typed_into_even_with_high_bits_set(says):
    program = TRY + (
        "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
        "def ioctl(request):\n"
        "    if c.syscall(16, 0, ctypes.c_ulong(request), b'x') < 0: raise OSError(ctypes.get_errno(), '')\n"
        "print(attempt(lambda: ioctl(0x5412)), attempt(lambda: ioctl(0x1_0000_5412)), attempt(lambda: ioctl(0x5401)))"
    )
    assert says(program) == "EPERM EPERM ENOTTY"
