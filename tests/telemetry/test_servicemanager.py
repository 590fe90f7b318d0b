"""What a service manager is told, on a real socket, and that nobody listening is no trouble."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from harness import fixture_server, make_policy
from mcphost.telemetry.servicemanager import ServiceManager

SECONDS = 30


@pytest.fixture
def manager_socket(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The manager's end, at a path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(SECONDS)
        yield str(tmp_path / "notify"), listening


def lines(listening: socket.socket) -> list[str]:
    return listening.recv(4096).decode().split("\n")


def test_readiness_and_the_end_come_with_a_status_of_one_line(manager_socket):
    address, listening = manager_socket
    manager = ServiceManager.from_environ({"NOTIFY_SOCKET": address}, 7)
    manager.ready("serving\nWATCHDOG=1 " + "x" * 500)
    said = lines(listening)
    assert said[0] == "READY=1"
    assert len(said) == 2
    assert said[1].startswith("STATUS=serving WATCHDOG=1 x")
    assert len(said[1]) < 250
    manager.stopping("finishing")
    assert lines(listening) == ["STOPPING=1", "STATUS=finishing"]
    manager.close()
    manager.alive()


def test_an_abstract_address_is_understood():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(SECONDS)
        listening.bind(f"\0mcphost-test-{os.getpid()}")
        manager = ServiceManager.from_environ({"NOTIFY_SOCKET": f"@mcphost-test-{os.getpid()}"}, 7)
        manager.alive()
        assert lines(listening) == ["WATCHDOG=1"]
        manager.close()


@pytest.mark.parametrize("address", ["", "vsock:2:1", "relative", "/nowhere/at/all"])
def test_without_a_manager_nothing_is_sent_and_nothing_fails(address):
    manager = ServiceManager.from_environ({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}, 7)
    manager.ready("x")
    manager.close()
    assert manager.keep_alive_seconds is None


def test_a_manager_that_does_not_read_holds_nothing_up(manager_socket):
    manager = ServiceManager.from_environ({"NOTIFY_SOCKET": manager_socket[0]}, 7)
    for _ in range(10_000):
        manager.alive()
    manager.close()


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_a_keep_alive_is_due_twice_within_the_managers_patience(manager_socket, variables, seconds):
    manager = ServiceManager.from_environ({"NOTIFY_SOCKET": manager_socket[0], **variables}, 7)
    assert manager.keep_alive_seconds == seconds
    manager.close()


@pytest.mark.kernel
def test_the_runtime_says_when_it_serves_that_it_lives_and_when_it_stops(manager_socket, tmp_path):
    address, listening = manager_socket
    policy = make_policy({"fix": fixture_server()}, runtime={"listen": "127.0.0.1:0", "admin": None})
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy, width=1000))
    process = subprocess.Popen(
        [sys.executable, "-m", "mcphost", "run", str(tmp_path / "policy.yaml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"},
    )
    try:
        said = [lines(listening)]
        while said[-1][0] != "READY=1":
            said.append(lines(listening))
        assert "serving 1 servers to 1 tenants at http://127.0.0.1:" in said[-1][1]
        assert lines(listening) == ["WATCHDOG=1"]
        process.send_signal(signal.SIGTERM)
        while (last := lines(listening))[0] == "WATCHDOG=1":
            pass
        assert last[0] == "STOPPING=1"
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        _, text = process.communicate()
    assert json.loads(text.splitlines()[-1])["event"] == "stopped"
