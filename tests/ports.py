"""Ports for servers that are started by themselves."""

import socket


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, all different. None is one that clients refuse: those are below these."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports
