"""The proxy against whoever connects to it: what it refuses, what it does not let itself be made to hold."""

import resource
import socket
import time

import anyio
import anyio.abc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client_hello import real_hello
from egress.conftest import counted
from egress.site import RAW, SILENT
from harness import until
from mcphost.decisions.ratelimit import Rate
from mcphost.workers.dialing import MAX_LOOKUPS, is_own
from mcphost.workers.egress import Bounds
from sandbox import UNRECOGNIZED_NAME, address_of, parse_network

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]

API = "api.example.test:443"
RAW_ENTRY = f"raw.example.test:{RAW}"
SOON = 0.2
QUICK = Bounds(
    head_seconds=SOON,
    lookup_seconds=SOON,
    connect_seconds=SOON,
    hello_seconds=SOON,
    idle_seconds=SOON,
    linger_seconds=SOON,
)


def connect(target: str) -> bytes:
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()


async def read_to_end(stream: anyio.abc.ByteReceiveStream) -> bytes:
    data = b""
    with anyio.fail_after(20):
        try:
            async for part in stream:
                data += part
        except anyio.BrokenResourceError:
            pass
    return data


async def said(proxy, data: bytes) -> bytes:
    """Everything the proxy says to these bytes, to the end."""
    async with await proxy.connect() as stream:
        await stream.send(data)
        return await read_to_end(stream)


async def opened(proxy, target: str) -> anyio.abc.SocketStream:
    stream = await proxy.connect()
    await stream.send(connect(target))
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += await stream.receive()
    assert answer == b"HTTP/1.1 200 Connection established\r\n\r\n", answer
    return stream


@pytest.mark.parametrize(
    ("request_", "status", "outcome"),
    [
        (connect("other.example.test:443"), b"403", "not-listed"),
        (connect("api.example.test:80"), b"403", "not-listed"),
        (connect("169.254.169.254:80"), b"403", "not-listed"),
        (b"GET http://api.example.test/ HTTP/1.1\r\nHost: a\r\n\r\n", b"405", "plain-http"),
        (b"GET / HTTP/1.1\r\nHost: api.example.test:443\r\n\r\n", b"405", "plain-http"),
        (b"CONNECT api.example.test:443 HTTP/1.1\r\nX: " + b"a" * 20000, b"400", "bad-request"),
        (b"\x16\x03\x01\x00\x05\x01", b"400", "bad-request"),
        (b"\r\n\r\n", b"400", "bad-request"),
    ],
)
async def test_a_request_that_is_not_carried_is_answered_with_its_status(
    local, metrics, names, request_, status, outcome
):
    async with local(API) as proxy:
        assert (await said(proxy, request_)).split()[1] == status
    assert counted(metrics) == {outcome: 1}
    assert names.asked == []


PRIVATE = ["127.0.0.1", "::1", "10.1.2.3", "169.254.169.254", "fd00:ec2::254", "::ffff:127.0.0.1", "0.0.0.0",
           "64:ff9b::7f00:1", "192.168.0.1", "fe80::1"]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_listed_name_that_leads_to_a_private_place_is_refused_after_the_look_up(
    local, metrics, names, address
):
    names.answers["api.example.test"] = [[address]]
    async with local(API) as proxy:
        assert b" 403 " in await said(proxy, connect(API))
    assert counted(metrics) == {"address-refused": 1}
    assert names.asked == ["api.example.test"]


async def test_only_the_list_of_ranges_makes_the_difference(local, lab, names):
    async with local(API) as proxy:
        await (await opened(proxy, API)).aclose()
    async with local(API, networks=()) as proxy:
        assert b" 403 " in await said(proxy, connect(API))


async def test_this_machine_is_refused_at_every_address_it_has(local, lab, names, metrics):
    own = lab.address.rsplit(".", 1)[0] + ".1"
    names.answers["api.example.test"] = [[own]]
    assert address_of(own) in parse_network(lab.network)
    assert is_own(address_of(own))
    async with local(API) as proxy:
        assert b"this machine" in await said(proxy, connect(API))
    assert counted(metrics) == {"address-refused": 1}


def test_what_cannot_be_judged_is_refused() -> None:
    """With no descriptor left there is no asking whose an address is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        why = is_own(address_of("1.1.1.1"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert why is not None


async def test_an_answer_that_changes_afterwards_changes_nothing(local, lab, names, metrics):
    """Rebinding: the address that was judged is connected to; the next connection judges anew."""
    names.answers["api.example.test"] = [[lab.address], ["127.0.0.1"]]
    async with local(API) as proxy:
        first = await opened(proxy, API)
        assert names.asked == ["api.example.test"]
        await first.aclose()
        assert b" 403 " in await said(proxy, connect(API))
    assert counted(metrics)["address-refused"] == 1


async def test_of_several_addresses_only_those_that_may_be_are_tried(local, lab, names, metrics):
    names.answers["raw.example.test"] = [["127.0.0.1", "fd00:ec2::254", lab.second]]
    async with local(RAW_ENTRY) as proxy, await opened(proxy, RAW_ENTRY) as stream:
        hello = real_hello("raw.example.test")
        await stream.send(hello)
        await stream.send_eof()
        assert await read_to_end(stream) == f"{len(hello)}\n".encode()


async def test_an_address_that_does_not_answer_holds_up_the_next_one_only_a_moment(
    local, lab, names, metrics
):
    nobody = lab.address.rsplit(".", 1)[0] + ".6"
    names.answers["api.example.test"] = [[nobody, lab.address]]
    async with local(API) as proxy:
        await (await opened(proxy, API)).aclose()


@pytest.mark.parametrize(
    ("hello", "outcome", "answer"),
    [
        (real_hello("other.example.test"), "other-name", UNRECOGNIZED_NAME),
        (real_hello(None), "other-name", UNRECOGNIZED_NAME),
        (b"GET / HTTP/1.1\r\nHost: api.example.test\r\n\r\n", "not-tls", b""),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not-tls", b""),
        (b"\x16\x03\x01\x40\x00" + bytes(300), "not-tls", b""),
    ],
)
async def test_behind_a_listed_name_no_other_name_and_no_other_protocol_is_had(
    local, metrics, hello, outcome, answer
):
    async with local(RAW_ENTRY) as proxy, await opened(proxy, RAW_ENTRY) as stream:
        await stream.send(hello)
        with anyio.move_on_after(20):
            await stream.send_eof()
        assert await read_to_end(stream) == answer
    assert counted(metrics) == {outcome: 1}


@pytest.mark.parametrize("apart", [True, False])
async def test_a_second_hello_for_another_name_ends_the_tunnel(local, metrics, apart):
    """A retry in the clear, which some servers take at its last word; with what TLS lets stand in between."""
    first, second = (
        real_hello("raw.example.test"),
        b"\x14\x03\x03\0\x01\x01" + real_hello("other.example.test"),
    )
    async with local(RAW_ENTRY) as proxy, await opened(proxy, RAW_ENTRY) as stream:
        if apart:
            await stream.send(first)
            await until(lambda: counted(metrics).get("sent"), "the first hello has gone on")
            await stream.send(second)
        else:
            await stream.send(first + second)
        assert await read_to_end(stream) == b""
    assert counted(metrics)["other-name"] == 1
    assert counted(metrics).get("sent", 0) <= len(first)


async def test_either_side_may_end_its_direction_first(local, metrics):
    async with local(RAW_ENTRY) as proxy, await opened(proxy, RAW_ENTRY) as stream:
        hello = real_hello("raw.example.test")
        bulk = 200 * (b"\x17\x03\x03\x27\x10" + bytes(10_000))
        for part in (hello[:1], hello[1:100], hello[100:], bulk):
            await stream.send(part)
        await stream.send_eof()
        assert await read_to_end(stream) == f"{len(hello) + len(bulk)}\n".encode()
    found = counted(metrics)
    assert found == {"sent": len(hello) + len(bulk), "received": len(str(int(found["sent"]))) + 1, "done": 1}


async def test_the_first_bytes_of_a_tunnel_may_come_with_the_request(local, metrics):
    hello = real_hello("raw.example.test")
    async with local(RAW_ENTRY) as proxy, await proxy.connect() as stream:
        await stream.send(connect(RAW_ENTRY) + hello)
        await stream.send_eof()
        assert (await read_to_end(stream)).endswith(f"\r\n\r\n{len(hello)}\n".encode())


@pytest.mark.parametrize(
    ("first", "outcome"),
    [(b"", "too-slow"), (b"CONNECT api.exam", "too-slow"), (connect(RAW_ENTRY), "too-slow"),
     (connect(RAW_ENTRY) + real_hello("raw.example.test")[:50], "too-slow"),
     (connect(RAW_ENTRY) + real_hello("raw.example.test"), "idle")],
)  # fmt: skip
async def test_who_stops_in_the_middle_is_let_go(local, metrics, first, outcome):
    async with local(RAW_ENTRY, bounds=QUICK) as proxy, await proxy.connect() as stream:
        if first:
            await stream.send(first)
        await read_to_end(stream)
        await until(lambda: proxy.proxy.open == 0, "the connection is let go")
    assert outcome in counted(metrics)


async def test_a_name_without_an_address_and_a_port_without_a_listener_are_told_apart(
    local, lab, names, metrics
):
    async with local("none.example.test:443", "api.example.test:444") as proxy:
        assert b" 502 " in await said(proxy, connect("none.example.test:443"))
        assert b" 502 " in await said(proxy, connect("api.example.test:444"))
    assert counted(metrics) == {"no-address": 1, "unreachable": 1}


async def test_what_does_not_answer_in_time_is_504(local, lab, names, metrics):
    # Of nobody, and not asked for before: the kernel looks for it for seconds, and only then says that there is no way.
    names.answers["api.example.test"] = [[lab.address.rsplit(".", 1)[0] + ".5"]]
    async with local(API, bounds=QUICK) as proxy:
        assert b" 504 " in await said(proxy, connect(API))
    assert counted(metrics) == {"timeout": 1}


async def test_look_ups_that_never_end_hold_no_more_than_their_threads(local, metrics):
    """A hostile name server: each name is different, none is ever answered while somebody waits."""
    held: list[str] = []
    waiting = [0]

    def never(host: str) -> list[str]:
        held.append(host)
        while not waiting[0]:
            time.sleep(0.01)
        return []

    async with local("*.slow.example.test:443", bounds=QUICK, resolve=never) as proxy:
        async with anyio.create_task_group() as tasks:
            for number in range(3 * MAX_LOOKUPS):
                tasks.start_soon(said, proxy, connect(f"n{number}.slow.example.test:443"))
        assert len(held) == MAX_LOOKUPS
        waiting[0] = 1
        assert b" 502 " in await said(proxy, connect("last.slow.example.test:443"))
    assert counted(metrics) == {"timeout": 3 * MAX_LOOKUPS, "no-address": 1}


async def test_more_connections_than_the_bound_wait_outside(local, metrics):
    bounds = Bounds(connections=5, pace=Rate(10_000.0, 10_000))
    async with local(API, bounds=bounds) as proxy:
        streams = [await proxy.connect() for _ in range(30)]
        await until(lambda: proxy.proxy.open == 5, "the bound is reached")
        for stream in streams:
            await stream.send(connect("other.example.test:443"))
        for stream in streams:
            assert b" 403 " in await read_to_end(stream)
            await stream.aclose()
        assert proxy.proxy.open <= 5
    assert counted(metrics) == {"not-listed": 30}


async def test_a_connection_that_this_process_has_no_descriptor_for_waits_until_there_is_one(local, metrics):
    async with local(API) as proxy:
        with socket.socket() as client:
            client.setblocking(False)
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            try:
                client.connect_ex(("127.0.0.1", proxy.port))
                await anyio.wait_writable(client)
                await anyio.sleep(SOON)  # for what must not happen
                assert proxy.proxy.open == 0
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            client.send(connect("other.example.test:443"))
            with anyio.fail_after(20):
                await anyio.wait_readable(client)
            assert b" 403 " in client.recv(1000)


async def test_who_is_beyond_the_bound_is_served_when_another_ends(local, metrics):
    async with local(RAW_ENTRY, bounds=Bounds(connections=1)) as proxy:
        first = await opened(proxy, RAW_ENTRY)
        second = await proxy.connect()
        await second.send(connect(RAW_ENTRY))
        with anyio.move_on_after(0.1) as waited:
            await second.receive()
        assert waited.cancelled_caught
        await first.aclose()
        with anyio.fail_after(20):
            assert b" 200 " in await second.receive()
        await second.aclose()


async def test_a_receiver_that_does_not_read_stops_the_sender(local, metrics):
    """Backpressure: what is not taken is not read either; the proxy holds a piece, and the kernel a bounded share."""
    async with local(f"raw.example.test:{SILENT}") as proxy:
        async with await opened(proxy, f"raw.example.test:{SILENT}") as stream:
            await stream.send(real_hello("raw.example.test"))
            with anyio.move_on_after(0.5):
                while True:
                    await stream.send(b"\x17\x03\x03\x27\x10" + bytes(10_000))
            assert counted(metrics)["sent"] < 4_000_000


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300)
    | st.binary(max_size=300).map(lambda data: connect(RAW_ENTRY) + b"\x16\x03\x01" + data)
)
def test_any_bytes_end_in_an_outcome_and_the_proxy_goes_on(local, metrics, data):
    async def talk() -> None:
        async with local(RAW_ENTRY, bounds=QUICK) as proxy:
            for sent in (data, connect("other.example.test:443")):
                async with await proxy.connect() as stream:
                    await stream.send(sent)
                    await stream.send_eof()
                    said_last = await read_to_end(stream)
            assert b" 403 " in said_last

    anyio.run(talk)
    assert "internal" not in counted(metrics)


async def test_every_connection_ends_with_the_proxy(local, metrics):
    async with local(RAW_ENTRY) as proxy:
        stream = await opened(proxy, RAW_ENTRY)
        await stream.send(real_hello("raw.example.test"))
        await until(lambda: counted(metrics).get("sent"), "the tunnel is open")
    await read_to_end(stream)
    await stream.aclose()
    assert counted(metrics)["ended"] == 1
    with pytest.raises(OSError, match="connect"):
        await anyio.connect_tcp("127.0.0.1", proxy.port)
