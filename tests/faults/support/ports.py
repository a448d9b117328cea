"""Ports that stay free while nobody listens on them."""

import random
import socket

# Below the range of outgoing ports: a client that tries a port of that range while its server is down can get
# connected to itself, and then the server cannot come back.
_PORTS = range(20_000, 30_000)


def free_port() -> int:
    """Return a port of the loopback interface on which nobody listens."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
