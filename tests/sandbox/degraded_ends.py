"""Run in a stock container as an ordinary user: `python degraded_ends.py PACKAGES END`. What is left of a worker, as JSON.

The worker has a child that left it in every way there is: another session, another parent, no parent-death signal, and
one that goes on forking. Each is known by a file it keeps locked, which nobody but itself can unlock.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from sandbox import Exited, Limits, Mount, SandboxSpec, Spawned, Spawner

WORKER = """
import ctypes, fcntl, os, signal, sys, time
libc = ctypes.CDLL(None)
for number in range(1, 65):
    if number not in (9, 19, 32, 33): signal.signal(number, signal.SIG_IGN)
libc.prctl(1, 0)
def daemon(name, then):
    if os.fork(): return
    os.setsid()
    if os.fork(): os._exit(0)
    libc.prctl(1, 0)
    held = open(sys.argv[1] + "/" + name, "w")
    fcntl.flock(held, fcntl.LOCK_EX)
    then()
def wander():
    while True:
        time.sleep(0.001)
        if os.fork(): os._exit(0)
daemon("daemon", lambda: time.sleep(1000))
daemon("wanderer", wander)
while not all(os.path.exists(sys.argv[1] + "/" + name) for name in ("daemon", "wanderer")): time.sleep(0.01)
time.sleep(0.1)
print("ready", flush=True)
if sys.argv[2] == "exits": os._exit(3)
time.sleep(1000)
"""


def held(folder: str) -> list[str]:
    left = []
    for name in ("daemon", "wanderer"):
        with open(f"{folder}/{name}") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                left.append(name)
    return left


def wait_gone(folder: str, seconds: float = 5.0) -> list[str]:
    """Nobody announces the end of a stranger; its lock does, to who asks again."""
    deadline = time.monotonic() + seconds
    while (left := held(folder)) and time.monotonic() < deadline:
        select.select([], [], [], 0.01)
    return left


def start(folder: str, end: str) -> tuple[Spawner, Spawned]:
    spawner = Spawner.start(name="degraded")
    inner, out = os.pipe()
    spec = SandboxSpec(
        name="t",
        argv=("/usr/bin/python3", "-I", "-S", "-c", WORKER, folder, end),
        mounts=(Mount(source="/usr", target="/usr"), Mount(source=folder, target=folder, writable=True)),
        limits=Limits(pids=64),
        cwd="/",
        disable=frozenset({"landlock"} if end.endswith("unscoped") else ()),
    )
    null = os.open("/dev/null", os.O_RDWR)
    spawner.spawn(1, spec, null, out, 2)
    os.close(out)
    assert os.read(inner, 16) == b"ready\n"
    return spawner, wait_for(spawner, Spawned)


def wait_for(spawner: Spawner, kind: type) -> object:
    while True:
        for event in spawner.receive():
            if isinstance(event, kind):
                return event
        select.select([spawner], [], [], 10)


def main(end: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)  # as root the worker is somebody else
        said = None
        if end == "runtime":
            runtime = os.fork()
            if runtime == 0:
                start(folder, end)
                Path(folder, "started").touch()
                signal.pause()
            while not Path(folder, "started").exists():
                select.select([], [], [], 0.01)
            os.kill(runtime, signal.SIGKILL)
            left = wait_gone(folder)
        else:
            spawner, started = start(folder, end)
            with contextlib.closing(spawner):
                if end.startswith("killed"):
                    spawner.kill(started.worker)
                elif end.startswith("init"):
                    os.kill(started.pid, signal.SIGKILL)
                elif end == "spawner":
                    os.kill(spawner.pid, signal.SIGKILL)
                if end != "spawner":
                    said = wait_for(spawner, Exited).reason
                # Nothing may be left the moment the end is told; after the spawner's own death it takes a moment.
                left = held(folder) if said else wait_gone(folder)
        subprocess.run(["/bin/true"], check=True)  # the runtime's own user can still do something
        print(json.dumps({"left": left, "said": said}))


main(sys.argv[2])
