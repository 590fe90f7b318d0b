"""Ordinary programs meet no denied call under the default profile."""

import shutil

import pytest

pytestmark = pytest.mark.kernel


def test_python_with_threads_subprocesses_and_an_event_loop(says):
    program = (
        "import asyncio, concurrent.futures, hashlib, json, multiprocessing, sqlite3, ssl, subprocess, tempfile\n"
        "async def main():\n"
        "    process = await asyncio.create_subprocess_exec('/bin/echo', 'child', stdout=-1)\n"
        "    out, _ = await process.communicate()\n"
        "    return out.decode().strip()\n"
        "with concurrent.futures.ThreadPoolExecutor(4) as pool: total = sum(pool.map(abs, range(10)))\n"
        "base = sqlite3.connect(tempfile.mkdtemp() + '/x.db'); base.execute('pragma journal_mode=wal')\n"
        "base.execute('create table t(a)'); base.commit()\n"
        "queue = multiprocessing.get_context('fork').Queue(); queue.put(1)\n"
        "print(asyncio.run(main()), total, queue.get(timeout=5))\n"
    )
    assert says(program) == "child 45 1"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_node_with_a_worker_thread_and_a_child(python):
    script = (
        "const {Worker} = require('worker_threads');"
        "const out = require('child_process').execFileSync('/bin/echo', ['child']).toString().trim();"
        "const worker = new Worker('require(\"worker_threads\").parentPort.postMessage(2)', {eval: true});"
        "worker.on('message', m => { console.log(out, m); });"
    )
    done = python("", argv=("/usr/bin/env", "node", "-e", script), env=(("PATH", "/usr/bin:/bin"),))
    assert (done.stdout, done.ended.code) == (b"child 2\n", 0), done.stderr


def test_standard_input_reaches_the_program(python, spawner, make_spec):
    from sandbox import run

    done = run(make_spec("import sys; print(len(sys.stdin.buffer.read()))"), bytes(300_000), spawner=spawner)
    assert done.stdout == b"300000\n"


def test_names_of_users_and_hosts_are_known(says):
    program = (
        "import os, pwd, time\n"
        "print(pwd.getpwuid(os.getuid()).pw_name, open('/etc/hosts').read().split()[1], os.path.exists('/etc/localtime'))"
    )
    assert says(program).startswith("worker localhost")


def test_a_program_is_found_along_the_path_given(python):
    done = python("", argv=("true",), env=(("PATH", "/nowhere:/usr/bin"),))
    assert done.ended.code == 0
