"""Opening the ports that the service listens on."""

import socket

from course_service.errors import StartupError


class PortTaken(StartupError):
    """The address to listen on is in use, or is not this machine's."""

    def __init__(self, address: str, setting: str) -> None:
        super().__init__(f"cannot listen on {address}: it is in use or not an address of this machine; set {setting}")


def open_port(address: str, setting: str) -> socket.socket:
    """Listen on `HOST:PORT`, which a setting has named; `[::]` takes IPv4 too. Raises `PortTaken`."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family, backlog=2048, dualstack_ipv6=host == "::")
    except (OSError, ValueError):  # ValueError: this machine has no IPv6
        raise PortTaken(address, setting) from None
