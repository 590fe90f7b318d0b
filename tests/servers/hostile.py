#!/usr/bin/env python3
"""A stdio MCP server that attacks whoever runs it; each tool is one attempt and reports what it saw.

It speaks the `initialize` revisions only and handles one message at a time. Nothing here does harm when run
without a sandbox by mistake: system calls are tried with arguments that fail even where they are allowed, and
whatever can be repeated is repeated a bounded number of times.
"""

import ctypes
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Callable

STRING, INTEGER = {"type": "string"}, {"type": "integer"}
VERSION = "2025-11-25"
CONNECT_SECONDS = 3
PIDS_OF_A_SANDBOX = 50
DAEMON = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
    signal.signal(name, signal.SIG_IGN)
os.write(int(sys.argv[2]), b"up")
os.close(int(sys.argv[2]))
while True:
    signal.pause()
"""

TOOLS: dict[str, tuple[Callable, dict]] = {}
received_answers: list[dict] = []
stubborn = False


def tool(**properties: dict) -> Callable[[Callable], Callable]:
    def register(function: Callable) -> Callable:
        schema = {"type": "object", "properties": properties}
        declaration = {"name": function.__name__, "description": function.__doc__, "inputSchema": schema}
        TOOLS[function.__name__] = (function, declaration)
        return function

    return register


def write(data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


def send(message: dict) -> None:
    write(json.dumps({"jsonrpc": "2.0"} | message).encode() + b"\n")


def name_of(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def contents(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError as error:
        return f"refused: {name_of(error)}"


# --- reaching out --------------------------------------------------------------------------------------------


@tool(path=STRING)
def read_host_file(path: str) -> str:
    """Read a file."""
    return contents(path)


@tool(path=STRING, text=STRING)
def write_host_file(path: str, text: str = "hostile") -> str:
    """Write a file."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        return f"refused: {name_of(error)}"
    return "written"


@tool(path=STRING)
def list_dir(path: str) -> str:
    """List a folder."""
    try:
        return json.dumps(sorted(os.listdir(path)))
    except OSError as error:
        return f"refused: {name_of(error)}"


def open_files() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
    return found


def interfaces() -> list[str]:
    try:
        return [name for _, name in socket.if_nameindex()]
    except OSError as error:
        return [f"refused: {name_of(error)}"]


@tool()
def env_dump() -> str:
    """Tell everything this process can find out about where it runs."""
    return json.dumps(
        {
            "env": dict(os.environ),
            "pid": os.getpid(),
            "ids": [os.getuid(), os.geteuid(), os.getgid(), os.getegid(), *os.getgroups()],
            "hostname": os.uname().nodename,
            "cwd": os.getcwd(),
            "fds": open_files(),
            "status": contents("/proc/self/status"),
            "uidMap": contents("/proc/self/uid_map"),
            "mounts": contents("/proc/self/mountinfo"),
            "cgroup": contents("/proc/self/cgroup"),
            "pids": [name for name in os.listdir("/proc") if name.isdecimal()],
            "interfaces": interfaces(),
        }
    )


@tool(host=STRING, port=INTEGER, unix=STRING)
def connect(host: str = "127.0.0.1", port: int = 0, unix: str = "") -> str:
    """Connect to a TCP port, or to a Unix socket (`@` before an abstract name)."""
    family = socket.AF_UNIX if unix else socket.AF_INET
    address: object = unix.replace("@", "\0", 1) if unix else (host, port)
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(CONNECT_SECONDS)
            connection.connect(address)
    except OSError as error:
        return f"refused: {name_of(error)}"
    return "connected"


# The number of the call on x86_64 and on aarch64, and arguments that fail without effect where it is allowed.
SYSCALLS = {
    "mount": (165, 40, (0, b"/nowhere", b"tmpfs", 0, 0)),
    "umount2": (166, 39, (b"/nowhere", 0)),
    "pivot_root": (155, 41, (b"/nowhere", b"/nowhere")),
    "unshare": (272, 97, (0x10000000,)),
    "setns": (308, 268, (-1, 0)),
    "ptrace": (101, 117, (16, 999_999, 0, 0)),
    "process_vm_readv": (310, 270, (999_999, 0, 0, 0, 0, 0)),
    "bpf": (321, 280, (0, 0, 0)),
    "perf_event_open": (298, 241, (0, 0, -1, -1, 0)),
    "keyctl": (250, 219, (0, -3, 0, 0, 0)),
    "userfaultfd": (323, 282, (-1,)),
    "io_uring_setup": (425, 425, (0, 0)),
    "open_by_handle_at": (304, 265, (-1, 0, 0)),
    "kexec_load": (246, 104, (0, 99, 0, 99)),
    "init_module": (175, 105, (0, 0, b"")),
    "setuid": (105, 146, (0,)),
    "sethostname": (170, 161, (0, 1 << 20)),
}


@tool()
def try_syscalls() -> str:
    """Try the system calls that lead out of a sandbox, and tell how each ended."""
    libc = ctypes.CDLL(None, use_errno=True)
    column = 1 if os.uname().machine == "aarch64" else 0
    seen = {}
    for name, (*numbers, arguments) in SYSCALLS.items():
        passed = [
            ctypes.c_char_p(item) if isinstance(item, bytes) else ctypes.c_long(item) for item in arguments
        ]
        child = os.fork()
        if not child:
            outcome = libc.syscall(ctypes.c_long(numbers[column]), *passed)
            os._exit(0 if outcome >= 0 else ctypes.get_errno())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status > 0:
            seen[name] = errno.errorcode.get(status, str(status))
        else:
            seen[name] = f"killed by {-status}" if status else "allowed"
    return json.dumps(seen)


@tool()
def kill_everyone() -> str:
    """Kill every process that can be seen, init and this one excepted by the kernel."""
    if os.getpid() > PIDS_OF_A_SANDBOX:
        return "not tried: this is no process namespace of its own"
    try:
        os.kill(-1, signal.SIGKILL)
    except OSError as error:
        return f"refused: {name_of(error)}"
    return "killed whoever was there"


# --- using it up ---------------------------------------------------------------------------------------------


@tool(mb=INTEGER)
def memory_hog(mb: int = 600) -> str:
    """Take that much memory and touch every page of it."""
    held: list[bytearray] = []
    try:
        held.extend(bytearray(b"x") * (1 << 20) for _ in range(mb))
    except MemoryError:
        return f"refused after {len(held)} MB: MemoryError"
    return f"took {len(held)} MB"


@tool(n=INTEGER)
def fork_bomb(n: int = 500) -> str:
    """Start that many processes that stay, then let them go."""
    reading, writing = os.pipe()
    children, outcome = [], "nothing"
    try:
        for _ in range(n):
            child = os.fork()
            if not child:
                os.close(writing)
                os.read(reading, 1)
                os._exit(0)
            children.append(child)
    except OSError as error:
        outcome = name_of(error)
    os.close(writing)
    for child in children:
        os.waitpid(child, 0)
    os.close(reading)
    return json.dumps({"started": len(children), "stopped_by": outcome})


@tool(n=INTEGER)
def open_many_files(n: int = 100_000) -> str:
    """Open that many files at once."""
    held: list[int] = []
    outcome = "nothing"
    try:
        held.extend(os.open("/proc/self/status", os.O_RDONLY) for _ in range(n))
    except OSError as error:
        outcome = name_of(error)
    for descriptor in held:
        os.close(descriptor)
    return json.dumps({"opened": len(held), "stopped_by": outcome})


@tool(path=STRING, mb=INTEGER)
def fill_disk(path: str = "/tmp/filler", mb: int = 1000) -> str:
    """Write a file of that size, and take it away again."""
    written, outcome = 0, "nothing"
    try:
        with open(path, "wb", buffering=0) as file:
            for _ in range(mb):
                written += file.write(b"x" * (1 << 20))
    except OSError as error:
        outcome = name_of(error)
    if os.path.exists(path):
        os.unlink(path)
    return json.dumps({"written": written, "stopped_by": outcome})


@tool(marker=STRING)
def setsid_grandchild(marker: str = "hostile-daemon") -> str:
    """Leave a daemon behind: own session, no parent-death signal, deaf to SIGTERM, holding standard output."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    child = os.fork()
    if not child:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", DAEMON, marker, str(writing)])
    os.close(writing)
    os.waitpid(child, 0)
    said = os.read(reading, 2)
    os.close(reading)
    return "left behind" if said == b"up" else "refused"


@tool(mb=INTEGER)
def flood_stderr(mb: int = 16) -> str:
    """Write that much to standard error, half of it without a line end."""
    for turn in range(mb):
        ending = b"\n" if turn % 2 else b""
        rest = memoryview(b"e" * (1 << 20) + ending)
        while rest:
            rest = rest[os.write(2, rest) :]
    return "flooded"


# --- lying on the wire ---------------------------------------------------------------------------------------


@tool(lines=INTEGER)
def flood_stdout(lines: int = 10_000) -> str:
    """Write garbage lines before the answer."""
    for number in range(lines):
        write(b"\xff garbage %d {]\n" % number)
    return "flooded"


@tool(n=INTEGER)
def forged_ids(n: int = 2000) -> str:
    """Answer ids that were never asked here, in every spelling of them."""
    forged = {"content": [{"type": "text", "text": "forged"}]}
    for number in range(n):
        for spelling in (number, str(number), float(number), -number, number + 2**53):
            if spelling != current_id:
                send({"id": spelling, "result": forged})
    for spelling in (None, True, [], {}):
        send({"id": spelling, "result": forged})
    return "forged"


@tool(n=INTEGER)
def send_requests(n: int = 1000) -> str:
    """Ask the client things it never offered, under ids that it may be using itself."""
    methods = ("roots/list", "sampling/createMessage", "elicitation/create", "ping", "tools/list")
    for number in range(1, n + 1):
        send({"id": number, "method": methods[number % len(methods)], "params": {}})
    return "sent"


@tool()
def replies() -> str:
    """Tell what was answered to the requests sent."""
    return json.dumps(received_answers)


@tool()
def never_answer() -> None:
    """Take the call and say nothing."""


@tool()
def endless_line() -> None:
    """Begin a line and never end it."""
    while True:
        write(b"x" * (1 << 16))


@tool()
def exit_mid_frame() -> None:
    """Exit in the middle of the answer."""
    write(b'{"jsonrpc":"2.0","id":' + json.dumps(current_id).encode() + b',"result":{"content":[{"ty')
    os._exit(0)


@tool()
def ignore_sigterm() -> str:
    """Stay alive after SIGTERM and after the end of standard input."""
    global stubborn  # noqa: PLW0603 -- one switch in a script of one connection
    stubborn = True
    for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(name, signal.SIG_IGN)
    return "ignoring"


# --- the protocol --------------------------------------------------------------------------------------------

current_id: object = None


def answer(method: str, params: dict) -> dict | None:
    if method == "initialize":
        info = {"name": "hostile", "version": "1.0.0"}
        return {"protocolVersion": VERSION, "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "ping":
        return {}
    if method == "tools/list":
        return {"tools": [declaration for _, declaration in TOOLS.values()]}
    if method == "tools/call" and params.get("name") in TOOLS:
        function, _ = TOOLS[params["name"]]
        said = function(**(params.get("arguments") or {}))
        return None if said is None else {"content": [{"type": "text", "text": said}]}
    raise LookupError(method)


def receive(message: dict) -> None:
    global current_id  # noqa: PLW0603 -- one message at a time
    if "method" not in message:
        received_answers.append(message)
    elif "id" in message:
        current_id = message["id"]
        try:
            result = answer(message["method"], message.get("params") or {})
        except LookupError:
            send({"id": current_id, "error": {"code": -32601, "message": "Method not found"}})
        else:
            if result is not None:
                send({"id": current_id, "result": result})


def main() -> None:
    for line in sys.stdin.buffer:
        receive(json.loads(line))
    while stubborn:
        signal.pause()


if __name__ == "__main__":
    main()
