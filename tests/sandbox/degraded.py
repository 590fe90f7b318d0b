"""Run in a stock container as an ordinary user: `python degraded.py PACKAGES`. Prints what attackers saw, as JSON.

Everything here, the victims and the workers, is one user. Each attack is made under all that holds there, and again with
one layer left out.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from sandbox import Limits, Mount, SandboxSpec, Spawner, run

ATTACK = """
import ctypes, fcntl, json, os, resource, signal, socket, sys
victim, folder, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
libc = ctypes.CDLL(None, use_errno=True)
def connected(family, address):
    with socket.socket(family) as s: s.connect(address)
def from_pair():
    ours, _ = socket.socketpair(type=socket.SOCK_DGRAM)
    ours.sendto(b"x", folder + "/datagrams")
def watch():
    if libc.inotify_add_watch(libc.inotify_init1(0), folder.encode(), 0x100) < 0: raise OSError(ctypes.get_errno(), "")
def flags():
    fd = os.open(folder + "/granted", os.O_RDONLY)
    fcntl.ioctl(fd, 0x40086602, (0x40).to_bytes(8, "little"))  # FS_IOC_SETFLAGS, FS_NODUMP_FL
def lease():
    fcntl.fcntl(os.open(folder + "/granted", os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)
def attempt(what):
    try:
        what()
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    return "done"
print(json.dumps({
    "environ": attempt(lambda: open(f"/proc/{victim}/environ").read()),
    "memory": attempt(lambda: open(f"/proc/{victim}/mem", "rb+")),
    "descriptors": attempt(lambda: os.listdir(f"/proc/{victim}/fd")),
    "spawner": attempt(lambda: open(f"/proc/{os.getppid()}/environ").read()),
    "signal": attempt(lambda: os.kill(victim, 0)),
    "signal init": attempt(lambda: os.kill(os.getppid(), 0)),
    "limits": attempt(lambda: resource.prlimit(victim, resource.RLIMIT_NOFILE, (64, 64))),
    "processors": attempt(lambda: os.sched_setaffinity(victim, {0})),
    "read": attempt(lambda: open(folder + "/secret").read()),
    "write": attempt(lambda: open(folder + "/new", "w")),
    "cut": attempt(lambda: os.truncate(folder + "/secret", 0)),
    "mode": attempt(lambda: os.chmod(folder + "/secret", 0o666)),
    "times": attempt(lambda: os.utime(folder + "/secret", (0, 0))),
    "attribute": attempt(lambda: os.setxattr(folder + "/secret", "user.x", b"x")),
    "watch": attempt(watch),
    "flags": attempt(flags),
    "lease": attempt(lease),
    "path socket": attempt(lambda: connected(socket.AF_UNIX, folder + "/socket")),
    "abstract socket": attempt(lambda: connected(socket.AF_UNIX, f"\\0degraded-{victim}")),
    "datagram": attempt(from_pair),
    "port": attempt(lambda: connected(socket.AF_INET, ("127.0.0.1", port))),
    "users": attempt(lambda: open("/etc/passwd").read()),
    "linker": attempt(lambda: open("/etc/ld.so.cache", "rb").read()),
    "own limits": attempt(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))),
    "pair": attempt(lambda: socket.socketpair()),
    "threads": attempt(lambda: __import__("threading").Thread(target=print).start()),
}))
"""


BOMB = """
import os, time
count = 0
try:
    while count < 500:
        if not os.fork(): time.sleep(1000)
        count += 1
except BlockingIOError: pass
print(count)
"""


def bomb(spawner: Spawner) -> int:
    argv = ("/usr/bin/python3", "-I", "-S", "-c", BOMB)
    mounts = (Mount(source="/usr", target="/usr"),)
    spec = SandboxSpec(name="bomb", argv=argv, mounts=mounts, limits=Limits(pids=32), cwd="/")
    count = int(run(spec, spawner=spawner).stdout)
    subprocess.run(
        ["/bin/true"], check=True
    )  # what is left of the user's processes is not the worker's to take
    return count


def main() -> None:
    # The one whose environment, memory and limits are worth something: unlike the runtime it can be looked at.
    victim = subprocess.Popen(["/bin/sleep", "1000"], env={"SECRET": "canary"})
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        Path(folder, "secret").write_text("canary")
        granted = Path(folder, "granted")
        granted.write_text("a server's own file, which may be read")
        for kind, name in ((socket.SOCK_STREAM, "socket"), (socket.SOCK_DGRAM, "datagrams")):
            bound = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            bound.bind(f"{folder}/{name}")
            if kind == socket.SOCK_STREAM:
                bound.listen()
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0degraded-{victim.pid}")
        abstract.listen()
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        spawner = stack.enter_context(contextlib.closing(Spawner.start(name="degraded")))
        seen: dict[str, object] = {}
        for left_out in ("", "landlock", "seccomp"):
            spec = SandboxSpec(
                name="attacker",
                argv=(
                    sys.executable,
                    "-I",
                    "-S",
                    "-c",
                    ATTACK,
                    str(victim.pid),
                    folder,
                    str(server.getsockname()[1]),
                ),
                mounts=(
                    Mount(source="/usr", target="/usr"),
                    Mount(source=str(granted), target=str(granted)),
                ),
                limits=Limits(pids=32),
                cwd="/",
                disable=frozenset({left_out} - {""}),
            )
            done = run(spec, spawner=spawner)
            seen[left_out or "all"] = json.loads(done.stdout.splitlines()[-1])
            seen.setdefault("layers", {each.layer: [each.state, each.reason] for each in done.layers})
        seen["forks"] = bomb(spawner)
        seen["runtime readable"] = os.access("/proc/self/environ", os.R_OK)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    print(json.dumps(seen))


main()
