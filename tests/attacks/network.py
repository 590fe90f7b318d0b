"""Attacks over the network: the runtime's ports, the machine's sockets, and families of sockets that exploits begin with."""

import os
import socket
import struct
from contextlib import suppress

from attacks.attack import Canaries, Rows
from attacks.hostile import CLONE_NEWNET, become_root, read, touch_kernel

rows = Rows("network")


def _connect(family: int, kind: int, address: tuple[str, int]) -> bool:
    with socket.socket(family, kind) as client:
        client.settimeout(3)
        client.connect(address)
        client.send(b"ping")
        return client.recv(100) == b"pong"


@rows("seccomp", "netns", "landlock:4")
def connect_to_a_port_of_the_runtime(c: Canaries) -> object:
    return _connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", c["port"]))


@rows("seccomp", "netns", "landlock:4", needs=("ipv6",))
def connect_to_a_port_of_the_runtime_by_ipv6(c: Canaries) -> object:
    return _connect(socket.AF_INET6, socket.SOCK_STREAM, ("::1", c["port6"]))


@rows("seccomp", "netns", "landlock:4", needs=("ipv6",))
def connect_to_a_port_of_the_runtime_by_a_mapped_address(c: Canaries) -> object:
    return _connect(socket.AF_INET6, socket.SOCK_STREAM, ("::ffff:127.0.0.1", c["port"]))


@rows("seccomp", "netns", "landlock:4")
def connect_to_the_metadata_address(c: Canaries) -> object:
    return _connect(socket.AF_INET, socket.SOCK_STREAM, ("169.254.169.254", c["port"]))


@rows("seccomp", "netns", "landlock:4")
def connect_to_a_private_address(c: Canaries) -> object:
    return _connect(socket.AF_INET, socket.SOCK_STREAM, ("10.0.0.1", c["port"]))


@rows("seccomp", "netns")
def send_a_datagram_to_the_host(c: Canaries) -> object:
    return _connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", c["udp"]))


@rows("seccomp", "netns")
def carry_words_out_in_names_to_be_resolved(c: Canaries) -> object:
    """A question of DNS form to a resolver, which would carry it anywhere."""
    question = struct.pack(">6H", 1, 0x100, 1, 0, 0, 0) + b"\x06secret\x04test\x00" + struct.pack(">2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(3)
        client.sendto(question, ("127.0.0.53", c["dns"]))
        return client.recv(100)


@rows("seccomp", "netns", needs=("ping",))
def ping_the_host(_: Canaries) -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as client:
        client.settimeout(3)
        client.sendto(b"\x08\x00\x00\x00\x00\x00\x00\x01", ("127.0.0.1", 0))
        return client.recv(100)


@rows("netns", "landlock!rootfs")
def see_the_connections_of_the_host(c: Canaries) -> object:
    return f":{c['port']:04X}" in read("/proc/net/tcp", 1 << 20).decode()


@rows("netns", "landlock!rootfs")
def see_the_named_sockets_of_the_host(c: Canaries) -> object:
    return c["abstract"] in read("/proc/net/unix", 1 << 20).decode()


@rows("netns", "landlock:6", "seccomp")
def connect_to_an_abstract_socket_of_the_host(c: Canaries) -> object:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"\0{c['abstract']}")
        return True


@rows("netns", "landlock:6", "seccomp")
def send_to_an_abstract_socket_of_the_host(c: Canaries) -> object:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.sendto(b"ping", f"\0{c['abstract']}-datagrams")
        return True


@rows("seccomp")
def speak_netlink_about_routes(_: Canaries) -> object:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).fileno() >= 0


@rows("seccomp")
def speak_netlink_about_sockets(_: Canaries) -> object:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4).fileno() >= 0


@rows("seccomp")
def speak_netlink_about_events_of_devices(_: Canaries) -> object:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15).fileno() >= 0


@rows("seccomp", "userns", needs=("netfilter",))
def speak_netlink_to_a_packet_filter_of_its_own(_: Canaries) -> object:
    """Where a long row of exploits of nf_tables begins."""
    become_root(CLONE_NEWNET)
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12).fileno() >= 0


@rows("seccomp", "userns")
def open_a_packet_socket(_: Canaries) -> object:
    become_root(CLONE_NEWNET)
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).fileno() >= 0


@rows("seccomp", "userns")
def open_a_raw_socket(_: Canaries) -> object:
    become_root(CLONE_NEWNET)
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).fileno() >= 0


def _family(number: int, kind: int = 1, protocol: int = 0) -> bool:
    """Whether a family of sockets is there, or was not even asked for."""
    with suppress(OSError):
        return socket.socket(number, kind, protocol).fileno() >= 0
    touch_kernel("socket", number, kind, protocol)
    return False


@rows("seccomp")
def open_a_socket_to_the_hypervisor(_: Canaries) -> object:
    return _family(40)


@rows("seccomp")
def open_a_socket_to_the_kernels_ciphers(_: Canaries) -> object:
    return _family(38, 5)


@rows("seccomp")
def open_a_bluetooth_socket(_: Canaries) -> object:
    return _family(31, 3)


@rows("seccomp")
def open_a_socket_of_cluster_messages(_: Canaries) -> object:
    return _family(30, 5)


@rows("seccomp")
def open_a_socket_of_vehicle_networks(_: Canaries) -> object:
    return _family(29, 3, 1)


@rows("seccomp")
def open_a_socket_of_reliable_datagrams(_: Canaries) -> object:
    return _family(21, 5)


@rows("seccomp")
def open_a_socket_of_keys(_: Canaries) -> object:
    return _family(15, 3, 2)


@rows("seccomp")
def open_a_socket_of_express_data_paths(_: Canaries) -> object:
    return _family(44, 3)


@rows("seccomp")
def open_a_socket_of_shared_memory_communication(_: Canaries) -> object:
    return _family(43)


@rows("seccomp")
def open_a_socket_of_multiplexed_messages(_: Canaries) -> object:
    return _family(41, 5)


@rows("seccomp")
def open_a_socket_of_field_communication(_: Canaries) -> object:
    return _family(39, 3, 1)


@rows("seccomp")
def open_a_socket_of_phones(_: Canaries) -> object:
    return _family(35, 2)


@rows("seccomp")
def open_a_socket_of_packet_radio(_: Canaries) -> object:
    return _family(3, 5)


@rows("seccomp")
def open_a_pair_of_cluster_sockets(_: Canaries) -> object:
    with suppress(OSError):
        return socket.socketpair(30, 5)
    touch_kernel("socketpair", 30, 5, 0, b"\0" * 8)
    return os.getpid() < 0
