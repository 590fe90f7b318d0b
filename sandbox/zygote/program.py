"""What runs in a server's own interpreter: imports once, then forks workers that others have confined.

This text is handed to that interpreter with -c, so it stands on the standard library of Python 3.9 and on nothing of
this package. It is *not trusted*: what it imports can change any of it. So it holds no privilege, no secret and no
tenant's data, everything it is forked into was made by the fork server, and the fork server looks at each worker, and
at this process while it is stopped, before a worker is told anything (see `inspection`).

Packets on the control socket (descriptor `CONTROL`): from here `{"imported": true}`, `{"forked": true}`,
`{"failed": [step, errno, detail]}`; to here one order per worker, with its namespaces' descriptors, its gate and its
groups' entries. On the gate: `{"poised": true}` from the worker, then its `go` with the three streams.
"""

import base64
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import stat
import struct
import sys
import time
import types
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

_PACKET_BYTES = 256 * 1024
_DESCRIPTORS = 32
_GATE = 3
_MAX_FILES = 65536
_FAILED = 125

# include/uapi/linux/prctl.h, securebits.h, seccomp.h, landlock.h; the Landlock calls have one number everywhere.
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_SECUREBITS, _PR_CAP_AMBIENT = 4, 24, 28, 47
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _CAP_AMBIENT_CLEAR_ALL = 22, 2, 4
_SECUREBITS = 0b11101111
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_RULE_PATH_BENEATH, _RULE_NET_PORT = 1, 2
_CAPABILITY_VERSION_3, _MAX_CAPABILITIES = 0x20080522, 64

# What libraries import only when they are used first, which every worker of theirs does.
_LATE = {
    "anyio": ("anyio._backends._asyncio", "anyio.streams.tls"),
    "asyncio": ("argparse", "asyncio.runners"),
    "zoneinfo": ("importlib.readers", "tzdata"),
}

Packet = dict[str, Any]

_libc = ctypes.PyDLL(None, use_errno=True)


def _call(name: str, *arguments: Any) -> int:
    """A function of libc; raises `OSError`."""
    result = int(getattr(_libc, name)(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _prctl(option: int, *values: int) -> None:
    _call("prctl", option, *(ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]))


def _say(to: socket.socket, **message: Any) -> None:
    to.send(json.dumps(message).encode())


def serve(descriptor: int, modules: Sequence[str]) -> tuple[socket.socket, Packet, list[int]]:
    """Import, then fork on every order. Returns in a worker only: its gate, its `go` and its streams."""
    gc.disable()
    sys.path[:] = [place for place in sys.path if place]
    control = socket.socket(fileno=descriptor)
    name = ""
    try:
        for name in modules:
            importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001 - whatever an import does, its reason is told
        _say(control, failed=["import", 0, f"{name}: {type(error).__name__}: {error}"[:500]])
        os._exit(_FAILED)
    for package, late in _LATE.items():
        for name in late if package in sys.modules else ():
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    # What an import left open would be one file between all workers; none of them gets it, so nobody keeps it.
    for number in range(3, descriptor):
        _close(number)
    os.closerange(descriptor + 1, _MAX_FILES)
    # Garbage goes now; what is left is never looked at again, so that no page is written only to be looked at.
    gc.collect()
    gc.freeze()
    _say(control, imported=True)
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, _PACKET_BYTES, _DESCRIPTORS)
        if not packet:
            os._exit(0)
        helper = os.fork()
        if helper == 0:
            control.detach()  # closed in a moment, and its number is soon another's
            return _become_worker(json.loads(packet), descriptors)
        for number in descriptors:
            os.close(number)
        os.waitpid(helper, 0)
        _say(control, forked=True)


def _close(number: int) -> None:
    with contextlib.suppress(OSError):
        os.close(number)


def _become_worker(order: Packet, descriptors: list[int]) -> tuple[socket.socket, Packet, list[int]]:
    """Enter the namespaces, give up everything, wait for `go`. Only the worker itself comes back from here."""
    count = len(order["namespaces"])
    joined = dict(zip(order["namespaces"], descriptors[:count]))  # noqa: B905 - Python 3.9 has no strict
    gate = socket.socket(fileno=descriptors[count])
    try:
        # The user namespace first, for the rights in the others; a pid namespace is entered by children only.
        for name, kind in order["first"]:
            _call("setns", joined[name], kind)
        if os.fork() != 0:
            os._exit(0)
        for entry in descriptors[count + 1 :]:
            os.write(entry, b"0")
        for name, kind in order["then"]:
            _call("setns", joined[name], kind)
        _give_up(order)
        nothing = os.open(
            "/dev/null", os.O_RDWR
        )  # the zygote's own would be one open file between all workers
        for number in range(_GATE):
            os.dup2(nothing, number)
        os.dup2(gate.fileno(), _GATE, inheritable=False)
        gate.detach()
        gate = socket.socket(fileno=_GATE)
        os.closerange(_GATE + 1, _MAX_FILES)
        if order["filter"]:
            _install_filter(base64.b64decode(order["filter"]))
        _say(gate, poised=True)
        packet, streams, _, _ = socket.recv_fds(gate, _PACKET_BYTES, 3)
        if not packet:
            os._exit(0)
        return gate, json.loads(packet), streams
    except BaseException as error:  # noqa: BLE001 - the process boundary
        _say(
            gate, failed=["zygote", getattr(error, "errno", 0) or 0, f"{type(error).__name__}: {error}"[:500]]
        )
        os._exit(_FAILED)


def _give_up(order: Packet) -> None:
    """Session, user, groups and every Linux capability."""
    os.setsid()
    os.chdir("/")
    with contextlib.suppress(PermissionError):  # refused in a namespace that an ordinary user made
        os.setgroups([])
    os.setresgid(*[order["uid"]] * 3)
    os.setresuid(*[order["uid"]] * 3)
    if order["drop"]:
        _prctl(_PR_SET_SECUREBITS, _SECUREBITS)
        _prctl(_PR_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL)
        with contextlib.suppress(OSError):  # EINVAL: the kernel knows no more
            for number in range(_MAX_CAPABILITIES):
                _prctl(_PR_CAPBSET_DROP, number)
        _call("capset", struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24))
    _prctl(_PR_SET_DUMPABLE, 1)
    # As Python itself sets them when it starts; whatever an import had set is undone.
    usual: dict[int, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGPIPE: signal.SIG_IGN,
        signal.SIGXFSZ: signal.SIG_IGN,
    }
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        wanted = usual.get(number, signal.SIG_DFL)
        if signal.getsignal(number) not in (wanted, None):
            signal.signal(number, wanted)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _install_filter(program: bytes) -> None:
    held = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held))
    _call(
        "prctl",
        _PR_SET_SECCOMP,
        ctypes.c_ulong(_SECCOMP_MODE_FILTER),
        header,
        ctypes.c_ulong(0),
        ctypes.c_ulong(0),
    )


def _restrict(rules: Packet) -> None:
    """The finer Landlock domain inside the one that was there before the imports."""
    attributes = bytes.fromhex(rules["attributes"])
    ruleset = _call("syscall", _LANDLOCK_CREATE, attributes, ctypes.c_long(len(attributes)), ctypes.c_long(0))
    for path, rights, of_files in rules["paths"]:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        granted = rights if stat.S_ISDIR(os.fstat(place).st_mode) else rights & of_files
        value = struct.pack("=Qi", granted, place)
        _call("syscall", _LANDLOCK_ADD, ruleset, _RULE_PATH_BENEATH, value, ctypes.c_long(0))
        os.close(place)
    if rules["port"]:
        _call(
            "syscall", _LANDLOCK_ADD, ruleset, _RULE_NET_PORT, bytes.fromhex(rules["port"]), ctypes.c_long(0)
        )
    _call("syscall", _LANDLOCK_RESTRICT, ruleset, ctypes.c_long(0))
    os.close(ruleset)


def start(gate: socket.socket, go: Packet, streams: Sequence[int]) -> None:
    """Take the streams, environment, directory and arguments of the worker, as exec would have given them."""
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    gate.close()
    os.closerange(_GATE, _GATE + 4)
    if go["landlock"]:
        with contextlib.suppress(PermissionError):  # by the worker's own filter; the domain from before stays
            _restrict(go["landlock"])
    os.environ.clear()
    os.environ.update(go["env"])
    time.tzset()
    os.chdir(go["cwd"])
    _reopen_streams()
    sys.argv = list(go["argv"])
    gc.enable()


def _reopen_streams() -> None:
    """Standard streams that know what they are now: these began as /dev/null."""
    for number, (name, mode, buffering) in enumerate(
        (("stdin", "r", -1), ("stdout", "w", -1), ("stderr", "w", 1))
    ):
        old = getattr(sys, name)
        new = open(number, mode, buffering, encoding=old.encoding, errors=old.errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def run(what: str) -> NoReturn:
    """The module, or what an entry point names, as the program that this process is."""
    module, colon, attribute = what.partition(":")
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if not colon:
        sys.path.insert(0, os.getcwd())
        with warnings.catch_warnings():
            # A package that imports its own main module is only noticed here because it was imported before.
            warnings.simplefilter("ignore", RuntimeWarning)
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        sys.exit()
    main.__file__ = sys.argv[0]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    target: Any = importlib.import_module(module)
    for name in attribute.split("."):
        target = getattr(target, name)
    sys.exit(target())


if __name__ == "__main__":
    _told = json.loads(sys.argv[1])
    sys.argv = sys.argv[:1]
    _gate, _go, _streams = serve(_told["control"], _told["preload"])
    start(_gate, _go, _streams)
    run(_go["run"])
