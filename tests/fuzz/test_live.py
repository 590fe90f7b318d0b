"""The fork server itself, alive, against packets nobody meant: from the runtime's side and from a broken-into init."""

import contextlib
import ctypes
import json
import os
import random
import select
import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from fuzz.mutants import mutants
from fuzz.seeds import PLAIN, seeds
from sandbox import Exited, SandboxSpec, Spawned, Spawner, SpawnFailed, run
from sandbox.messages import MalformedMessage, Spawn, SpecRefused, decode_request, encode_request

pytestmark = pytest.mark.kernel

PACKETS = 400
WAIT_SECONDS = 20.0
# Two spares, each an init and a worker to be.
SPARE_PROCESSES = 4
PIDFD_GETFD = 438


def below(pid: int) -> int:
    """How many processes there are below one."""
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return len(children) + sum(map(below, children))


def census(spawner: Spawner) -> tuple[int, int]:
    """Descriptors of the fork server and processes below it."""
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{spawner.pid}/fd")), below(spawner.pid)
    return -1, -1


def is_at_rest(spawner: Spawner) -> bool:
    """Whether all spares are there, and the groups of none but them."""
    with contextlib.suppress(FileNotFoundError):  # one went while it was looked for
        groups = {
            path.name for path in Path("/sys/fs/cgroup").glob(f"**/sandbox.fuzz.{spawner.pid}.*/worker-*")
        }
        return census(spawner)[1] == SPARE_PROCESSES and len(groups) <= SPARE_PROCESSES // 2
    return False


def wait_for(holds, what: str) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < end, what()
        time.sleep(0.01)


@pytest.fixture
def spawner():
    with contextlib.closing(Spawner.start(name="fuzz")) as spawner:
        assert run(PLAIN, spawner=spawner).ended.code == 0
        wait_for(lambda: is_at_rest(spawner), lambda: f"no rest: {census(spawner)}")
        yield spawner


def number_of(packet: bytes) -> int | None:
    """The request that a packet makes and that must be answered."""
    try:
        read = decode_request(packet)
    except MalformedMessage:
        return None
    except SpecRefused as refused:
        return refused.request
    return read.request if isinstance(read, Spawn) else None


class Answers:
    """What a fork server has said: how often each request was answered, and which workers have not ended yet."""

    def __init__(self, spawner: Spawner) -> None:
        self._spawner = spawner
        self.answered: Counter[int] = Counter()
        self.alive: dict[int, Spawned] = {}

    def listen(self, seconds: float) -> None:
        """Take what comes within that time."""
        for event in self._spawner.receive() if select.select([self._spawner], [], [], seconds)[0] else []:
            match event:
                case Spawned():
                    self.answered[event.request] += 1
                    self.alive[event.request] = event
                case SpawnFailed():
                    self.answered[event.request] += 1
                case Exited():
                    self.alive = {key: one for key, one in self.alive.items() if one.worker != event.worker}

    def wait(self, holds) -> None:
        end = time.monotonic() + WAIT_SECONDS
        while not holds() and time.monotonic() < end:
            self.listen(1)


def test_every_request_is_answered_once_and_nonsense_is_dropped(spawner):
    before, chance = census(spawner), random.Random(3)
    null = os.open("/dev/null", os.O_RDWR)
    asked: Counter[int] = Counter()
    answers = Answers(spawner)
    sent = 0
    for mutant in mutants(seeds()["request"], chance):
        packet = encode_request(Spawn(sent + 100, PLAIN)) if chance.random() < 0.2 else mutant
        descriptors = [null] * chance.choice((0, 2, 3, 3, 3, 3, 4, 16))
        try:
            socket.send_fds(spawner._channel, [packet], descriptors)
        except BlockingIOError:
            answers.listen(1)
            continue
        if (number := number_of(packet)) is not None:
            asked[number] += 1
        answers.listen(0)
        sent += 1
        if sent == PACKETS:
            break
    os.close(null)
    answers.wait(lambda: answers.answered == asked and not answers.alive)
    assert answers.answered == asked
    assert sum(asked.values()) > PACKETS / 10
    assert run(PLAIN, spawner=spawner).ended.code == 0
    wait_for(lambda: census(spawner) == before, lambda: f"{census(spawner)} after, {before} before")


def stolen_gate(init: int) -> socket.socket:
    """The socket of an init towards the fork server, as somebody would have it who took that init over."""
    pidfd = os.pidfd_open(init)
    for link in Path(f"/proc/{init}/fd").iterdir():
        if os.readlink(link).startswith("socket:"):
            fd = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, pidfd, int(link.name), 0)
            assert fd >= 0, os.strerror(ctypes.get_errno())
            os.close(pidfd)
            return socket.socket(fileno=fd)
    raise AssertionError("this init holds no socket")


LIES = [
    b'{"failed":["step",99999999999999999999,""]}',
    json.dumps({"failed": ["s" * 150_000, 1, "d" * 50_000]}).encode(),
    json.dumps({"ended": [10**400, None]}).encode(),
    json.dumps({"denied": {"x" * 1000 + str(index): 10**30 for index in range(150)}}).encode(),
    json.dumps({"running": True, "uncounted": "\u0001" * 40_000}).encode(),
    b"[" * 100_000,
    b"\xff" * 200_000,
    b"{}",
]


@pytest.mark.skipif(os.geteuid() != 0, reason="takes over an init, which needs root")
def test_an_init_that_was_broken_into_can_end_nothing_but_its_own_worker(spawner):
    before, chance = census(spawner), random.Random(5)
    cat = SandboxSpec(name="cat", argv=("/bin/cat",), mounts=PLAIN.mounts)
    neighbour_in, our_out = os.pipe()
    our_in, neighbour_out = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    answers = Answers(spawner)

    def start(streams: tuple[int, int, int]) -> Spawned:
        number = len(answers.answered) + 1000
        spawner.spawn(number, cat, *streams)
        answers.wait(lambda: answers.answered[number])
        return answers.alive[number]

    start((neighbour_in, neighbour_out, null))
    mutated = (data for data in mutants(seeds()["gate"], chance))
    for lies in [[lie] for lie in LIES] + [[next(mutated) for _ in range(25)] for _ in range(12)]:
        held, end = os.pipe()
        victim = start((held, null, null))
        with stolen_gate(victim.pid) as gate:
            gate.setblocking(False)
            for lie in lies:
                # Too long for the socket, or ended already by an earlier one.
                with contextlib.suppress(OSError):
                    gate.send(lie)
            os.close(end)
            os.close(held)
    os.write(our_out, b"still here\n")
    assert os.read(our_in, 100) == b"still here\n"
    for fd in (neighbour_in, our_out, our_in, neighbour_out, null):
        os.close(fd)
    answers.wait(lambda: not answers.alive)
    assert run(PLAIN, spawner=spawner).ended.code == 0
    wait_for(lambda: census(spawner) == before, lambda: f"{census(spawner)} after, {before} before")
