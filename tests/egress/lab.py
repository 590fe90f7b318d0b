"""A test network of our own: one other machine (a network namespace), certificates, and workers that go out to it.

The other machine is joined to this one by a pair of virtual interfaces that the kernel removes with the process that
holds the namespace, so nothing is left, however a test ends. Addresses are private, from a block chosen by our process
id, so that test runs beside each other do not meet.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SITE = Path(__file__).parent / "site.py"
NAMES = ("api.example.test", "www.wild.example.test", "other.example.test", "raw.example.test")
SECONDS = 30


@dataclass(frozen=True)
class Lab:
    """The other machine: where it is, in both families, and what trusts it."""

    address: str
    address6: str
    second: str
    network: str
    network6: str
    authority: Path
    folder: Path


@contextlib.contextmanager
def open_lab(folder: Path) -> Iterator[Lab]:
    """The network for as long as the block lasts."""
    _need_tools()
    _certify(folder)
    _repository(folder)
    block = os.getpid() % 4096
    lab = Lab(
        address=f"10.{208 + block // 256}.{block % 256}.2",
        address6=f"fd77:{block:x}::2",
        second=f"10.{208 + block // 256}.{block % 256}.3",
        network=f"10.{208 + block // 256}.{block % 256}.0/29",
        network6=f"fd77:{block:x}::/64",
        authority=folder / "authority.pem",
        folder=folder,
    )
    command = ["unshare", "--net", sys.executable, "-I", "-S", str(SITE), str(folder)]
    site = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert site.stdin is not None
    assert site.stdout is not None
    try:
        _wire(site.pid, lab)
        site.stdin.write("go\n")
        site.stdin.flush()
        assert site.stdout.readline() == "ready\n"
        yield lab
    finally:
        site.kill()
        site.wait()
        site.stdin.close()
        site.stdout.close()


def _need_tools() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to make a network namespace with an interface into it")
    for tool in ("ip", "nsenter", "unshare", "openssl", "git", "curl"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")


def _wire(pid: int, lab: Lab) -> None:
    ours, theirs = f"mcph{os.getpid() % 10**7}", "far"
    _wait_for_namespace(pid)
    _do(f"ip link add {ours} type veth peer name {theirs} netns {pid}")
    _do(f"ip addr add {lab.address.rsplit('.', 1)[0]}.1/29 dev {ours}")
    _do(f"ip addr add {lab.address6[:-1]}1/64 dev {ours} nodad")
    _do(f"ip link set {ours} up")
    inside = f"nsenter -t {pid} -n ip"
    for address in (f"{lab.address}/29", f"{lab.second}/29"):
        _do(f"{inside} addr add {address} dev {theirs}")
    _do(f"{inside} addr add {lab.address6}/64 dev {theirs} nodad")
    _do(f"{inside} link set {theirs} up")
    _do(f"{inside} link set lo up")


def _wait_for_namespace(pid: int) -> None:
    """unshare(1) makes the namespace some moments after its start; a read of its word is not possible before."""
    ours = os.readlink("/proc/self/ns/net")
    while os.readlink(f"/proc/{pid}/ns/net") == ours:
        time.sleep(0.005)


def _do(command: str, **options: object) -> None:
    done = subprocess.run(
        command.split(), capture_output=True, text=True, timeout=SECONDS, check=False, **options
    )  # type: ignore[call-overload]
    assert done.returncode == 0, (command, done.stderr)


def _certify(folder: Path) -> None:
    """An authority and a certificate for every name of the lab."""
    names = ",".join(f"DNS:{name}" for name in NAMES)
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    _do(f"openssl req -x509 {key} -days 2 -subj /CN=authority -keyout a.key -out authority.pem", cwd=folder)
    _do(f"openssl req {key} -subj /CN=site -keyout s.key -out s.csr", cwd=folder)
    (folder / "extensions").write_text(f"subjectAltName={names}\n")
    _do(
        "openssl x509 -req -in s.csr -CA authority.pem -CAkey a.key -days 2 -extfile extensions -out s.pem",
        cwd=folder,
    )
    (folder / "site.pem").write_text((folder / "s.pem").read_text() + (folder / "s.key").read_text())


def _repository(folder: Path) -> None:
    """A git repository that a web server without a program of its own can serve (git-http-protocol, "dumb")."""
    work, bare = folder / "work", folder / "www" / "repository.git"
    git = "git -c user.name=t -c user.email=t@example.test -c init.defaultBranch=main"
    work.mkdir()
    (work / "file").write_text("from the repository\n")
    _do(f"{git} init -q", cwd=work)
    _do(f"{git} add file", cwd=work)
    _do(f"{git} commit -q -m one", cwd=work)
    _do(f"{git} clone -q --bare {work} {bare}")
    _do(f"{git} update-server-info", cwd=bare)
